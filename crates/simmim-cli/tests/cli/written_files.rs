//! Files that are kept: features that are used again, and the names and modes of all that is written.

use super::support::{class_folders, fashion, json, pretrain, scratch, simmim, succeeds};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `simmim knn` by one neighbor, with more options.
fn knn(run: &Path, data: &Path, val: &Path, more: &[&str]) -> Command {
    let mut command = simmim(["knn", "--k=1", "--from"]);
    command.arg(run).arg("--data").arg(data).arg("--val").arg(val).args(more);
    command
}

/// A trained run, and two folders of 128 pictures of two classes.
fn run_and_pictures() -> (tempfile::TempDir, [PathBuf; 3]) {
    let (folder, run) = scratch();
    let [data, val] = ["data", "val"].map(|name| folder.path().join(name));
    succeeds(pretrain(&fashion(), &run, &[]));
    class_folders(&data, &["dark", "light"], 64);
    class_folders(&val, &["dark", "light"], 64);
    (folder, [run, data, val])
}

/// All files in a folder, at any depth, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn pictures_that_change_places_are_encoded_anew() {
    let (folder, [run, data, val]) = run_and_pictures();
    assert_eq!(json(knn(&run, &data, &val, &[]))["top1"], 100.0);
    let kept = files(&run.join("features"));

    // every second picture in the order of names goes to the other class, under a name that was there before
    for dark in files(&data.join("dark")).iter().skip(1).step_by(2) {
        let light = data.join("light").join(dark.file_name().unwrap());
        let bytes = fs::read(dark).unwrap();
        fs::rename(&light, dark).unwrap();
        fs::write(&light, bytes).unwrap();
    }
    let fresh = folder.path().join("fresh");
    let expected = json(knn(&run, &data, &val, &["--cache", fresh.to_str().unwrap()]));
    assert!(expected["top1"].as_f64().unwrap() < 90.0, "{expected:?}");
    assert_eq!(json(knn(&run, &data, &val, &[])), expected);
    assert_eq!(files(&run.join("features")), kept, "the kept features are replaced");
    assert_eq!(json(knn(&run, &data, &val, &[])), expected, "and found again");
}

#[test]
fn an_encoder_with_the_same_weights_but_another_recipe_has_its_own_features() {
    let (folder, _) = scratch();
    let [data, cache] = ["data", "cache"].map(|name| folder.path().join(name));
    class_folders(&data, &["dark", "light"], 3);
    // without a position bias no parameter's shape depends on the number of heads
    let edits = ["--set=encoder.width=16", "--set=encoder.depth=1", "--set=encoder.position_bias=none"];
    for (heads, files_kept) in [("encoder.heads=2", 1), ("encoder.heads=4", 2), ("encoder.heads=2", 2)] {
        let mut command = knn(Path::new("scratch"), &data, &data, &["--recipe=demo", "--set", heads]);
        command.args(edits).arg("--cache").arg(&cache);
        succeeds(command);
        assert_eq!(files(&cache).len(), files_kept, "{heads}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_does_not_cost_the_result() {
    let (folder, [run, data, val]) = run_and_pictures();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let below_a_file = file.join("cache");
    let expected = json(knn(&run, &data, &val, &[]));
    let ran = succeeds(knn(&run, &data, &val, &["--cache", below_a_file.to_str().unwrap(), "--json"]));
    assert_eq!(serde_json::from_str::<Map<String, Value>>(ran.stdout.trim()).unwrap(), expected);
    assert_eq!(ran.stderr.matches("not kept for the next time").count(), 2, "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn a_full_cache_does_not_cost_the_result() {
    let limited = "trap '' XFSZ; ulimit -f 1 || exit 77; exec \"$0\" \"$@\"";
    if !Command::new("bash").args(["-c", "trap '' XFSZ; ulimit -f 1"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine has no bash with `ulimit -f`");
        return;
    }
    let (_folder, [run, data, val]) = run_and_pictures();
    let command = knn(&run, &data, &val, &[]);
    let mut shell = Command::new("bash");
    shell.args(["-c", limited]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    let ran = json(shell);
    assert!(files(&run.join("features")).is_empty(), "no half file is left");
    assert_eq!(json(knn(&run, &data, &val, &[])), ran);
}

#[test]
fn kept_features_that_are_cut_short_are_made_anew() {
    let (_folder, [run, data, _]) = run_and_pictures();
    let expected = json(knn(&run, &data, &data, &[]));
    let [kept] = &files(&run.join("features"))[..] else { panic!("one file of features") };
    let whole = fs::read(kept).unwrap();
    for length in [0, 100, whole.len() - 5] {
        fs::write(kept, &whole[..length]).unwrap();
        assert_eq!(json(knn(&run, &data, &data, &[])), expected, "{length} bytes");
        assert!(fs::read(kept).unwrap() == whole, "{length} bytes");
    }
}

#[test]
fn processes_with_one_cache_all_succeed() {
    let (folder, [run, data, val]) = run_and_pictures();
    let cache = folder.path().join("cache");
    // a measured precision may be another one in a process beside three others, with other features
    let options = ["--json", "--precision", "f32", "--cache", cache.to_str().unwrap()];
    let command = || knn(&run, &data, &val, &options);
    let start = |mut command: Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started: Vec<_> = (0..4).map(|_| start(command())).collect();
    for process in started {
        let ended = process.wait_with_output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
    }
    assert_eq!(files(&cache).len(), 2, "the features of two folders, and nothing else");
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_killed_process_left_is_removed_when_its_folder_is_used_again() {
    use std::time::{Duration, SystemTime};

    let (_folder, [run, data, val]) = run_and_pictures();
    let gone = u32::MAX; // no process has such an id
    let left = |path: &str| {
        let path = run.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "half").unwrap();
        path
    };
    let ours = [
        left(&format!(".partial-{gone}-0")),
        left(&format!("pictures/.partial-{gone}-7")),
        left("checkpoints/.step-9.partial/model.safetensors"),
    ];
    let of_someone = left("pictures/.mine");
    succeeds(pretrain(&fashion(), &run, &[]));
    assert!(ours.iter().all(|path| !path.exists()) && !run.join("checkpoints/.step-9.partial").exists());
    assert!(of_someone.exists());

    // a folder of features is not locked, and a process on another machine may write to it
    let [old, new] = [left(&format!("features/.partial-{gone}-0")), left(&format!("features/.partial-{gone}-1"))];
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(&old).unwrap().set_modified(two_hours_ago).unwrap();
    json(knn(&run, &data, &val, &[]));
    assert!(!old.exists() && new.exists());
}

#[cfg(unix)]
#[test]
fn a_picture_may_have_the_longest_name_there_is() {
    let (folder, [run, data, _]) = run_and_pictures();
    let image = folder.path().join(format!("{}.png", "n".repeat(251))); // 255 bytes, NAME_MAX of common file systems
    fs::copy(data.join("dark/0.png"), &image).unwrap();
    let out = folder.path().join("out");
    let mut command = simmim(["reconstruct", "--from"]);
    command.arg(&run).arg("--out").arg(&out).arg(&image);
    json(command);
    assert_eq!(files(&out), [out.join(image.file_name().unwrap())]);
}

#[cfg(unix)]
#[test]
fn the_modes_of_all_files_follow_the_umask() {
    use super::support::{finetune, photos, text};
    use std::os::unix::fs::PermissionsExt;

    let (folder, run) = scratch();
    let out = |name: &str| folder.path().join(name);
    let average = ["train.average_decay=0.9"];
    let mut tokenizer = simmim(["tokenizer", "--recipe=tokenizer-cifar", "--data", &photos(), "--out"]);
    tokenizer.arg(out("tokenizer")).args(["--set=train.batch_size=2", "--set=train.max_steps=1"]);
    tokenizer.args(["--set=data.image_size=16", "--set=tokenizer.width=4", "--set=tokenizer.vocabulary=16"]);
    let mut palette = simmim(["palette", "--data", &photos(), "--colors=4", "--out"]);
    palette.arg(out("palette.safetensors"));
    let fashion = fashion();
    let mut tuned = finetune(&text(&run), &fashion, &out("tuned"), &average);
    tuned.args(["--val", &fashion]);
    let mut reconstruct = simmim(["reconstruct", "--from"]);
    reconstruct.arg(&run).arg("--out").arg(out("pictures")).arg(format!("{}/tools-hammer5.jpg", photos()));
    for command in [
        pretrain(&fashion, &run, &average),
        tuned,
        knn(&run, Path::new(&fashion), Path::new(&fashion), &[]),
        tokenizer,
        palette,
        reconstruct,
    ] {
        let mut shell = Command::new("bash");
        shell.args(["-c", "umask 027; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        succeeds(shell);
    }
    let written = files(folder.path());
    for name in ["model", "optimizer", "average", "best", "tokenizer", "palette", "features", ".png"] {
        let is_named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().contains(name);
        assert!(written.iter().any(is_named), "{name} in {written:?}");
    }
    for path in written {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "{:o} of `{}`", mode, path.display());
    }
}
