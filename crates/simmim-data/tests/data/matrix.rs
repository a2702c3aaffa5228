//! Reads the archives of picture files in `testdata/decode`, which `make.py` there makes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// The picture files of a format, and files that say what is right for them.
pub(crate) struct Matrix {
    /// The bytes of each picture by its name, ordered.
    pub(crate) pictures: BTreeMap<String, Vec<u8>>,
    /// `index.json`, and the pixels that are right for a picture, `NAME.pixels`.
    pub(crate) answers: BTreeMap<String, Vec<u8>>,
}

impl Matrix {
    /// Reads the archive of a format.
    pub(crate) fn of(format: &str) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/decode"));
        let archive = File::open(folder.join(format!("{format}.tar.gz"))).unwrap();
        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            members.insert(entry.path().unwrap().to_str().unwrap().to_owned(), bytes);
        }
        let is_answer = |name: &str| name == "index.json" || name.ends_with(".pixels");
        let (answers, pictures) = members.into_iter().partition(|(name, _)| is_answer(name));
        let matrix = Self { pictures, answers };
        assert!(!matrix.pictures.is_empty() && !matrix.answers.is_empty(), "an archive of {format} holds both");
        matrix
    }
}
