//! `simmim inspect` of a data set: what it finds, its page, and the command that it suggests.

use super::support::{
    array, broken_image, fails, fashion, json, photos, refuses, repository, scratch, simmim, succeeds, text,
};
use serde_json::{Map, Value, json as value};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Copies and relatives of two photographs.
fn copies() -> String {
    repository("testdata/duplicates")
}

fn inspected(data: &str, options: &[&str]) -> Map<String, Value> {
    let mut command = simmim(["inspect", data]);
    command.args(options);
    json(command)
}

/// The file names of the first group.
fn first_group(found: &Map<String, Value>, key: &str) -> Vec<String> {
    let images = found[key][0]["images"].as_array().unwrap();
    let name = |image: &Value| Path::new(image.as_str().unwrap()).file_name().unwrap().to_string_lossy().into_owned();
    images.iter().map(name).collect()
}

/// Classes of copies: the pliers are a tool and a toy.
fn classes(folder: &Path) {
    for (class, name) in
        [("tool", "tools-plier1.jpg"), ("toy", "tools-plier1-half.jpg"), ("food", "others-buffetset.jpg")]
    {
        fs::create_dir_all(folder.join(class)).unwrap();
        fs::copy(format!("{}/{name}", copies()), folder.join(class).join(name)).unwrap();
    }
}

#[test]
fn a_collection_is_described_alike_by_any_number_of_threads() {
    let found = inspected(&copies(), &[]);
    for key in ["images", "classes", "unreadable", "passed_over", "not_read", "suggestion", "plain"] {
        assert!(found.contains_key(key), "{key}");
    }
    assert_eq!(found["sizes"], value!({ "height": [25, 99], "width": [64, 128], "channels": 3 }));
    assert_eq!(found["stored"], value!([{ "channels": 3, "alpha": false, "depth": "8 bit", "images": 12 }]));
    assert_eq!(first_group(&found, "exact_duplicates"), ["others-buffetset-same.png", "others-buffetset.jpg"]);
    assert_eq!(first_group(&found, "near_duplicates").len(), 4);
    assert_eq!(found["normalization"]["mean"].as_array().unwrap().len(), 3);
    for workers in ["--workers=0", "--workers=1", "--workers=3"] {
        assert_eq!(inspected(&copies(), &[workers]), found, "{workers}");
    }
    let prose = succeeds(simmim(["inspect", &copies()])).stdout;
    for line in ["exact copies        4 images in 2 groups", "look alike          8 images in 2 groups"] {
        assert!(prose.lines().any(|found| found == line), "{line} in {prose}");
    }
}

#[test]
fn images_of_one_picture_in_two_classes_are_named() {
    let (folder, _) = scratch();
    classes(folder.path());
    let found = inspected(&text(folder.path()), &[]);
    assert_eq!((&found["label_conflicts"], &found["exact_duplicates"]), (&value!(1), &value!([])));
    assert_eq!(found["near_duplicates"][0]["classes"], value!(["tool", "toy"]));
    assert_eq!(found["near_duplicates"][0]["label_conflict"], value!(true));
    let prose = succeeds(simmim(["inspect", &text(folder.path())])).stdout;
    let named = prose.lines().find(|line| line.contains(" = ") && line.ends_with("(tool, toy)"));
    assert!(named.is_some_and(|line| line.contains("tools-plier1.jpg")), "{prose}");
}

#[test]
fn the_page_holds_all_that_it_shows() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    classes(&data);
    broken_image(&data.join("toy/<i>half.jpg"));
    let page = folder.path().join("pages/collection.html");
    let html = format!("--html={}", page.display());
    let found = inspected(&text(&data), &[&html, "--seed=3"]);
    assert_eq!(found["report"], value!(page));
    let written = fs::read_to_string(&page).unwrap();
    for expected in ["Contact sheet", "2 images, in different classes", "&lt;i&gt;half.jpg", "simmim pretrain --recipe"]
    {
        assert!(written.contains(expected), "{expected}");
    }
    for forbidden in ["<i>half", "<script", "http:", "https:", "url("] {
        assert!(!written.contains(forbidden), "{forbidden}");
    }
    assert_eq!(written.matches("data:image/png").count(), 3 + 2);
    // single channels have a page too
    array(&data.join("gray.npy"), 30, 20, 1, 0);
    let gray = text(&data.join("gray.npy"));
    assert_eq!(inspected(&gray, &["--channels=1", &html])["normalization"]["mean"].as_array().unwrap().len(), 1);
    assert!(fs::read_to_string(&page).unwrap().contains("<figcaption>1 image</figcaption>"));
}

#[test]
fn options_of_collections_are_refused_elsewhere() {
    let (folder, _) = scratch();
    let page = format!("--html={}/page.html", folder.path().display());
    refuses(simmim(["inspect", "demo", &page]), "`--html ", "data sets");
    refuses(
        simmim(["inspect", "demo", "--workers=2"]),
        "`--workers 2` changes nothing in `simmim inspect`",
        "data sets",
    );
    refuses(simmim(["inspect", &photos(), "--seed=1"]), "`--seed` changes nothing", "inspect with --html");
    let folder_as_page = format!("--html={}", folder.path().display());
    refuses(simmim(["inspect", &photos(), &folder_as_page]), "is a folder", "collection.html");
}

#[test]
fn the_suggested_command_trains() {
    let (folder, _) = scratch();
    for (data, recipe) in [(copies(), "pretrain-vit-photos-192"), (fashion(), "pretrain-vit-cifar")] {
        let suggestion = inspected(&data, &[])["suggestion"].clone();
        assert_eq!(suggestion["recipe"], recipe);
        let out = folder.path().join(recipe);
        let command = suggestion["command"].as_str().unwrap().replacen("simmim", "exec \"$0\"", 1);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command.replace("--out RUN", "--out \"$1\" --threads 1 --json --set train.max_steps=1"));
        shell.arg(env!("CARGO_BIN_EXE_simmim")).arg(&out);
        let ran = succeeds(shell);
        assert!(ran.stdout.contains("\"steps\":1"), "{ran:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_ends_it() {
    use super::support::with_default_signals;
    use std::os::unix::process::ExitStatusExt;
    let (folder, _) = scratch();
    // a hundred times 75 megapixels, which take minutes
    let large = folder.path().join("large.png");
    image::GrayImage::new(15_000, 5_000).save(&large).unwrap();
    let data = vec![text(&large); 100].join(",");
    let mut child = with_default_signals(&simmim(["inspect", &data, "--workers=1"])).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it takes longer");
    Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2));
}

#[test]
fn a_page_replaces_nothing_but_a_page() {
    let (folder, _) = scratch();
    let (picture, page) = (folder.path().join("a.npy"), folder.path().join("page.html"));
    array(&picture, 8, 8, 3, 0);
    let before = fs::read(&picture).unwrap();
    let command = |file: &Path| simmim(["inspect", &text(&picture), "--html", &text(file)]);
    refuses(command(&picture), "is there already and is no page", "name another file");
    assert!(fs::read(&picture).unwrap() == before);
    succeeds(command(&page));
    succeeds(command(&page));
    if cfg!(target_os = "linux") {
        refuses(command(Path::new("/dev/null")), "is there already and is no page", "");
    }
}

#[test]
fn more_threads_or_channels_than_make_sense_are_refused() {
    for option in ["--workers=100000", "--channels=0", "--channels=2000"] {
        fails(simmim(["inspect", &photos(), option]), 2, "is not in");
    }
}

#[test]
fn tiles_of_a_recipe_are_counted_and_drawn() {
    let (folder, _) = scratch();
    let picture = format!("{}/others-buffetset.jpg", photos()); // 247 by 320 pixels
    let page = folder.path().join("tiles.html");
    let html = format!("--html={}", page.display());
    let tile = ["--recipe=pretrain-vit-photos-192", "--set=data.tile=100", "--set=data.tile_stride=50"];
    let found = inspected(&picture, &[&tile[..], &[&html]].concat());
    assert_eq!((&found["images"], &found["suggestion"]), (&value!(24), &Value::Null));
    assert_eq!(found["tiles"], value!({ "pictures": 1, "per_picture": [24, 24] }));
    assert_eq!(found["sizes"], value!({ "height": [100, 100], "width": [100, 100], "channels": 3 }));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("others-buffetset.jpg (247 × 320 px): 24 tiles") && html.contains("<h2>Tiles"), "{html}");
    let drawn = inspected(&picture, &[&tile[..], &["--set=data.tiles_per_picture=5"]].concat());
    assert_eq!(drawn["tiles"], value!({ "pictures": 1, "per_picture": [5, 5] }));
    let mut prose = simmim(["inspect", &picture]);
    prose.args(tile);
    assert!(succeeds(prose).stdout.contains("24 images, 0 unreadable, tiles of 1 picture: 24 each"));
    let whole = inspected(&picture, &["--recipe=pretrain-vit-photos-192"]);
    assert_eq!((&whole["images"], &whole["tiles"]), (&value!(1), &Value::Null));

    let command = |options: &[&str]| {
        let mut command = simmim(["inspect", &picture]);
        command.args(options);
        command
    };
    refuses(command(&[tile[0], "--set=train.epochs=3"]), "changes nothing in `simmim inspect --recipe`", "data.tile");
    refuses(command(&["--recipe=pretrain-vit-photo-192"]), "pretrain-vit-photo-192", "did you mean");
    refuses(simmim(["inspect", "pretrain-vit-cifar", tile[0]]), "--recipe", "data sets");
}
