//! Sources: what a data specification opens, and what it refuses.

use std::fs;
use std::path::Path;

use simmim_data::{Error, Pixels, Source, check_classes_readable, check_readable, idx_from_bytes, open, scan};
use tempfile::{TempDir, tempdir};

use crate::files::{colorful, gray, gzip, idx, photos, tar, write};

/// A folder with the given files; each is a gray image whose value is its place in the list.
fn folder(paths: &[&str]) -> TempDir {
    let root = tempdir().unwrap();
    for (value, path) in paths.iter().enumerate() {
        write(&root.path().join(path), &gray(value as u8));
    }
    root
}

fn at(root: &TempDir, spec: &str) -> String {
    format!("{}/{spec}", root.path().display())
}

/// The gray level of a sample's first pixel.
pub(crate) fn value(source: &dyn Source, index: usize) -> u8 {
    match source.get(index).unwrap().image.pixels {
        Pixels::U8(pixels) => pixels[0],
        Pixels::F32(_) => panic!("bytes became floats"),
    }
}

/// The gray level and the label of every sample.
fn samples(source: &dyn Source) -> Vec<(u8, Option<usize>)> {
    (0..source.len())
        .map(|index| {
            assert_eq!(source.get(index).unwrap().label, source.label(index));
            assert_eq!(source.get(index).unwrap().name, source.name(index));
            (value(source, index), source.label(index))
        })
        .collect()
}

#[track_caller]
fn check(spec: &str, classes: &[&str], expected: &[(u8, Option<usize>)]) {
    let source = open(spec, 3).unwrap();
    assert_eq!(source.classes(), classes, "{spec}");
    assert_eq!(samples(&*source), expected, "{spec}");
}

#[test]
fn class_folders_are_labeled_in_the_order_of_their_names() {
    let root = folder(&["dog/b.png", "cat/z.PNG", "cat/a.jpeg", "dog/.hidden.png", "__MACOSX/x.png"]);
    write(&root.path().join("dog/notes.txt"), b"no image");
    write(&root.path().join("LICENSE"), b"no image");
    fs::create_dir(root.path().join("emu")).unwrap();
    check(&at(&root, ""), &["cat", "dog", "emu"], &[(2, Some(0)), (1, Some(0)), (0, Some(1))]);
}

#[test]
fn any_other_nesting_is_unlabeled_and_ordered_by_path() {
    let direct = folder(&["b.png", "a.png"]);
    check(&at(&direct, ""), &[], &[(1, None), (0, None)]);
    let mixed = folder(&["cat/a.png", "top.png"]);
    check(&at(&mixed, ""), &[], &[(0, None), (1, None)]);
    let deep = folder(&["cat/a.png", "dog/x/y/b.png", "dog/a.png"]);
    check(&at(&deep, ""), &[], &[(0, None), (2, None), (1, None)]);
    // a path may end in a slash or contain `..`
    let climbing = folder(&["cat/a.png", "dog/b.png"]);
    check(&at(&climbing, "cat/../"), &["cat", "dog"], &[(0, Some(0)), (1, Some(1))]);
}

#[test]
fn splits_are_refused_by_folder_and_not_by_the_names_of_pictures() {
    let root = folder(&["data/train/x/a.png", "data/val/x/b.png", "trips/train-station.png", "trips/test.png"]);
    for spec in ["data", "data/*", "data/*/x", "data/*/x/*.png"] {
        let error = open(&at(&root, spec), 3).err().unwrap();
        assert!(matches!(error, Error::Splits { .. }), "{spec}: {error}");
    }
    for (spec, count) in [("trips", 2), ("trips/*.png", 2), ("data/train,data/val", 2), ("data/*/x/a.png", 1)] {
        let spec = spec.split(',').map(|part| at(&root, part)).collect::<Vec<_>>().join(",");
        assert_eq!(open(&spec, 3).unwrap().len(), count, "{spec}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_above_is_not_followed() {
    let root = folder(&["a/b/c.png"]);
    std::os::unix::fs::symlink(root.path(), root.path().join("a/b/up")).unwrap();
    check(&at(&root, ""), &[], &[(0, None)]);
}

#[test]
fn photographs_open() {
    let source = open(&photos().display().to_string(), 3).unwrap();
    let scan = scan(&source, 0, &mut |_| {}).unwrap();
    assert_eq!((scan.count, scan.unlabeled, scan.unreadable.len()), (3, 3, 0));
}

/// Writes two shards: gray levels 0 1 2 with labels 2 0 1, and 3 4 without labels.
fn shards(root: &Path) {
    let first = tar(&[
        ("./a/000.cls", b"2\n"),
        ("a/000.png", &gray(0)),
        ("a/001.PNG", &gray(1)),
        ("a/001.cls", b"0"),
        ("a/001.json", b"{}"),
        ("a/001.seg.png", &gray(99)),
        ("a/text.txt", b"no image"),
        ("a/002.jpg", &gray(2)),
        ("a/002.cls", b" 1 "),
    ]);
    write(&root.join("train-00000.tar"), &first);
    write(&root.join("train-00001.tar"), &tar(&[("3.png", &gray(3)), ("4.png", &gray(4))]));
}

#[test]
fn shards_are_grouped_by_name_and_joined() {
    let root = tempdir().unwrap();
    shards(root.path());
    let all = [(0, Some(2)), (1, Some(0)), (2, Some(1)), (3, None), (4, None)];
    check(&at(&root, "train-{00000..00001}.tar"), &["0", "1", "2"], &all);
    check(&at(&root, "train-*.tar"), &["0", "1", "2"], &all);
    check(&at(&root, "train-0000[01].tar"), &["0", "1", "2"], &all);
    check(&at(&root, "train-0000{1,0}.tar"), &["0", "1", "2"], &[&all[3..], &all[..3]].concat());
    check(&at(&root, "train-00001.tar"), &[], &all[3..]);
    check(&at(&root, ""), &["0", "1", "2"], &all);
    write(&root.path().join("classes.json"), br#"["ant", "bee", "cow", "dog"]"#);
    check(&at(&root, ""), &["ant", "bee", "cow", "dog"], &all);
    check(&at(&root, "*"), &["ant", "bee", "cow", "dog"], &all);
    let source = open(&at(&root, "train-00000.tar"), 3).unwrap();
    assert_eq!(source.name(1), at(&root, "train-00000.tar:a/001.PNG"));
}

#[test]
fn long_names_in_shards_are_read() {
    let root = tempdir().unwrap();
    let long = format!("{}/x.png", "folder".repeat(40));
    write(&root.path().join("x.tar"), &tar(&[(&long, &gray(5)), ("y.png", &gray(6))]));
    check(&at(&root, "x.tar"), &[], &[(5, None), (6, None)]);
}

#[test]
fn idx_files_find_their_labels() {
    let root = tempdir().unwrap();
    let images = idx(&[3, 1, 2], &[10, 11, 20, 21, 30, 31]);
    write(&root.path().join("a-images-idx3-ubyte"), &images);
    write(&root.path().join("b-images-idx3-ubyte.gz"), &gzip(&images));
    write(&root.path().join("b-labels-idx1-ubyte.gz"), &gzip(&idx(&[3], &[1, 0, 3])));
    let labeled = [(10, Some(1)), (20, Some(0)), (30, Some(3))];
    check(&at(&root, "a-images-idx3-ubyte"), &[], &[(10, None), (20, None), (30, None)]);
    check(&at(&root, "b-images-idx3-ubyte.gz"), &["0", "1", "2", "3"], &labeled);
    let source = idx_from_bytes(&images, Some(&idx(&[3], &[1, 0, 3])), 1).unwrap();
    assert_eq!(samples(&*source), labeled);
    let image = source.get(1).unwrap().image;
    assert_eq!((image.height, image.width, image.channels), (1, 2, 1));
    assert_eq!(image.pixels, Pixels::U8(vec![20, 21]));
}

#[test]
fn sources_are_joined_when_their_classes_agree() {
    let one = folder(&["cat/a.png", "dog/b.png"]);
    let two = folder(&["cat/a.png", "cat/b.png", "dog/c.png"]);
    let plain = folder(&["x.png"]);
    let joined = [(0, Some(0)), (1, Some(1)), (0, Some(0)), (1, Some(0)), (2, Some(1))];
    check(&format!("{},{}", at(&one, ""), at(&two, "")), &["cat", "dog"], &joined);
    let unlabeled = [(0, None), (0, None), (1, None)];
    check(&format!("{},{}", at(&plain, ""), at(&one, "")), &[], &unlabeled);
    check(&format!("{},{}", at(&plain, "*.png"), at(&one, "dog/*")), &[], &[(0, None), (1, None)]);
    let other = folder(&["cat/a.png", "emu/b.png"]);
    let error = open(&format!("{},{}", at(&one, ""), at(&other, "")), 3).err().unwrap();
    assert!(error.to_string().contains("`dog` and `emu` at position 1"), "{error}");
}

#[test]
fn an_existing_name_is_opened_even_with_braces_and_wildcards() {
    let root = folder(&["a,b{1}/x.png", "a[1]/y.png"]);
    check(&at(&root, "a,b{1}"), &[], &[(0, None)]);
    check(&at(&root, "a[1]"), &[], &[(1, None)]);
}

#[track_caller]
fn check_refused(spec: &str, message: &str, hint: &str) {
    let error = open(spec, 3).err().expect("the specification is wrong");
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.is_users_fault(), "{error}");
    let actual = error.hint();
    assert!(actual.as_ref().is_some_and(|actual| actual.contains(hint)), "{actual:?}");
}

#[test]
fn errors_for_missing_and_empty_paths_have_a_hint() {
    let root = folder(&["train/cat/a.png", "val/cat/a.png"]);
    write(&root.path().join("empty/notes.txt"), b"");
    write(&root.path().join("digits/a-images-idx3-ubyte"), &idx(&[1, 1, 1], &[0]));
    let here = root.path().display().to_string();
    check_refused(&at(&root, "trian"), &at(&root, "trian`"), &at(&root, "train`?"));
    check_refused(&at(&root, "Vall/cat"), "there is no `", &at(&root, "val`?"));
    check_refused(&at(&root, "nothing/like/it"), "there is no `", &format!("is `{here}`"));
    check_refused("no-such-folder-at-all", "there is no `no-such", "is `.`");
    check_refused(&at(&root, "empty"), "looked for `.jpg`, `.jpeg`, `.jpe`, `.jfif`, `.png`, `.webp`", "any depth");
    check_refused(&at(&root, "digits"), "no image in", "a-images-idx3-ubyte");
    check_refused(&at(&root, "*.tar"), &format!("matches `{here}/*.tar`"), "quote");
    check_refused(&at(&root, "empty/notes.txt"), "neither an image", "`.tar`");
    check_refused("", "an item is empty", "commas");
}

#[test]
fn errors_of_broken_shards_name_file_and_offset() {
    let root = tempdir().unwrap();
    let path = root.path().join("x.tar");
    // block 0 is a header, 1 the image, 2 a header, 3 the label, 4 and 5 the end marker
    let whole = tar(&[("0.png", &gray(0)), ("0.cls", b"0")]);
    assert_eq!(whole.len(), 6 * 512);
    let spec = path.display().to_string();
    for (length, offset) in [(100, 0), (512, 0), (800, 0), (1024, 1024), (1300, 1024), (1537, 1024), (2048, 2048)] {
        write(&path, &whole[..length]);
        let end = format!("the file ends at byte {length}, before the end of the entry at byte {offset}");
        check_refused(&spec, &format!("`{spec}` is cut short: {end}"), "again");
    }
    let mut wrong = whole.clone();
    wrong[1024 + 20] ^= 1;
    write(&path, &wrong);
    check_refused(&spec, "not a valid tar file at byte 1024", "again");
    write(&path, &tar(&[("0.txt", b"")]));
    check_refused(&spec, "holds no image", "`.npy`");
    write(&path, &[]);
    check_refused(&spec, "cut short", "again");
}

#[test]
fn errors_of_wrong_labels_name_the_member() {
    let root = tempdir().unwrap();
    let path = root.path().join("x.tar");
    let spec = path.display().to_string();
    write(&path, &tar(&[("0.png", &gray(0)), ("0.cls", b"cat")]));
    check_refused(&spec, &format!("label `cat` of `{spec}:0.cls`"), "class numbers from 0 up");
    write(&path, &tar(&[("0.png", &gray(0)), ("0.cls", b"-1")]));
    check_refused(&spec, "label `-1`", "class numbers from 0 up");
    write(&path, &tar(&[("0.png", &gray(0)), ("0.cls", b"2")]));
    write(&root.path().join("classes.json"), br#"["a", "b"]"#);
    check_refused(&spec, &format!("label 2 of `{spec}:0.png` is not below the 2 classes"), "every class");
    write(&root.path().join("classes.json"), br#"{"a": 1}"#);
    check_refused(&spec, "classes.json` is not a JSON list", "[\"cat\"");
}

#[test]
fn errors_of_broken_idx_files_say_what_is_wrong() {
    let images = idx(&[2, 1, 2], &[1, 2, 3, 4]);
    let check = |images: &[u8], labels: Option<&[u8]>, expected: &str| {
        let error = idx_from_bytes(images, labels, 3).err().expect("the file is wrong");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&images[..images.len() - 1], None, "holds 3 bytes of data where its header says 4");
    check(&[&images[..], &[0]].concat(), None, "holds 5 bytes of data where its header says 4");
    check(&images[..6], None, "not an IDX file of rank 3");
    check(&idx(&[2], &[1, 2]), None, "not an IDX file of rank 3");
    check(&images, Some(&images), "not an IDX file of rank 1");
    check(&images, Some(&idx(&[3], &[1, 2, 3])), "holds 3 labels for 2 images");
    check(&idx(&[0, 1, 1], &[]), None, "holds no image");
    check(&idx(&[1, 0, 1], &[]), None, "has 0 by 1 pixels");
    let error = idx_from_bytes(&images, None, 5).err().unwrap();
    assert!(matches!(error, Error::Channels { actual: 1, wanted: 5, .. }), "{error}");
}

#[test]
fn a_source_or_a_class_without_a_readable_image_is_refused() {
    let root = folder(&["cat/a.png", "dog/b.png"]);
    let broken = b"\x89PNG\r\n\x1a\n";
    let check = |spec: &str| check_classes_readable(&*open(&at(&root, spec), 3).unwrap());
    write(&root.path().join("dog/a.png"), broken);
    check("").unwrap();
    write(&root.path().join("dog/b.png"), broken);
    let error = check("").unwrap_err();
    assert!(matches!(&error, Error::ClassUnreadable { class, tried: 2, .. } if class == "dog"), "{error}");
    check_readable(&*open(&at(&root, ""), 3).unwrap()).unwrap();
    let error = check("dog").unwrap_err();
    assert!(matches!(error, Error::NoneReadable { tried: 2, .. }), "{error}");
    assert!(error.is_users_fault() && error.hint().is_some());
}

#[test]
fn a_scan_counts_classes_sizes_and_broken_files() {
    let root = folder(&["cat/a.png", "cat/b.png", "dog/c.png"]);
    write(&root.path().join("dog/broken.png"), b"\x89PNG\r\n\x1a\n");
    write(&root.path().join("dog/large.png"), &colorful(1));
    let mut progress = Vec::new();
    let source = open(&at(&root, ""), 3).unwrap();
    let scan = scan(&source, 2, &mut |done| progress.push(done)).unwrap();
    assert_eq!(progress, [1, 2, 3, 4, 5]);
    assert_eq!((scan.count, scan.unlabeled), (5, 0));
    assert_eq!(scan.classes, [("cat".to_owned(), 2), ("dog".to_owned(), 3)]);
    assert_eq!(scan.unreadable.len(), 1);
    assert_eq!((scan.unreadable[0].index, &scan.unreadable[0].name), (2, &at(&root, "dog/broken.png")));
    let sizes = scan.sizes.unwrap();
    assert_eq!((sizes.min_height, sizes.max_height, sizes.min_width, sizes.max_width), (5, 19, 6, 21));
    assert_eq!(sizes.channels, 3);
}
