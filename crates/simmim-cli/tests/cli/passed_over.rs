//! What in a collection is no image: counted and named by `inspect`, when a run begins, and in its log.

use std::fs;
use std::path::Path;

use serde_json::{Value, json as value};

use super::support::{class_folders, finetune, json, log, pretrain, refuses, run, scratch, simmim, succeeds, text};

/// Writes a tar file of gray pictures with these names.
fn shard(path: &Path, names: &[String]) {
    let mut picture = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_pixel(28, 28, image::Luma([90])).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_size(picture.get_ref().len() as u64);
        builder.append_data(&mut header, name, picture.get_ref().as_slice()).unwrap();
    }
    builder.into_inner().unwrap();
}

#[test]
fn inspect_counts_by_reason_and_names_ten() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["dark", "light"], 3);
    for number in 10..35 {
        fs::write(data.join(format!("dark/{number}.heic")), b"").unwrap();
    }
    fs::write(data.join(".hidden"), b"").unwrap();
    let found = json(simmim(["inspect", &text(&data)]));
    assert_eq!((&found["images"], &found["passed_over"].as_array().unwrap().len()), (&value!(6), &11));
    let [hidden, heic] = found["not_read"].as_array().unwrap().as_slice() else { panic!("{found:?}") };
    assert_eq!((&hidden["reason"], &hidden["count"]), (&value!("hidden"), &value!(1)));
    assert_eq!([&heic["reason"], &heic["extension"]], ["extension", "heic"].map(Value::from).each_ref());
    assert_eq!((&heic["count"], heic["first"].as_array().unwrap().len()), (&value!(25), 10));
    let prose = succeeds(simmim(["inspect", &text(&data)]));
    assert!(prose.stdout.starts_with("6 images, 0 unreadable, 26 others not read\n"), "{prose:?}");
    let line = prose.stdout.lines().find(|line| line.contains(".heic")).unwrap();
    let end = "and 15 more have the extension `.heic`, which is not read; convert to JPEG or PNG";
    assert!(line.starts_with("  not read: `") && line.ends_with(end), "{line}");
    assert_eq!(prose.stderr, "", "inspect says it once");
}

#[test]
fn a_run_says_once_what_it_does_not_read() {
    let (folder, out) = scratch();
    let (data, val) = (folder.path().join("data.tar"), folder.path().join("val"));
    let names = |dot: char| (0..8).map(move |i| format!("photo_{i}.png").replacen('_', &dot.to_string(), 1));
    shard(&data, &names('_').chain(names('.')).collect::<Vec<_>>());
    class_folders(&val, &["only"], 8);
    fs::write(val.join("only/notes.txt"), b"").unwrap();
    fs::write(val.join(".hidden"), b"").unwrap();
    let train = |steps: &str| {
        let mut command = pretrain(&text(&data), &out, &["data.channels=1", "train.checkpoint_every_steps=2", steps]);
        command.arg("--val").arg(&val);
        run(command)
    };
    let ran = train("train.max_steps=4");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("not read: ")).collect();
    let [dotted, notes] = told[..] else { panic!("{ran:?}") };
    assert!(dotted.starts_with("warning: not read: ") && notes.starts_with("not read: "), "{told:?}");
    assert!(dotted.contains("data.tar:photo.2.png` and 5 more are pictures with several dots"), "{dotted}");
    assert!(notes.contains("notes.txt` has the extension `.txt`, which is not read"), "{notes}");
    let logged = || -> Vec<_> {
        let entries = log(&out).into_iter().filter(|entry| entry.contains_key("not_read"));
        entries
            .map(|entry| [&entry["step"], &entry["collection"], &entry["not_read"], &entry["count"]].map(Value::clone))
            .collect()
    };
    let expected = [
        value!([0, "training", "dotted-name", 8]),
        value!([0, "held-out", "hidden", 1]),
        value!([0, "held-out", "extension", 1]),
    ];
    assert_eq!(value!(logged()), value!(expected));
    fs::remove_dir_all(out.join("checkpoints/step-4")).unwrap();
    assert_eq!(train("train.max_steps=4").code, Some(0));
    assert_eq!(value!(logged()), value!(expected), "a resumed run logs it no second time");
}

#[test]
fn the_file_that_prevents_labels_is_named() {
    let (folder, out) = scratch();
    for stray in ["sheet.png", "dark/deeper/1.png"] {
        let data = folder.path().join(stray.replace('/', "-"));
        class_folders(&data, &["dark", "light"], 8);
        fs::create_dir_all(data.join(stray).parent().unwrap()).unwrap();
        fs::copy(data.join("dark/0.png"), data.join(stray)).unwrap();
        let mut command = finetune("scratch", &text(&data), &out, &[]);
        command.arg("--val").arg(&data);
        refuses(command, &format!("{stray}` does not lie directly in a class folder"), "move it into a sub-folder");
    }
}
