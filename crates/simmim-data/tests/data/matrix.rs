//! Reads the picture files of `testdata/decode`, which `make.py` there makes, and what is right for each.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::Value;

/// A file of the matrix, and what is right.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) right: Right,
}

pub(crate) enum Right {
    /// We do not read it.
    Refused,
    /// Pillow does not read it, so nothing is known to be right.
    Unknown,
    Pixels {
        height: usize,
        width: usize,
        channels: usize,
        /// Bits of each value; 32 are a float.
        depth: usize,
        tolerance: u8,
        /// Row by row, little endian.
        pixels: Vec<u8>,
    },
}

/// The files of one format.
pub(crate) fn cases(format: &str) -> Vec<Case> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/decode"));
    let archive = File::open(folder.join(format!("{format}.tar.gz"))).unwrap();
    let mut members: HashMap<String, Vec<u8>> = HashMap::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(entry.path().unwrap().to_str().unwrap().to_owned(), bytes);
    }
    let index: BTreeMap<String, Value> = serde_json::from_slice(&members.remove("index.json").unwrap()).unwrap();
    let mut case = |(name, right): (String, Value)| {
        let bytes = members.remove(&name).unwrap();
        let number = |key: &str| right[key].as_u64().unwrap() as usize;
        let right = match right["refused"].as_str() {
            Some("by us") => Right::Refused,
            Some(_) => Right::Unknown,
            None => Right::Pixels {
                height: number("height"),
                width: number("width"),
                channels: number("channels"),
                depth: number("depth"),
                tolerance: number("tolerance") as u8,
                pixels: members.remove(&format!("{}.pixels", name.rsplit_once('.').unwrap().0)).unwrap(),
            },
        };
        Case { name, bytes, right }
    };
    let cases = index.into_iter().map(&mut case).collect();
    assert!(members.is_empty(), "members that `index.json` does not name: {:?}", members.keys());
    cases
}
