//! The same collection in every form gives the same batches.

use std::path::Path;
use std::sync::Arc;

use simmim_data::{
    Augmentation, Batch, Loader, LoaderConfig, Normalization, RandomResizedCrop, Source, Transform, open,
};
use tempfile::tempdir;

use crate::files::{colorful, gzip, tar, write, zip};

/// Fourteen images of three classes, in an order that is not that of their paths. The paths have another order as text than
/// part by part.
const IMAGES: &[&str] = &[
    "dog/10.png",
    "cat-big/0.png",
    "cat/1.png",
    "cat/10.png",
    "dog/a b.png",
    "cat/2.png",
    "cat-big/é.png",
    "dog/9.png",
    "cat/Z.png",
    "dog/x-1.png",
    "cat-big/1.png",
    "cat/a.png",
    "dog/0.png",
    "dog/x.png",
];

/// In the order of folders.
const CLASSES: &[&str] = &["cat", "cat-big", "dog"];

fn class_of(path: &str) -> &str {
    path.split('/').next().unwrap()
}

fn number_of(path: &str) -> usize {
    CLASSES.iter().position(|class| *class == class_of(path)).unwrap()
}

fn content(place: usize) -> Vec<u8> {
    colorful(place as u8 * 17)
}

/// Two epochs of batches with augmentation, and what the source says of itself.
fn batches(source: Arc<dyn Source>) -> (Vec<String>, Vec<Batch>) {
    let transform = Transform {
        height: 8,
        width: 8,
        augmentation: Augmentation::RandomResizedCrop(RandomResizedCrop::default()),
        normalization: Normalization::imagenet(),
    };
    let config = LoaderConfig { batch_size: 4, rank: 0, world: 1, seed: 7, workers: 2, shuffle: true, prefetch: 2 };
    let classes = source.classes().to_vec();
    let loader = Loader::new(source, transform, config, 0).unwrap();
    (classes, loader.take(6).map(Result::unwrap).collect())
}

/// Writes the collection in every form; returns the name and the specification of each.
fn forms(root: &Path) -> Vec<(&'static str, String)> {
    let at = |path: &str| root.join(path);
    let contents: Vec<Vec<u8>> = (0..IMAGES.len()).map(content).collect();
    let images = || IMAGES.iter().copied().zip(contents.iter().map(Vec::as_slice));
    for (path, bytes) in images() {
        write(&at("folder").join(path), bytes);
        write(&at("listed/images").join(path), bytes);
        write(&at("described").join(path), bytes);
    }
    let rows = |separator: &str, prefix: &str| -> String {
        IMAGES.iter().map(|path| format!("{prefix}{path}{separator}{}\n", class_of(path))).collect()
    };
    write(&at("listed/list.csv"), format!("path,label\n{}", rows(",", "images/")).as_bytes());
    write(
        &at("listed/list.tsv"),
        format!(
            "Class\tFileName\n{}",
            IMAGES.iter().map(|path| { format!("{}\timages/{path}\n", class_of(path)) }).collect::<String>()
        )
        .as_bytes(),
    );
    let objects: String = IMAGES
        .iter()
        .map(|path| format!("{{\"image\": \"./images/{path}\", \"target\": {}}}\n", number_of(path)))
        .collect();
    write(&at("listed/list.jsonl"), objects.as_bytes());
    let names = serde_json::to_vec(CLASSES).unwrap();
    write(&at("listed/classes.json"), &names);
    write(&at("described/metadata.csv"), format!("file_name,label\n{}", rows(",", "")).as_bytes());

    let labels: Vec<(String, String)> = IMAGES
        .iter()
        .map(|path| (path.strip_suffix(".png").unwrap().to_owned() + ".cls", number_of(path).to_string()))
        .collect();
    let members: Vec<(&str, &[u8])> =
        images().zip(&labels).flat_map(|(image, (name, label))| [image, (name.as_str(), label.as_bytes())]).collect();
    write(&at("tar/x.tar"), &tar(&members));
    write(&at("tar/x.tar.gz"), &gzip(&tar(&members)));
    write(&at("tar/y.tgz"), &gzip(&tar(&members)));
    write(&at("tar/classes.json"), &names);

    let files: Vec<(&str, &[u8])> = images().collect();
    write(&at("stored.zip"), &zip(&files, ::zip::CompressionMethod::Stored));
    write(&at("deflated.zip"), &zip(&files, ::zip::CompressionMethod::Deflated));
    let around: Vec<(String, &[u8])> = images().map(|(path, bytes)| (format!("all/{path}"), bytes)).collect();
    let around: Vec<(&str, &[u8])> = around.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
    write(&at("around.zip"), &zip(&around, ::zip::CompressionMethod::Deflated));

    let mut forms = vec![
        ("a folder", "folder"),
        ("CSV", "listed/list.csv"),
        ("TSV", "listed/list.tsv"),
        ("JSON Lines", "listed/list.jsonl"),
        ("a folder with metadata", "described"),
        ("tar", "tar/x.tar"),
        ("compressed tar", "tar/x.tar.gz"),
        ("compressed tar with a short name", "tar/y.tgz"),
        ("stored zip", "stored.zip"),
        ("deflated zip", "deflated.zip"),
        ("zip with a folder around", "around.zip"),
    ];
    if cfg!(feature = "parquet") {
        forms.push(("Parquet", "rows.parquet"));
        #[cfg(feature = "parquet")]
        {
            let table: Vec<crate::parquet::Row<'_>> = images()
                .map(|(path, bytes)| crate::parquet::Row {
                    path: Some(path),
                    bytes: Some(bytes),
                    label: Some(number_of(path) as i64),
                })
                .collect();
            write(&at("rows.parquet"), &crate::parquet::written(&table, CLASSES, 5));
        }
    }
    forms.into_iter().map(|(name, path)| (name, at(path).display().to_string())).collect()
}

#[track_caller]
fn check_same(form: &str, spec: &str, expected: &[Batch]) {
    let source = open(spec, 3).unwrap();
    assert_eq!((form, source.len()), (form, IMAGES.len()));
    let (classes, actual) = batches(source);
    assert_eq!(classes, CLASSES, "{form}");
    for (actual, expected) in actual.iter().zip(expected) {
        assert_eq!((form, &actual.samples, &actual.labels), (form, &expected.samples, &expected.labels));
        assert!(actual == expected, "{form}: batch {} has other pixels", expected.number);
    }
}

#[test]
fn every_form_of_a_collection_gives_the_same_batches() {
    let root = tempdir().unwrap();
    let forms = forms(root.path());
    let (classes, expected) = batches(open(&forms[0].1, 3).unwrap());
    assert_eq!(classes, CLASSES);
    assert_eq!(expected.iter().flat_map(|batch| &batch.labels).filter(|label| label.is_some()).count(), 24);
    for (form, spec) in &forms[1..] {
        check_same(form, spec, &expected);
    }
}

#[cfg(feature = "remote")]
#[test]
fn an_archive_on_a_server_gives_the_batches_of_the_local_one() {
    let root = tempdir().unwrap();
    let forms = forms(root.path());
    let (_, expected) = batches(open(&forms[0].1, 3).unwrap());
    let server = crate::server::Server::start();
    server.put("tar/classes.json", std::fs::read(root.path().join("tar/classes.json")).unwrap());
    let mut archives = 0;
    for (form, path) in &forms {
        let name = path.strip_prefix(&format!("{}/", root.path().display())).unwrap();
        if [".tar", ".gz", ".tgz", ".zip", ".parquet"].iter().any(|extension| name.ends_with(extension)) {
            server.put(name, std::fs::read(path).unwrap());
            check_same(form, &server.address(name), &expected);
            archives += 1;
        }
    }
    assert_eq!(archives, if cfg!(feature = "parquet") { 7 } else { 6 });
    assert!(server.requests().iter().any(|request| request.starts_with("/tar/x.tar bytes=")));
}
