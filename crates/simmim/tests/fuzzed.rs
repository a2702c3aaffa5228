//! Files of weights that fuzzing made (`fuzz/`) are read or refused, without harm.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use peak_alloc::PeakAlloc;
use simmim::weights::LoadedWeights;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};
use zip::ZipArchive;

#[path = "../../../fuzz/shared/weights_file.rs"]
mod weights_file;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// No file is longer than 64 KB, and reading one takes a few times its length.
const MOST_BYTES: usize = 4 << 20;

#[test]
fn weights_that_were_found_do_no_harm() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/fuzz/weights.zip");
    let mut found = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let (mut read, mut refused) = (0, 0);
    for number in 0..found.len() {
        let mut bytes = Vec::new();
        found.by_index(number).unwrap().read_to_end(&mut bytes).unwrap();
        let Some((kind, content)) = weights_file::kind(&bytes) else { continue };
        let folder = tempfile::tempdir().unwrap();
        let path = weights_file::write(folder.path(), kind, content);
        let (before, started) = (MEMORY.current_usage(), Instant::now());
        MEMORY.reset_peak_usage();
        match LoadedWeights::at(&path) {
            Ok(weights) => {
                weights.file.shapes().iter().for_each(|(name, _)| drop(weights.file.tensor(name)));
                read += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
        let taken = MEMORY.peak_usage().saturating_sub(before);
        assert!(taken < MOST_BYTES, "file {number}, {kind}: {taken} bytes");
        assert!(started.elapsed() < Duration::from_secs(5), "file {number}, {kind}: {:?}", started.elapsed());
    }
    assert!(read >= 5 && refused > 100, "{read} were read and {refused} refused");
}
