//! Files of weights that fuzzing makes of bytes; also for the test that reads again what fuzzing found.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// As what bytes are written: a file of `torch.save`, the pickle of one, a safetensors file, the header of one, and an index of
/// several files.
const KINDS: [&str; 5] = ["torch", "pickle", "safetensors", "header", "index"];

/// The kind of file that the first of some bytes stands for, and the others.
pub(crate) fn kind(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    let (kind, content) = bytes.split_first()?;
    Some((KINDS[usize::from(*kind) % KINDS.len()], content))
}

/// Writes a file of this kind into a folder.
pub(crate) fn write(folder: &Path, kind: &str, content: &[u8]) -> PathBuf {
    match kind {
        "torch" => written(folder.join("w.pth"), content),
        "pickle" => archive_of(folder.join("w.pth"), content),
        "safetensors" => written(folder.join("w.safetensors"), content),
        "header" => with_header(folder.join("w.safetensors"), content),
        "index" => index(folder, content),
        other => panic!("there is no kind `{other}`"),
    }
}

fn written(path: PathBuf, content: &[u8]) -> PathBuf {
    fs::write(&path, content).expect("the file is written");
    path
}

/// An archive as torch writes it, with this pickle and four storages: a mutated pickle would not pass the checksum of a mutated
/// archive.
fn archive_of(path: PathBuf, pickle: &[u8]) -> PathBuf {
    let mut archive = ZipWriter::new(File::create(&path).expect("the file is made"));
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
    path
}

/// A header of JSON with its right length, before a kilobyte of values.
fn with_header(path: PathBuf, header: &[u8]) -> PathBuf {
    let length = (header.len() as u64).to_le_bytes();
    written(path, &[&length[..], header, &[0; 1024]].concat())
}

/// An index beside one file of weights; what follows a zero byte is the configuration beside them.
fn index(folder: &Path, content: &[u8]) -> PathBuf {
    let (index, config) = content.split_at(content.iter().position(|byte| *byte == 0).unwrap_or(content.len()));
    let header = br#"{"blocks.0.attn.qkv.weight":{"dtype":"F32","shape":[12,4],"data_offsets":[0,192]},"patch_embed.proj.weight":{"dtype":"F32","shape":[4,3,2,2],"data_offsets":[192,384]}}"#;
    with_header(folder.join("w.safetensors"), header);
    if let Some((_, config)) = config.split_first() {
        written(folder.join("config.json"), config);
    }
    written(folder.join("model.safetensors.index.json"), index)
}
