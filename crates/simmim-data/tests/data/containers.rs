//! Lists, folders of Hugging Face's layout and zip archives: what they open, and what they say of the rest.

use std::path::Path;

use ::zip::CompressionMethod::{Deflated, Stored};
use simmim_data::{Error, Source, open, scan};
use tempfile::{TempDir, tempdir};

use crate::files::{gray, gzip, tar, write, zip};
use crate::sources::value;

/// A folder with gray images 0, 1, 2 and a file.
fn folder(name: &str, content: &str) -> (TempDir, String) {
    let root = tempdir().unwrap();
    for number in 0..3 {
        write(&root.path().join(format!("{number}.png")), &gray(number));
    }
    write(&root.path().join(name), content.as_bytes());
    let path = root.path().join(name).display().to_string();
    (root, path)
}

/// Gray levels and labels of a source.
fn samples(source: &dyn Source) -> Vec<(u8, Option<usize>)> {
    (0..source.len()).map(|index| (value(source, index), source.label(index))).collect()
}

#[track_caller]
fn check_list(name: &str, content: &str, classes: &[&str], expected: &[(u8, Option<usize>)]) {
    let (_root, path) = folder(name, content);
    let source = open(&path, 3).unwrap();
    assert_eq!(
        (source.classes(), samples(&*source).as_slice()),
        (&classes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>()[..], expected),
        "{content}"
    );
}

#[test]
fn lists_are_read_with_and_without_labels() {
    let unlabeled = [(0, None), (1, None), (2, None)];
    check_list("l.csv", "path\n2.png\n0.png\n1.png\n", &[], &unlabeled);
    check_list("l.CSV", "\u{feff}id, Image \r\n7, 0.png\r\n8,\"1.png\"\r\n9,./2.png\r\n", &[], &unlabeled);
    check_list("l.tsv", "file_name\ttext\n0.png\ta, b\n1.png\tc\n2.png\td\n", &[], &unlabeled);
    check_list(
        "l.jsonl",
        "{\"filename\": \"1.png\"}\n\n{\"filename\": \"0.png\"}\n{\"filename\": \"2.png\"}",
        &[],
        &unlabeled,
    );
    let named = [(0, Some(1)), (1, Some(0)), (2, None)];
    check_list("l.csv", "label,path\nb,0.png\na,1.png\n,2.png\n", &["a", "b"], &named);
    check_list(
        "l.jsonl",
        "{\"path\": \"0.png\", \"class\": \"b\"}\n{\"path\": \"1.png\", \"class\": \"a\"}\n{\"path\": \"2.png\", \"class\": null}\n",
        &["a", "b"],
        &named,
    );
    let numbered = [(0, Some(2)), (1, Some(0)), (2, Some(1))];
    check_list("l.csv", "path,target\n0.png,2\n1.png,0\n2.png,1\n", &["0", "1", "2"], &numbered);
    // as tables with gaps have class numbers; the last is without a label
    for gap in ["-1", "-1.0", "nan", "NaN", ""] {
        let numbers = format!("path,label\n0.png,2.0\n1.png,0.0\n2.png,{gap}\n");
        check_list("l.csv", &numbers, &["0", "1", "2"], &[(0, Some(2)), (1, Some(0)), (2, None)]);
    }
    let mixed = "{\"path\": \"0.png\", \"label\": 1}\n{\"path\": \"1.png\", \"label\": 1.0}\n{\"path\": \"2.png\", \"label\": -1}\n";
    // beside a class 0, −1 is no label; else it is the name of a class
    check_list("l.jsonl", mixed, &["-1", "1"], &[(0, Some(1)), (1, Some(1)), (2, Some(0))]);
    check_list("l.jsonl", &mixed.replace("1.0", "0.0"), &["0", "1"], &[(0, Some(1)), (1, Some(0)), (2, None)]);
    let named = [(0, Some(1)), (1, Some(0)), (2, None)];
    check_list("l.csv", "path,label\n0.png,2.0\n1.png,1b\n2.png,NaN\n", &["1b", "2.0"], &named);
    // text in quotes may have several lines, quotes and separators
    let quoted = "path,text,label\n0.png,\"a\nb, \"\"c\"\"\",1\n1.png,5\" tall,0\n2.png,\"c\" d,0\n";
    check_list("l.csv", quoted, &["0", "1"], &[(0, Some(1)), (1, Some(0)), (2, Some(0))]);
    // the same image may be named twice
    check_list("l.csv", "path\n1.png\n0.png\n1.png\n", &[], &[(0, None), (1, None), (1, None)]);
}

#[test]
fn classes_of_a_list_may_be_named_beside_it() {
    let (root, path) = folder("l.csv", "path,label\n0.png,dog\n1.png,ant\n");
    write(&root.path().join("classes.json"), br#"["dog", "emu", "ant"]"#);
    let source = open(&path, 3).unwrap();
    assert_eq!(source.classes(), ["dog", "emu", "ant"]);
    assert_eq!(samples(&*source), [(0, Some(0)), (1, Some(2))]);
    write(&root.path().join("classes.json"), br#"["dog"]"#);
    let error = open(&path, 3).err().unwrap();
    assert_eq!(error.to_string(), format!("the label `ant` of `{path}:1.png` is not in `classes.json`"));
}

#[test]
fn rows_that_name_no_image_are_told_and_missing_images_are_unreadable() {
    let (_root, path) = folder("l.csv", "path,label\n0.png,a\n,a\nnowhere.png,a\n");
    let source = open(&path, 3).unwrap();
    let told = source.passed_over().groups()[0].to_string();
    assert_eq!((source.len(), told), (2, format!("`{path}, line 3` names no image")));
    let unreadable = scan(&source, 0, &mut |_| {}).unwrap().unreadable;
    assert!(unreadable.len() == 1 && unreadable[0].name.ends_with("nowhere.png"), "{unreadable:?}");
}

#[track_caller]
fn check_refused(name: &str, content: &str, expected: &str) {
    let (_root, path) = folder(name, content);
    let error = open(&path, 3).err().expect("the list is wrong");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.is_users_fault() && error.hint().is_some(), "{error}");
}

#[test]
fn lists_that_are_wrong_say_where() {
    check_refused("l.csv", "a,b\n1,2\n", "l.csv` has no column of paths; it has `a`, `b`");
    check_refused("l.jsonl", "{\"a\": 1}\n", "l.jsonl` has no column of paths; it has `a`");
    check_refused(
        "l.csv",
        "path,label\n0.png,a\n1.png\n",
        "l.csv`, line 3: it has 1 fields where the first line has 2",
    );
    check_refused("l.jsonl", "{\"path\": \"0.png\"}\n{\"path\": \n", "l.jsonl`, line 2: it is not a JSON object");
    for labels in ["1, 7", "1|7", "0;1", "3 4 5"] {
        let list = format!("path,label\n0.png,1\n1.png,\"{labels}\"\n");
        check_refused("l.csv", &list, &format!("1.png` is `{labels}`, several class numbers"));
    }
    check_refused("l.csv", "path,labels\n0.png,\"1|2, 3\"\n", "0.png` is `2, 3`, several class numbers");
    let names = "{\"path\": \"0.png\", \"labels\": [\"a\", {\"b\": 1}]}\n";
    check_refused("l.jsonl", names, "line 1: the label `{\"b\":1}` is neither text nor a number");
    check_refused("l.jsonl", "{\"path\": 7}\n", "line 1: the path `7` is not text");
    check_refused(
        "l.jsonl",
        "{\"path\": \"0.png\", \"label\": [1]}\n",
        "line 1: the label `[1]` is neither text nor a number",
    );
    // a stray quote would take the rows up to the next one for its text
    let stray = "path,text\n0.png,a\n1.png,\"tall\n2.png,b\n";
    check_refused("l.csv", stray, "l.csv`, line 3: a quote begins a cell that does not end");
    check_refused(
        "l.csv",
        &(stray.to_owned() + "3.png,\"old\n"),
        "line 3: a cell of several lines goes on after the quote",
    );
    check_refused("l.tsv", &stray.replace(',', "\t"), "l.tsv`, line 3: a quote begins a cell");
    check_refused("l.csv", "path,label\n0.png,a\n1.png,\"b\n2.png,c\"\n", "line 3: a path or label has several lines");
    check_refused("l.csv", "\"path\n0.png\n", "line 1: a quote begins a cell");
    check_refused("l.csv", "path\n", "holds no image");
    check_refused("l.csv", "", "no column of paths");
    check_refused("l.csv", "path,label\n0.png,9999999\n", "not below 1048576");
}

#[test]
fn rows_that_disagree_make_a_list_unlabeled_and_say_why() {
    let unlabeled = |content: &str, expected: &str| {
        let (_root, path) = folder("l.csv", content);
        let source = open(&path, 3).unwrap();
        assert!(source.classes().is_empty() && source.len() > 2, "{content}");
        let why = source.why_unlabeled().unwrap().to_string();
        assert!(why.contains(expected), "{why}");
    };
    // one row for each finding
    let findings = "path,label\n0.png,a\n1.png,b\n./0.png,c\n1.png,b\n";
    unlabeled(findings, "l.csv`, line 4: `./0.png` has other labels in line 2");
    unlabeled("path,labels\n0.png,a|b\n0.png,b|a|b\n0.png,\n", "line 4: `0.png` has other labels in line 3");
}

/// Names of the classes, and the classes of each image.
#[track_caller]
fn check_labels(name: &str, content: &str, classes: &[&str], labels: [&[usize]; 4]) {
    let (_root, path) = folder(name, content);
    let source = open(&path, 3).unwrap();
    assert_eq!(source.classes(), classes);
    for (index, labels) in labels.into_iter().enumerate() {
        assert_eq!(source.labels(index), labels, "image {index} of {name}");
        assert_eq!(source.label(index), labels.first().copied());
        assert!(source.is_labeled(index), "none is a number of labels too");
    }
}

#[test]
fn an_image_of_a_list_has_any_number_of_labels() {
    let table = |labels: [&str; 4]| {
        (0..4).zip(labels).fold("path,labels\n".to_owned(), |table, (i, labels)| table + &format!("{i}.png,{labels}\n"))
    };
    let classes = ["edema", "effusion", "no finding"];
    let expected: [&[usize]; 4] = [&[1, 0], &[2], &[0], &[]];
    check_labels("l.csv", &table(["effusion | edema|edema", "no finding", "|edema|", ""]), &classes, expected);
    let numbers: [&[usize]; 4] = [&[2, 0], &[1], &[], &[0]];
    check_labels("l.csv", &table(["2|0", "1", "", "0|0"]), &["0", "1", "2"], numbers);
    check_labels(
        "l.jsonl",
        "{\"path\": \"0.png\", \"labels\": [\"effusion\", \"edema\", null]}\n\
         {\"path\": \"1.png\", \"labels\": \"no finding\"}\n\
         {\"path\": \"2.png\", \"labels\": [\"edema\"]}\n{\"path\": \"3.png\", \"labels\": []}\n",
        &classes,
        expected,
    );
    // a column for one label has the say, and its text is one name
    let one: [&[usize]; 4] = [&[1], &[0], &[0], &[0]];
    let both = "path,labels,label\n0.png,x|y,b|c\n1.png,x,a\n2.png,,a\n3.png,x,a\n";
    check_labels("l.csv", both, &["a", "b|c"], one);
}

#[test]
fn a_folder_with_metadata_is_what_the_metadata_names() {
    for (name, content) in [
        ("metadata.csv", "file_name,label\n2.png,b\n0.png,a\n"),
        (
            "metadata.jsonl",
            "{\"file_name\": \"2.png\", \"label\": \"b\"}\n{\"file_name\": \"0.png\", \"label\": \"a\"}\n",
        ),
    ] {
        let (root, _) = folder(name, content);
        let source = open(&root.path().display().to_string(), 3).unwrap();
        assert_eq!(source.classes(), ["a", "b"]);
        assert_eq!(samples(&*source), [(0, Some(0)), (2, Some(1))]);
        let told = source.passed_over().groups()[0].to_string();
        assert_eq!(told, format!("`{}` is not in the list of the folder", root.path().join("1.png").display()));
    }
    // other collections beside it are not read either, and that is said
    let (root, _) = folder("metadata.csv", "file_name\n0.png\n1.png\n2.png\n");
    write(&root.path().join("more.tar"), &tar(&[("a.png", &gray(1))]));
    write(&root.path().join("more.csv"), b"path\n0.png\n");
    let source = open(&root.path().display().to_string(), 3).unwrap();
    let groups: Vec<String> = source.passed_over().groups().iter().map(ToString::to_string).collect();
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert!(groups.iter().any(|group| group.contains("more.tar` is read only if it is named itself")), "{groups:?}");
    let advice: Vec<String> = source.passed_over().groups().iter().map(|group| group.advice(3)).collect();
    assert!(
        advice.iter().any(|advice| advice.contains("more.csv` has") && advice.ends_with("if it is named itself")),
        "{advice:?}"
    );
    // a file of that name that describes something else is a file like any other
    let (root, path) = folder("metadata.csv", "patient,age\n1,70\n");
    let source = open(&root.path().display().to_string(), 3).unwrap();
    let told = source.passed_over().groups()[0].to_string();
    assert_eq!((source.len(), told), (3, format!("`{path}` has the extension `.csv`, which is not read")));
}

#[test]
fn a_folder_of_splits_says_which_to_name() {
    let root = tempdir().unwrap();
    for split in ["train", "validation"] {
        write(&root.path().join(split).join("0.png"), &gray(0));
        write(&root.path().join(split).join("metadata.csv"), b"file_name,label\n0.png,a\n");
    }
    write(&root.path().join("README.md"), b"");
    let at = |path: &str| root.path().join(path).display().to_string();
    let error = open(&root.path().display().to_string(), 3).err().unwrap();
    let splits = format!("holds several splits of a data set: `{}`, `{}`", at("train"), at("validation"));
    assert!(error.to_string().ends_with(&splits), "{error}");
    assert!(error.is_users_fault());
    let hint = error.hint().unwrap();
    assert!(hint.contains(&format!("as in `{},{}`", at("train"), at("validation"))), "{hint}");
    assert_eq!(open(&at("train"), 3).unwrap().classes(), ["a"]);
    assert_eq!(open(&format!("{},{}", at("train"), at("validation")), 3).unwrap().len(), 2);
}

fn zipped(members: &[(&str, &[u8])]) -> (TempDir, String) {
    let root = tempdir().unwrap();
    let path = root.path().join("x.zip");
    write(&path, &zip(members, Deflated));
    (root, path.display().to_string())
}

#[test]
fn zip_archives_have_classes_like_folders() {
    let (a, b) = (gray(0), gray(1));
    let (_root, path) =
        zipped(&[("dog/b.png", &b), ("cat/", b""), ("emu/", b""), ("cat/a.PNG", &a), ("cat/x.txt", b"")]);
    let source = open(&path, 3).unwrap();
    assert_eq!(source.classes(), ["cat", "dog", "emu"]);
    assert_eq!(samples(&*source), [(0, Some(0)), (1, Some(1))]);
    assert_eq!(source.name(0), format!("{path}:cat/a.PNG"));
    assert_eq!(
        source.passed_over().groups()[0].to_string(),
        format!("`{path}:cat/x.txt` has the extension `.txt`, which is not read")
    );
    let (_root, path) = zipped(&[("dog/b.png", &b), ("top.png", &a)]);
    let why = open(&path, 3).unwrap().why_unlabeled().unwrap().to_string();
    assert!(why.contains("x.zip:top.png` does not lie directly in a class folder"), "{why}");
}

#[test]
fn names_that_lead_out_of_a_zip_archive_touch_nothing() {
    let image = gray(9);
    let names = ["../../escaped.png", "/tmp/absolute.png", "C:\\windows.png", "a/../b.png"];
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, image.as_slice())).collect();
    let (root, path) = zipped(&members);
    let before = std::fs::read_dir(root.path()).unwrap().count();
    let source = open(&path, 3).unwrap();
    assert_eq!(source.len(), 4);
    assert!((0..4).all(|index| value(&*source, index) == 9));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), before);
    assert!(!Path::new("/tmp/absolute.png").exists() && !root.path().join("../../escaped.png").exists());
}

/// Overwrites a number in the headers of the first member of a zip file.
fn with_field(bytes: &[u8], local: usize, central: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let directory = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    bytes[local..local + value.len()].copy_from_slice(value);
    bytes[directory + central..directory + central + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn zip_members_that_claim_other_sizes_are_unreadable() {
    let root = tempdir().unwrap();
    let path = root.path().join("x.zip");
    let whole = zip(&[("a.png", &gray(0))], Deflated);
    // APPNOTE 4.3.7 and 4.3.12: offsets of the uncompressed and the compressed size
    for (local, central, claim) in
        [(22, 24, 50_u32), (22, 24, 3_000), (22, 24, 1 << 31), (18, 20, 1 << 30), (18, 20, 10)]
    {
        write(&path, &with_field(&whole, local, central, &claim.to_le_bytes()));
        match open(&path.display().to_string(), 3) {
            Ok(source) => {
                let error = source.get(0).expect_err("the sizes are wrong");
                assert!(
                    matches!(error, Error::BadArchive { .. } | Error::FileTooLarge { .. }),
                    "{local} {claim}: {error}"
                );
                assert!(error.is_users_fault());
            }
            Err(error) => assert!(matches!(error, Error::BadArchive { .. }), "{local} {claim}: {error}"),
        }
    }
}

#[test]
fn encrypted_and_otherwise_compressed_members_are_named() {
    let root = tempdir().unwrap();
    let path = root.path().join("x.zip");
    let whole = zip(&[("a.png", &gray(0))], Stored);
    // APPNOTE 4.4.4: bit 0 of the flags; 4.4.5: method 12 is bzip2
    for (local, central, value, what) in
        [(6, 8, 1_u8, "is encrypted"), (8, 10, 12, "is compressed in a way that is not read")]
    {
        write(&path, &with_field(&whole, local, central, &[value]));
        let error = open(&path.display().to_string(), 3).err().unwrap();
        assert!(matches!(error, Error::NoSamples { .. }), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(&format!("x.zip:a.png` {what}; pack")), "{hint}");
    }
}

#[test]
fn a_large_zip_archive_has_the_fields_of_zip64() {
    let image = gray(1);
    let names: Vec<String> = (0..66_000).map(|number| format!("{number}.txt")).collect();
    let mut members: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    members.push(("last.png", &image));
    let root = tempdir().unwrap();
    write(&root.path().join("x.zip"), &zip(&members, Stored));
    let source = open(&root.path().join("x.zip").display().to_string(), 3).unwrap();
    assert_eq!((samples(&*source), source.passed_over().count()), (vec![(1, None)], 66_000));
}

#[test]
fn a_folder_of_archives_is_opened_as_one() {
    let root = tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    write(&at("a.zip"), &zip(&[("0.png", &gray(0))], Stored));
    write(&at("b.zip"), &zip(&[("0.png", &gray(1))], Stored));
    write(&at("c.tar"), &tar(&[("0.png", &gray(2))]));
    let source = open(&root.path().display().to_string(), 3).unwrap();
    assert_eq!(samples(&*source), [(0, None), (1, None)]);
    let told = source.passed_over().groups()[0].to_string();
    assert_eq!(told, format!("`{}` is read only if it is named itself", at("c.tar").display()));
    std::fs::remove_file(at("a.zip")).unwrap();
    std::fs::remove_file(at("b.zip")).unwrap();
    write(&at("d.tar.gz"), &gzip(&tar(&[("0.png", &gray(3))])));
    let source = open(&root.path().display().to_string(), 3).unwrap();
    assert_eq!(samples(&*source), [(2, None), (3, None)]);
}

#[test]
fn a_compressed_shard_that_is_cut_short_or_no_gzip_is_refused() {
    let root = tempdir().unwrap();
    let path = root.path().join("x.tar.gz");
    let whole = gzip(&tar(&[("0.png", &gray(0)), ("1.png", &gray(1))]));
    for (bytes, what) in [
        (whole[..whole.len() / 2].to_vec(), "ends early"),
        (tar(&[("0.png", &gray(0))]), "does not begin as one"),
        ([&whole[..whole.len() - 8], &[0; 8]].concat(), "does not have the content that its checksum says"),
    ] {
        write(&path, &bytes);
        let error = open(&path.display().to_string(), 3).err().unwrap();
        assert!(error.to_string().contains(what) && error.is_users_fault(), "{error}");
    }
    write(&path, &gzip(&tar(&[("0.png", &gray(0))])[..700]));
    let error = open(&path.display().to_string(), 3).err().unwrap();
    assert!(matches!(error, Error::TruncatedTar { offset: 0, length: 700, .. }), "{error}");
}
