//! Named tensors in safetensors files: parameters under their published names and shapes.

use crate::error::{Error, Result};
use safetensors::{Dtype, SafeTensors, View};
use simmim_engine::ParameterTable;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Metadata key of a weights file that holds the resolved recipe.
pub const RECIPE_KEY: &str = "simmim.resolved";

/// One tensor to be written.
struct Tensor<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

/// Writes one tensor per parameter and buffer, named `prefix` + parameter name.
///
/// # Errors
/// If the file cannot be written.
pub fn save(
    path: &Path,
    table: &ParameterTable,
    buffers: &[(&str, &[f32])],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let tensors: Vec<(String, Tensor)> = buffers
        .iter()
        .flat_map(|(prefix, values)| {
            table.iter().map(move |p| {
                (format!("{prefix}{}", p.name), Tensor { shape: &p.shape, values: &values[p.range.clone()] })
            })
        })
        .collect();
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(error) => Error::io(path)(error),
        other => Error::Damaged { path: path.to_owned(), reason: format!("could not be written: {other}") },
    })
}

/// Writes one tensor per parameter to a file that is there whole or as it was before.
///
/// # Errors
/// If the file cannot be written.
pub fn save_atomically(
    path: &Path,
    table: &ParameterTable,
    values: &[f32],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let partial = path.with_added_extension("partial");
    let written = save(&partial, table, &[("", values)], metadata).and_then(|()| {
        let sync = || std::fs::File::open(&partial)?.sync_all().and_then(|()| std::fs::rename(&partial, path));
        sync().map_err(Error::io(path))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial); // give the space back; the error is what matters
    }
    written
}

/// The bytes of a safetensors file.
pub struct WeightsFile {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
}

impl WeightsFile {
    /// Reads a file whole.
    ///
    /// # Errors
    /// If it cannot be read or is not a safetensors file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let file = Self { path: path.to_owned(), bytes };
        file.tensors()?;
        Ok(file)
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|e| Error::NotWeights { path: self.path.clone(), reason: e.to_string() })
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged { path: self.path.clone(), reason }
    }

    /// The file's own key-value pairs.
    ///
    /// # Errors
    /// If the header cannot be read.
    pub fn metadata(&self) -> Result<HashMap<String, String>> {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).map_err(|e| self.damaged(e.to_string()))?;
        Ok(header.metadata().clone().unwrap_or_default())
    }

    /// Names and shapes in the file, sorted by name.
    ///
    /// # Errors
    /// If the header cannot be read.
    pub fn shapes(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let mut shapes: Vec<_> =
            self.tensors()?.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
        shapes.sort();
        Ok(shapes)
    }

    /// Values of a tensor, or none if the file does not have it.
    ///
    /// # Errors
    /// If it is there but not f32.
    pub fn tensor(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let tensors = self.tensors()?;
        let Ok(view) = tensors.tensor(name) else { return Ok(None) };
        if view.dtype() != Dtype::F32 {
            return Err(self.damaged(format!("tensor `{name}` is {:?}, expected F32", view.dtype())));
        }
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(Some((view.shape().to_vec(), view.data().chunks_exact(4).map(value).collect())))
    }

    /// The flat buffer of all parameters, read from tensors named `prefix` + parameter name.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the first one is named.
    pub fn flat(&self, table: &ParameterTable, prefix: &str) -> Result<Vec<f32>> {
        let mut flat = Vec::with_capacity(table.len());
        for parameter in table.iter() {
            let name = format!("{prefix}{}", parameter.name);
            let Some((shape, values)) = self.tensor(&name)? else {
                return Err(Error::WeightMissing { path: self.path.clone(), tensor: name });
            };
            if shape != parameter.shape {
                let expected = parameter.shape.clone();
                return Err(Error::WeightShape { path: self.path.clone(), tensor: name, found: shape, expected });
            }
            flat.extend(values);
        }
        Ok(flat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_and_what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut table = ParameterTable::default();
        table.add("a", &[2, 2]);
        table.add("b", &[1]);
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        save(&path, &table, &[("", &values)], HashMap::from([("k".into(), "v".into())])).unwrap();
        let file = WeightsFile::read(&path).unwrap();
        assert_eq!(file.flat(&table, "").unwrap(), values);
        assert_eq!(file.metadata().unwrap()["k"], "v");

        let mut other = ParameterTable::default();
        other.add("a", &[4]);
        assert!(matches!(file.flat(&other, ""), Err(Error::WeightShape { tensor, .. }) if tensor == "a"));
        let mut more = ParameterTable::default();
        more.add("c", &[4]);
        assert!(matches!(file.flat(&more, ""), Err(Error::WeightMissing { tensor, .. }) if tensor == "c"));

        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(WeightsFile::read(&path), Err(Error::NotWeights { .. })));
    }
}
