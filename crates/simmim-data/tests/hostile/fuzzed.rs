//! Files that fuzzing found (`fuzz/`): those in folders once made a decoder panic, or took too long; those in archives each
//! reach code that no other one does.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use simmim_data::{Error, Source as _, Tiled, Tiling, open};
use zip::ZipArchive;

use crate::{ONE_AT_A_TIME, taken};

/// Files of a target, each with its name.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fuzz")).join(target);
    let mut grown = ZipArchive::new(fs::File::open(folder.with_extension("zip")).unwrap()).unwrap();
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    assert!(!files.is_empty());
    for number in 0..grown.len() {
        let mut file = grown.by_index(number).unwrap();
        let (name, mut bytes) = (file.name().unwrap().into_owned(), Vec::new());
        file.read_to_end(&mut bytes).unwrap();
        files.push((name, bytes));
    }
    assert!(files.len() > 100);
    files
}

#[test]
fn pictures_that_were_found_do_no_harm() {
    for (name, bytes) in files("picture") {
        let taken = taken(&bytes, 3);
        assert!(!matches!(taken.result, Err(Error::DecoderPanicked { .. })), "{name}: {:?}", taken.result);
        assert!(taken.time < Duration::from_secs(5), "{name}: {:?}", taken.time);
    }
}

#[test]
fn archives_that_were_found_do_no_harm() {
    // the names of `fuzz/fuzz_targets/archive.rs`
    let names =
        ["tar", "tar.gz", "zip", "parquet", "csv", "jsonl", "images-idx3-ubyte", "images-idx3-ubyte.gz", "npy", "tif"];
    for (name, bytes) in files("archive") {
        let (kind, content) = bytes.split_first().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ending = names[usize::from(*kind) % names.len()];
        let path =
            folder.path().join(if ending.contains("idx") { format!("a-{ending}") } else { format!("a.{ending}") });
        fs::write(&path, content).unwrap();
        // the others measure what the whole program allocates
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        if let Ok(source) = open(&path.display().to_string(), 3) {
            (0..source.len().min(8)).for_each(|index| drop(source.get(index)));
            let tiling = Tiling { size: 16, stride: 16, least_content: 0.0, most_per_picture: Some(4), seed: 0 };
            if let Ok(tiles) = Tiled::new(source, tiling, 1) {
                (0..tiles.len().min(8)).for_each(|index| drop(tiles.get(index)));
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{name}: {:?}", started.elapsed());
    }
}
