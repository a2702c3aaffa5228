//! Weights in several files, with the index that Hugging Face's libraries write.

use super::WeightsFile;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// File name of an index of safetensors files.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// File name of weights that transformers wrote by `torch.save`.
pub(super) const TORCH_FILE: &str = "pytorch_model.bin";

/// File name of an index of several of them.
pub(super) const TORCH_INDEX_FILE: &str = "pytorch_model.bin.index.json";

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Whether this is the name of an index.
pub(super) fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [".safetensors.index.json", ".bin.index.json"].iter().any(|end| name.ends_with(end))
}

/// Reads all parts that an index lists.
///
/// # Errors
/// If the index is not one, or a part is missing, damaged, or lacks a tensor.
pub(super) fn read_sharded(index: &Path) -> Result<WeightsFile> {
    let damaged = |reason: String| Error::Damaged { path: index.to_owned(), reason };
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| damaged(format!("is not an index: {e}")))?;
    let names: BTreeSet<&String> = parsed.weight_map.values().collect();
    let mut parts = BTreeMap::new();
    for name in names {
        if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
            return Err(damaged(format!("names `{name}`, which is not a file beside it")));
        }
        parts.insert(name, WeightsFile::read(&index.with_file_name(name))?);
    }
    for (tensor, part) in &parsed.weight_map {
        if !parts[part].has(tensor) {
            return Err(Error::WeightMissing { path: index.with_file_name(part), tensor: tensor.clone() });
        }
    }
    Ok(WeightsFile::joined(index, parts.into_values().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_leads_nowhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX_FILE);
        for (text, message) in [
            ("{", "is not an index"),
            (r#"{"weight_map": {"a": "../w.safetensors"}}"#, "not a file beside it"),
            (r#"{"weight_map": {"a": "w.safetensors"}}"#, "w.safetensors"),
        ] {
            std::fs::write(&index, text).unwrap();
            let error = read_sharded(&index).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
