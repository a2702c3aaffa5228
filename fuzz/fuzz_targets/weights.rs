//! Any bytes are weights or an error. The first byte says as which kind of file they are written; `SIMMIM_FUZZ_ONLY=pickle` leaves
//! out all other kinds, so that one parser gets all of the time.

#![no_main]

use std::sync::{LazyLock, Once};

use libfuzzer_sys::{Corpus, fuzz_target};
use simmim::weights::LoadedWeights;

#[path = "../shared/weights_file.rs"]
mod weights_file;

static ONLY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SIMMIM_FUZZ_ONLY").ok());

/// The fuzzer's own hook would end the process at a panic that is caught; one that is not caught still ends it.
static NO_HOOK: Once = Once::new();

fuzz_target!(|bytes: &[u8]| -> Corpus {
    NO_HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Some((kind, content)) = weights_file::kind(bytes) else { return Corpus::Reject };
    if ONLY.as_ref().is_some_and(|only| only != kind) {
        return Corpus::Reject;
    }
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = weights_file::write(folder.path(), kind, content);
    if let Ok(weights) = LoadedWeights::at(&path) {
        for (name, _) in weights.file.shapes() {
            let _ = weights.file.tensor(&name);
        }
    }
    Corpus::Keep
});
