//! Shards: which members of tar files are samples, and what is said of the others.

use std::fs;
use std::sync::Arc;

use simmim_data::{
    Augmentation, Error, Loader, LoaderConfig, Normalization, PassedOverReason, Source, Transform, open, scan,
};
use tempfile::{TempDir, tempdir};

use crate::files::{gray, tar, write};

fn shard(bytes: &[u8]) -> (TempDir, String) {
    let root = tempdir().unwrap();
    let path = root.path().join("x.tar");
    write(&path, bytes);
    (root, path.display().to_string())
}

/// Opens a shard of empty members and images with these names.
fn of_names(names: &[&str]) -> (TempDir, Arc<dyn Source>) {
    let image = gray(7);
    let content = |name: &str| if name.ends_with(".cls") { b"1".as_slice() } else { image.as_slice() };
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, content(name))).collect();
    let (root, path) = shard(&tar(&members));
    (root, open(&path, 3).unwrap())
}

/// Checks which members are samples and how many others there are, by reason and with the last name of each.
#[track_caller]
fn check(names: &[&str], samples: &[&str], passed_over: &[(PassedOverReason, u64, &str)]) {
    let (root, source) = of_names(names);
    let below = |name: &str| name.strip_prefix(&format!("{}/x.tar:", root.path().display())).unwrap().to_owned();
    assert_eq!((0..source.len()).map(|index| below(&source.name(index))).collect::<Vec<_>>(), samples);
    let groups = source.passed_over().groups();
    let actual: Vec<_> =
        groups.iter().map(|group| (group.reason.clone(), group.count, below(group.first.last().unwrap()))).collect();
    let expected: Vec<_> =
        passed_over.iter().map(|(reason, count, last)| (reason.clone(), *count, (*last).to_owned())).collect();
    assert_eq!(actual, expected);
}

#[test]
fn samples_are_ordered_by_path_as_in_a_folder() {
    let names = ["b/1.png", "a-1/x.png", "a/2.png", "a.png", "a/10.png", "b/0.png"];
    check(&names, &["a/10.png", "a/2.png", "a-1/x.png", "a.png", "b/0.png", "b/1.png"], &[]);
}

#[test]
fn members_that_are_no_samples_are_counted_by_reason() {
    let names = ["0.png", "0.jpg", "0.left.png", "1.png", "1.png", "2.cls", "2.json", "3.b.json", "4", "._0.png"];
    check(
        &names,
        &["0.png", "1.png"],
        &[
            (PassedOverReason::SecondPicture, 2, "0.left.png"),
            (PassedOverReason::SameName, 1, "1.png"),
            (PassedOverReason::Extension("json".into()), 2, "3.b.json"),
            (PassedOverReason::NoExtension, 1, "4"),
            (PassedOverReason::Hidden, 1, "._0.png"),
            (PassedOverReason::NoPicture, 1, "2.cls"),
        ],
    );
    check(&["0.cls", "0.png", "0.cls"], &["0.png"], &[(PassedOverReason::SameName, 1, "0.cls")]);
}

#[test]
fn eight_members_of_one_name_are_one_sample_and_seven_that_are_told() {
    check(&["image.jpg"; 8], &["image.jpg"], &[(PassedOverReason::SameName, 7, "image.jpg")]);
}

#[test]
fn a_dot_before_the_extension_is_told_with_what_to_do() {
    let names: Vec<String> =
        (0..16).map(|i| if i % 2 == 0 { format!("photo_{i}.jpg") } else { format!("photo_{i}.5.jpg") }).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_root, source) = of_names(&names);
    assert_eq!(source.len(), 8);
    let [group] = source.passed_over().groups() else { panic!("one reason") };
    let advice = group.advice(1);
    assert!(advice.contains("x.tar:photo_1.5.jpg` and 7 more are pictures with several dots"), "{advice}");
    assert!(advice.contains("ends at the first dot") && advice.contains("write another character"), "{advice}");
}

#[test]
fn a_shard_of_several_views_alone_is_refused_with_the_reason() {
    let (_root, path) = shard(&tar(&[("0.left.jpg", &gray(0)), ("0.right.jpg", &gray(1)), ("1.left.jpg", &gray(2))]));
    let error = open(&path, 3).err().unwrap();
    assert!(matches!(error, Error::NoSamples { .. }), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("x.tar:0.right.jpg`") && hint.contains("several dots in their names; the name of"), "{hint}");
}

#[test]
fn links_and_special_members_are_told() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    for (name, kind) in [
        ("a.png", ::tar::EntryType::Regular),
        ("b.png", ::tar::EntryType::Symlink),
        ("c.png", ::tar::EntryType::Link),
        ("d.png", ::tar::EntryType::Fifo),
        ("e/", ::tar::EntryType::Directory),
    ] {
        let content = if kind == ::tar::EntryType::Regular { gray(1) } else { Vec::new() };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_link_name("a.png").unwrap();
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    let (_root, path) = shard(&builder.into_inner().unwrap());
    let source = open(&path, 3).unwrap();
    let told: Vec<String> = source.passed_over().groups().iter().map(ToString::to_string).collect();
    let expected =
        [format!("`{path}:b.png`, `{path}:c.png` are links in archives"), format!("`{path}:d.png` is a pipe")];
    assert_eq!((source.len(), told.as_slice()), (1, expected.as_slice()));
}

#[test]
fn what_lies_behind_the_end_mark_is_told_and_not_read() {
    let joined = [tar(&[("a.png", &gray(0))]), tar(&[("b.png", &gray(1))])].concat();
    let (_root, path) = shard(&joined);
    let source = open(&path, 3).unwrap();
    assert_eq!((source.len(), source.passed_over().count()), (1, 1));
    let advice = source.passed_over().groups()[0].advice(1);
    let end = joined.len() / 2 - 512;
    let expected = format!("x.tar from byte {end} on` lies behind the end mark of its archive; `tar` does not list it");
    assert!(advice.contains(&expected), "{advice}");
    // padding of zeros is no content
    let (_root, path) = shard(&[&joined[..joined.len() / 2], &[0; 10_240]].concat());
    assert!(open(&path, 3).unwrap().passed_over().is_empty());
}

#[test]
fn garbage_in_a_header_is_said_in_printable_letters() {
    let whole = tar(&[("0.png", &gray(0)), ("1.png", &gray(1))]);
    for (field, what) in
        [(148, "the checksum of its header is not a number"), (3, "the checksum of its header is wrong")]
    {
        let mut garbage = whole.clone();
        garbage[1024 + field..1024 + field + 4].copy_from_slice(&[0x9b, 0x1b, 0xff, 0x07]);
        let (_root, path) = shard(&garbage);
        let message = open(&path, 3).err().unwrap().to_string();
        assert!(message.ends_with(&format!("is not a valid tar file at byte 1024: {what}")), "{message}");
        assert!(!message.contains(char::is_control));
    }
}

#[test]
fn a_member_that_claims_more_than_the_file_holds_takes_no_memory() {
    for size in [1 << 20, 1 << 40, u64::MAX >> 1] {
        let mut header = ::tar::Header::new_gnu();
        header.set_path("0.png").unwrap();
        header.set_size(size);
        header.set_cksum();
        let (_root, path) = shard(&[header.as_bytes().as_slice(), &gray(0), &[0; 1024]].concat());
        let error = open(&path, 3).err().unwrap();
        assert!(matches!(error, Error::TruncatedTar { offset: 0, .. }), "{size}: {error}");
    }
}

/// Takes batches of four from a source whose images have 5 by 6 pixels.
fn loader(source: Arc<dyn Source>) -> Loader {
    let transform =
        Transform { height: 5, width: 6, augmentation: Augmentation::Center, normalization: Normalization::none(3) };
    let config = LoaderConfig { batch_size: 4, rank: 0, world: 1, seed: 0, workers: 0, shuffle: true, prefetch: 1 };
    Loader::new(source, transform, config, 0).unwrap()
}

#[test]
fn a_shard_that_changes_or_disappears_while_it_is_read_is_unreadable() {
    let root = tempdir().unwrap();
    let members = |first: u8| tar(&[("0.png", &gray(first)), ("1.png", &gray(first + 1))]);
    let at = |name: &str| root.path().join(name);
    write(&at("a.tar"), &members(0));
    write(&at("b.tar"), &members(2));
    let source = open(&at("*").display().to_string(), 3).unwrap();
    let mut batches = loader(Arc::clone(&source));
    assert!(batches.next().unwrap().unwrap().skipped.is_empty());
    // cut short within the last image
    let bytes = fs::read(at("b.tar")).unwrap();
    write(&at("b.tar"), &bytes[..1600]);
    let unreadable = scan(&source, 0, &mut |_| {}).unwrap().unreadable;
    assert!(unreadable.len() == 2 && unreadable[0].reason.contains("bytes when it was opened"), "{unreadable:?}");
    let batch = batches.next().unwrap().unwrap();
    assert_eq!((batch.skipped.len(), batch.samples.iter().filter(|index| **index > 1).count()), (2, 0));
    fs::remove_file(at("b.tar")).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().skipped.len(), 2);
    // nothing is left to take their place
    fs::remove_file(at("a.tar")).unwrap();
    assert!(matches!(batches.next(), Some(Err(Error::TooManyUnreadable { .. }))));
}

#[test]
fn names_that_lead_out_of_the_archive_are_names_like_others() {
    // only the first 100 bytes of a header are the name, and the sum of all its bytes is in it too
    let mut bytes = tar(&[("xx/1.png", &gray(1)), ("a/xx/2.png", &gray(2)), ("3.png", &gray(3))]);
    for at in (0..bytes.len()).step_by(512) {
        let header = &mut bytes[at..at + 512];
        let Some(place) = header[..100].windows(2).position(|part| part == b"xx") else { continue };
        header[place..place + 2].copy_from_slice(b"..");
        header[148..156].fill(b' ');
        let sum = format!("{:06o}\0 ", header.iter().map(|byte| u32::from(*byte)).sum::<u32>());
        header[148..156].copy_from_slice(sum.as_bytes());
    }
    let (_root, path) = shard(&bytes);
    let source = open(&path, 1).unwrap();
    assert_eq!(source.len(), 3);
    assert!(source.passed_over().is_empty(), "{:?}", source.passed_over());
    assert!((0..3).all(|index| source.get(index).is_ok()));
}
