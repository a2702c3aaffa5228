//! Any file is a collection or an error. The first byte says which name it has; `SIMMIM_FUZZ_ONLY=a.zip` leaves out all other
//! names, so that one parser gets all of the time.

#![no_main]

use std::fs;
use std::sync::{LazyLock, Once};

use libfuzzer_sys::{Corpus, fuzz_target};
use simmim_data::{Tiled, Tiling, open};

const NAMES: [&str; 10] = [
    "a.tar",
    "a.tar.gz",
    "a.zip",
    "a.parquet",
    "a.csv",
    "a.jsonl",
    "a-images-idx3-ubyte",
    "a-images-idx3-ubyte.gz",
    "a.npy",
    "a.tif",
];

static ONLY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SIMMIM_FUZZ_ONLY").ok());

/// The fuzzer's own hook would end the process at a panic that is caught; one that is not caught still ends it.
static NO_HOOK: Once = Once::new();

fuzz_target!(|bytes: &[u8]| -> Corpus {
    NO_HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Some((kind, content)) = bytes.split_first() else { return Corpus::Reject };
    let name = NAMES[usize::from(*kind) % NAMES.len()];
    if ONLY.as_ref().is_some_and(|only| only != name) {
        return Corpus::Reject;
    }
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, content).expect("the file is written");
    let Ok(source) = open(&path.display().to_string(), 3) else { return Corpus::Keep };
    for index in 0..source.len().min(8) {
        let _ = source.get(index);
        assert_eq!(source.label(index), source.labels(index).first().copied());
    }
    if source.len() == 1 {
        let tiling = Tiling { size: 16, stride: 16, least_content: 0.0, most_per_picture: Some(4), seed: 0 };
        if let Ok(tiles) = Tiled::new(source, tiling, 1) {
            use simmim_data::Source as _;
            (0..tiles.len()).for_each(|index| drop(tiles.get(index)));
        }
    }
    Corpus::Keep
});
