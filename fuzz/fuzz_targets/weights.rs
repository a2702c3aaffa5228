//! Any bytes are weights or an error. The first byte says as which kind of file they are written; `SIMMIM_FUZZ_ONLY=pickle` leaves
//! out all other kinds, so that one parser gets all of the time.

#![no_main]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::{LazyLock, Once};

use libfuzzer_sys::{Corpus, fuzz_target};
use simmim::weights::LoadedWeights;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const KINDS: [&str; 5] = ["torch", "pickle", "safetensors", "header", "index"];

static ONLY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SIMMIM_FUZZ_ONLY").ok());

/// The fuzzer's own hook would end the process at a panic that is caught; one that is not caught still ends it.
static NO_HOOK: Once = Once::new();

fuzz_target!(|bytes: &[u8]| -> Corpus {
    NO_HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Some((kind, content)) = bytes.split_first() else { return Corpus::Reject };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    if ONLY.as_ref().is_some_and(|only| only != kind) {
        return Corpus::Reject;
    }
    let folder = TempDir::new().expect("there is a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let path = match kind {
        "torch" => written(&at("w.pth"), content),
        "pickle" => archive_of(&at("w.pth"), content),
        "safetensors" => written(&at("w.safetensors"), content),
        "header" => with_header(&at("w.safetensors"), content),
        _ => index(&folder, content),
    };
    if let Ok(weights) = LoadedWeights::at(&path) {
        for (name, _) in weights.file.shapes() {
            let _ = weights.file.tensor(&name);
        }
    }
    Corpus::Keep
});

fn written(path: &Path, content: &[u8]) -> std::path::PathBuf {
    fs::write(path, content).expect("the file is written");
    path.to_owned()
}

/// An archive as torch writes it, with this pickle and four storages: a mutated pickle would not pass the checksum of a mutated
/// archive.
fn archive_of(path: &Path, pickle: &[u8]) -> std::path::PathBuf {
    let mut archive = ZipWriter::new(File::create(path).expect("the file is made"));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut entry = |name: &str, bytes: &[u8]| {
        archive.start_file(name, stored).expect("the entry begins");
        archive.write_all(bytes).expect("the entry is written");
    };
    entry("w/data.pkl", pickle);
    for (storage, length) in [4, 64, 1024, 8192].into_iter().enumerate() {
        entry(&format!("w/data/{storage}"), &vec![0; length]);
    }
    archive.finish().expect("the archive ends");
    path.to_owned()
}

/// A header of JSON with its right length, before a kilobyte of values.
fn with_header(path: &Path, header: &[u8]) -> std::path::PathBuf {
    let length = (header.len() as u64).to_le_bytes();
    written(path, &[&length[..], header, &[0; 1024]].concat())
}

/// An index beside one file of weights; what follows a zero byte is the configuration beside them.
fn index(folder: &TempDir, content: &[u8]) -> std::path::PathBuf {
    let (index, config) = content.split_at(content.iter().position(|byte| *byte == 0).unwrap_or(content.len()));
    let header = br#"{"blocks.0.attn.qkv.weight":{"dtype":"F32","shape":[12,4],"data_offsets":[0,192]},"patch_embed.proj.weight":{"dtype":"F32","shape":[4,3,2,2],"data_offsets":[192,384]}}"#;
    with_header(&folder.path().join("w.safetensors"), header);
    if let Some((_, config)) = config.split_first() {
        written(&folder.path().join("config.json"), config);
    }
    written(&folder.path().join("model.safetensors.index.json"), index)
}
