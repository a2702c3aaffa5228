//! Edits of weights files, to see what commands make of them.

use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// Changes the values of a tensor of f32 in a file.
pub(crate) fn edit(path: &Path, tensor: &str, change: impl FnOnce(&mut [f32])) {
    let (header, mut data) = parts(path);
    let offsets = &header[tensor]["data_offsets"];
    let at = |i: usize| offsets[i].as_u64().unwrap() as usize;
    let bytes = &mut data[at(0)..at(1)];
    let mut values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    change(&mut values);
    bytes.copy_from_slice(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    write(path, &header, &data);
}

/// Writes all tensors of f32 of a file as numbers of another type.
pub(crate) fn converted(from: &Path, to: &Path, dtype: &str, number: impl Fn(f32) -> Vec<u8>) {
    let (mut header, data) = parts(from);
    let mut converted = Vec::new();
    let names: Vec<String> = header.keys().filter(|name| *name != "__metadata__").cloned().collect();
    for name in names {
        let at = |i: usize| header[&name]["data_offsets"][i].as_u64().unwrap() as usize;
        let values = data[at(0)..at(1)].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let start = converted.len();
        converted.extend(values.flat_map(&number));
        header[&name]["dtype"] = dtype.into();
        header[&name]["data_offsets"] = vec![start, converted.len()].into();
    }
    write(to, &header, &converted);
}

/// Header and data of a file.
fn parts(path: &Path) -> (Map<String, Value>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn write(path: &Path, header: &Map<String, Value>, data: &[u8]) {
    let mut text = serde_json::to_vec(header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    fs::write(path, [&(text.len() as u64).to_le_bytes(), text.as_slice(), data].concat()).unwrap();
}
