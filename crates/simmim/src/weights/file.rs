//! Reading and writing of safetensors files, with the parameter names and shapes of the published checkpoints.

use crate::error::{Error, Result};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use simmim_engine::{Backend, Parameter, ParameterId, ParameterTable, Slot};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Key of the resolved recipe in the metadata of a weights file.
pub const RECIPE_KEY: &str = "simmim.resolved";

/// A tensor to write.
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

/// Writes one tensor per parameter and buffer. `buffers` are pairs of a name prefix and the values of the whole table.
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
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| not_written(path, e))
}

fn not_written(path: &Path, error: SafeTensorError) -> Error {
    match error {
        SafeTensorError::IoError(error) => Error::io(path)(error),
        other => Error::Damaged { path: path.to_owned(), reason: format!("could not be written: {other}") },
    }
}

/// A parameter of a backend, which is read only when it is written.
struct SlotTensor<'a, B> {
    backend: &'a B,
    slot: Slot,
    id: ParameterId,
}

impl<B: Backend> View for &SlotTensor<'_, B> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.backend.table().get(self.id).shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.backend.read_parameter(self.slot, self.id);
        Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.backend.table().get(self.id).range.len()
    }
}

/// Writes one tensor per parameter and slot of a backend, one at a time to save memory. `slots` are pairs of a name
/// prefix and a slot.
///
/// # Errors
/// If the file cannot be written.
pub fn save_slots<B: Backend>(
    path: &Path,
    backend: &B,
    slots: &[(&str, Slot)],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let mut tensors = Vec::new();
    for (prefix, slot) in slots {
        let of_slot = backend.table().iter().enumerate().map(|(i, parameter)| {
            (format!("{prefix}{}", parameter.name), SlotTensor { backend, slot: *slot, id: ParameterId(i) })
        });
        tensors.extend(of_slot);
    }
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| not_written(path, e))
}

/// [`save`] that replaces the file atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn save_atomically(
    path: &Path,
    table: &ParameterTable,
    values: &[f32],
    metadata: HashMap<String, String>,
) -> Result<()> {
    replace(path, |partial| save(partial, table, &[("", values)], metadata))
}

/// Writes the parameters of a backend to a file, which is replaced atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn save_values_atomically<B: Backend>(path: &Path, backend: &B, metadata: HashMap<String, String>) -> Result<()> {
    replace(path, |partial| save_slots(partial, backend, &[("", Slot::Values)], metadata))
}

fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = path.with_added_extension("partial");
    let written = write(&partial).and_then(|()| {
        let sync = || std::fs::File::open(&partial)?.sync_all().and_then(|()| std::fs::rename(&partial, path));
        sync().map_err(Error::io(path))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial); // free the space; if that fails, the first error matters more
    }
    written
}

/// A safetensors file in memory, its header parsed once.
pub struct WeightsFile {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
    /// Data type, shape and range in `bytes` of each tensor.
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Range<usize>)>,
}

impl WeightsFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// If it cannot be read or is not a safetensors file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let not_weights = |e: SafeTensorError| Error::NotWeights { path: path.to_owned(), reason: e.to_string() };
        SafeTensors::deserialize(&bytes).map_err(not_weights)?; // checks the range of every tensor
        let (header_len, header) = SafeTensors::read_metadata(&bytes).map_err(not_weights)?;
        let start = 8 + header_len;
        let range = |offsets: (usize, usize)| start + offsets.0..start + offsets.1;
        let tensors = header.tensors().into_iter();
        let tensors = tensors.map(|(name, info)| (name, (info.dtype, info.shape.clone(), range(info.data_offsets))));
        let (tensors, metadata) = (tensors.collect(), header.metadata().clone().unwrap_or_default());
        Ok(Self { path: path.to_owned(), metadata, tensors, bytes })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of the file.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Names and shapes in the file, sorted by name.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, (_, shape, _))| (name.clone(), shape.clone())).collect()
    }

    /// Shape and values of a tensor, or `None` if the file does not have it.
    ///
    /// # Errors
    /// If its data type is not f32.
    pub fn tensor(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some((dtype, shape, range)) = self.tensors.get(name) else { return Ok(None) };
        if *dtype != Dtype::F32 {
            let reason = format!("tensor `{name}` is {dtype:?}, expected F32");
            return Err(Error::Damaged { path: self.path.clone(), reason });
        }
        let values = self.bytes[range.clone()].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        Ok(Some((shape.clone(), values.collect())))
    }

    /// Calls `take` with the values of every parameter of a table, from the tensor named `prefix` + parameter name.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the error names the first one, and `take` is not called.
    pub fn load(&self, table: &ParameterTable, prefix: &str, mut take: impl FnMut(ParameterId, &[f32])) -> Result<()> {
        let name = |parameter: &Parameter| format!("{prefix}{}", parameter.name);
        for parameter in table.iter() {
            let name = name(parameter);
            let Some((_, shape, _)) = self.tensors.get(&name) else {
                return Err(Error::WeightMissing { path: self.path.clone(), tensor: name });
            };
            if *shape != parameter.shape {
                let (found, expected) = (shape.clone(), parameter.shape.clone());
                return Err(Error::WeightShape { path: self.path.clone(), tensor: name, found, expected });
            }
        }
        for (i, parameter) in table.iter().enumerate() {
            let (_, values) = self.tensor(&name(parameter))?.expect("every tensor is there");
            take(ParameterId(i), &values);
        }
        Ok(())
    }

    /// Reads all parameters of a table into one flat buffer.
    ///
    /// # Errors
    /// Those of [`WeightsFile::load`].
    pub fn flat(&self, table: &ParameterTable, prefix: &str) -> Result<Vec<f32>> {
        let mut flat = Vec::with_capacity(table.len());
        self.load(table, prefix, |_, values| flat.extend_from_slice(values))?;
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
        assert_eq!(file.metadata()["k"], "v");

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
