//! Reading and writing of safetensors files, and reading of torch's, with the parameter names and shapes of the
//! published checkpoints.

use super::conventions::is_computed;
use super::values::{first_not_finite, is_read, to_f32};
use super::{NamedTensor, torch};
use crate::error::{Error, Result};
use crate::run::files::replace;
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use simmim_engine::{Backend, Parameter, ParameterId, ParameterTable, Slot};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Key of the resolved recipe in the metadata of a weights file.
pub const RECIPE_KEY: &str = "simmim.resolved";

/// Writes one tensor per parameter and buffer, atomically. `buffers` are pairs of a name prefix and the values of the
/// whole table.
///
/// # Errors
/// If a value is not finite, or the file cannot be written.
pub fn save(
    path: &Path,
    table: &ParameterTable,
    buffers: &[(&str, &[f32])],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let prefixes: Vec<&str> = buffers.iter().map(|(prefix, _)| *prefix).collect();
    write(path, table, &prefixes, metadata, |part, id| Ok(Cow::Borrowed(&buffers[part].1[table.get(id).range.clone()])))
}

/// Writes one tensor per parameter and slot, atomically, and one at a time to save memory. `slots` are pairs of a name
/// prefix and a slot, and `read` gets the values of a parameter.
///
/// # Errors
/// If a value is not finite, the file cannot be written, or those of `read`.
pub fn save_slots(
    path: &Path,
    table: &ParameterTable,
    slots: &[(&str, Slot)],
    metadata: HashMap<String, String>,
    read: &dyn Fn(Slot, ParameterId) -> Result<Vec<f32>>,
) -> Result<()> {
    let prefixes: Vec<&str> = slots.iter().map(|(prefix, _)| *prefix).collect();
    write(path, table, &prefixes, metadata, |part, id| Ok(Cow::Owned(read(slots[part].1, id)?)))
}

/// [`save`] of one buffer whose tensors have the names of the parameters.
///
/// # Errors
/// If a value is not finite, or the file cannot be written.
pub fn save_atomically(
    path: &Path,
    table: &ParameterTable,
    values: &[f32],
    metadata: HashMap<String, String>,
) -> Result<()> {
    save(path, table, &[("", values)], metadata)
}

/// [`save_slots`] of the parameters of a backend.
///
/// # Errors
/// If a value is not finite, or the file cannot be written.
pub fn save_values_atomically<B: Backend>(path: &Path, backend: &B, metadata: HashMap<String, String>) -> Result<()> {
    let read = |slot, id| Ok(backend.read_parameter(slot, id));
    save_slots(path, backend.table(), &[("", Slot::Values)], metadata, &read)
}

/// Writes a tensor per prefix and parameter; `values(i, id)` are those of the `i`-th prefix. What is not finite is not
/// written, because no command would read it again.
fn write<'a>(
    path: &Path,
    table: &ParameterTable,
    prefixes: &[&str],
    metadata: HashMap<String, String>,
    values: impl Fn(usize, ParameterId) -> Result<Cow<'a, [f32]>>,
) -> Result<()> {
    let failed = RefCell::new(None);
    let mut tensors = Vec::new();
    for (part, prefix) in prefixes.iter().enumerate() {
        for (i, parameter) in table.iter().enumerate() {
            let (values, failed, name) = (&values, &failed, format!("{prefix}{}", parameter.name));
            let checked = {
                let tensor = name.clone();
                move || {
                    let zeros = || Cow::Owned(vec![0.0; parameter.range.len()]);
                    if failed.borrow().is_some() {
                        return zeros();
                    }
                    let values = values(part, ParameterId(i))
                        .and_then(|values| not_finite(path, &tensor, &values, 0).map_or(Ok(values), Err));
                    values.unwrap_or_else(|error| {
                        failed.replace(Some(error));
                        zeros()
                    })
                }
            };
            tensors.push((name, TensorToWrite { parameter, values: checked }));
        }
    }
    let written = replace(path, |partial| {
        safetensors::serialize_to_file(tensors, Some(metadata), partial).map_err(|error| match error {
            SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        match *failed.borrow() {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::InvalidData.into()), // so that nothing is replaced
        }
    });
    match failed.take() {
        None => Ok(written?),
        Some(error) => Err(error),
    }
}

/// The error of the first value of a tensor, or of a part of it from the value `start` on, that is not finite.
pub(super) fn not_finite(path: &Path, tensor: &str, values: &[f32], start: usize) -> Option<Error> {
    let (index, value) = first_not_finite(values)?;
    Some(Error::WeightNotFinite { path: path.to_owned(), tensor: tensor.to_owned(), index: start + index, value })
}

/// A tensor whose values are read only when they are written.
struct TensorToWrite<'a, F> {
    parameter: &'a Parameter,
    values: F,
}

impl<'v, F: Fn() -> Cow<'v, [f32]>> View for TensorToWrite<'_, F> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.parameter.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned((self.values)().iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.parameter.range.len()
    }
}

/// A safetensors file, or the weights in a file of `torch.save`, in memory, its header parsed once.
pub struct WeightsFile {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
    tensors: Tensors,
    /// Which part of the file these weights are, and what else is in it.
    notes: Vec<String>,
}

/// Data type, shape and range in the bytes of a file, of each tensor by its name.
pub(super) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Range<usize>)>;

impl WeightsFile {
    /// Reads a whole safetensors file, or the weights in a file of `torch.save`.
    ///
    /// # Errors
    /// If it cannot be read, is neither, or is not complete.
    pub fn read(path: &Path) -> Result<Self> {
        if torch::is_torch(&first_bytes(path)?) {
            return torch::read(path);
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let not_weights = |e: SafeTensorError| Error::NotWeights { path: path.to_owned(), reason: e.to_string() };
        SafeTensors::deserialize(&bytes).map_err(not_weights)?; // checks the range of every tensor
        let (header_len, header) = SafeTensors::read_metadata(&bytes).map_err(not_weights)?;
        let start = 8 + header_len;
        let range = |offsets: (usize, usize)| start + offsets.0..start + offsets.1;
        let tensors = header.tensors().into_iter();
        let tensors = tensors.map(|(name, info)| (name, (info.dtype, info.shape.clone(), range(info.data_offsets))));
        let (tensors, metadata) = (tensors.collect(), header.metadata().clone().unwrap_or_default());
        Ok(Self { path: path.to_owned(), metadata, tensors, bytes, notes: Vec::new() })
    }

    /// Tensors that lie in these bytes.
    pub(super) fn of_parts(path: &Path, bytes: Vec<u8>, tensors: Tensors, notes: Vec<String>) -> Self {
        Self { path: path.to_owned(), bytes, metadata: HashMap::new(), tensors, notes }
    }

    /// Tensors in memory, as if they were read from the file `path`.
    pub(crate) fn of_tensors(path: &Path, metadata: HashMap<String, String>, list: Vec<NamedTensor>) -> Self {
        let (mut bytes, mut tensors) = (Vec::new(), BTreeMap::new());
        for NamedTensor { name, shape, values } in list {
            let start = bytes.len();
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            tensors.insert(name, (Dtype::F32, shape, start..bytes.len()));
        }
        Self { path: path.to_owned(), bytes, metadata, tensors, notes: Vec::new() }
    }

    /// All tensors of the parts of a model, as if they were in one file, `path`.
    pub(super) fn joined(path: &Path, parts: Vec<Self>) -> Self {
        let mut whole = Self::of_parts(path, Vec::new(), BTreeMap::new(), Vec::new());
        for part in parts {
            let start = whole.bytes.len();
            let moved = |range: Range<usize>| start + range.start..start + range.end;
            let tensors = part.tensors.into_iter();
            whole.tensors.extend(tensors.map(|(name, (dtype, shape, range))| (name, (dtype, shape, moved(range)))));
            whole.metadata.extend(part.metadata);
            whole.bytes.extend(part.bytes);
            whole.notes.extend(part.notes);
        }
        whole.notes.dedup(); // parts that one program wrote
        whole
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, shape, _)| shape.as_slice())
    }

    /// Whether the file has this tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of the file.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Which part of a file of `torch.save` these weights are, and what else is in it, as sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Names and shapes in the file, sorted by name.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, (_, shape, _))| (name.clone(), shape.clone())).collect()
    }

    /// The number of tensors of each data type.
    pub fn dtypes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.tensors.values().for_each(|(dtype, ..)| *counts.entry(format!("{dtype:?}")).or_default() += 1);
        counts
    }

    /// Checks that all learned values are finite: others come from a training that diverged, and every score of a model
    /// with them would be meaningless.
    ///
    /// # Errors
    /// Names the first tensor that is not finite.
    pub fn check_finite(&self) -> Result<()> {
        let mut learned = self.tensors.iter().filter(|(name, (dtype, ..))| is_read(*dtype) && !is_computed(name));
        learned.try_for_each(|(name, _)| self.tensor(name).map(drop))
    }

    /// Shape and values of a tensor of F16, BF16, F32 or F64, or `None` if the file does not have it.
    ///
    /// # Errors
    /// If its data type is another one, or a value is not finite.
    pub fn tensor(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some((dtype, shape, range)) = self.tensors.get(name) else { return Ok(None) };
        let Some(values) = to_f32(*dtype, &self.bytes[range.clone()]) else {
            let what = format!("`{}`: tensor `{name}` is {dtype:?}", self.path.display());
            return Err(Error::Input { what, hint: Some("F16, BF16, F32 and F64 are read: convert it".into()) });
        };
        not_finite(&self.path, name, &values, 0).map_or(Ok(Some((shape.clone(), values))), Err)
    }

    /// Calls `take` with the values of every parameter of a table, from the tensor named `prefix` + parameter name.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the error names the first one, and `take` is not called. Also if a
    /// value is not finite.
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

/// As many first bytes of a file as tell its format.
fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(9).read_to_end(&mut start).map_err(Error::io(path))?;
    Ok(start)
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

    #[test]
    fn what_is_not_finite_is_neither_written_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut table = ParameterTable::default();
        table.add("a", &[1]);
        table.add("b", &[2, 2]);
        save(&path, &table, &[("", &[1.0; 5])], HashMap::new()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let is_named = |error: Error| match error {
                Error::WeightNotFinite { tensor, index, value: found, .. } => {
                    (tensor.as_str(), index) == ("b", 2) && found.to_string() == value.to_string()
                }
                _ => false,
            };
            let error = save(&path, &table, &[("", &[1.0, 1.0, 1.0, value, f32::NAN])], HashMap::new()).unwrap_err();
            assert!(is_named(error), "{value}");
            assert!(std::fs::read(&path).unwrap() == bytes, "the file before is unchanged");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

            // the values are the last 20 bytes: a, then b
            let mut edited = bytes.clone();
            let at = edited.len() - 8;
            edited[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let other = folder.path().join("edited.safetensors");
            std::fs::write(&other, edited).unwrap();
            let file = WeightsFile::read(&other).unwrap();
            std::fs::remove_file(&other).unwrap();
            assert!(is_named(file.check_finite().unwrap_err()), "{value}");
            assert!(is_named(file.flat(&table, "").unwrap_err()), "{value}");
            assert_eq!(file.tensor("a").unwrap().unwrap().1, [1.0]);
        }
    }

    #[test]
    fn numbers_of_other_sizes_are_read_and_computed_buffers_are_not_judged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensor = |name: &str, dtype, bytes: &'static [u8]| {
            let width = if dtype == Dtype::F16 { 2 } else { 4 };
            let view = safetensors::tensor::TensorView::new(dtype, vec![bytes.len() / width], bytes).unwrap();
            (name.to_owned(), view)
        };
        let tensors = [
            tensor("half", Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0]),
            tensor("layers.0.attn_mask", Dtype::F32, &[0, 0, 0x80, 0xff]), // −∞
            tensor("relative_position_index", Dtype::I32, &[7, 0, 0, 0]),
        ];
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
        let file = WeightsFile::read(&path).unwrap();
        assert_eq!(file.tensor("half").unwrap().unwrap(), (vec![2], vec![1.5, -2.0]));
        file.check_finite().unwrap();
        let error = file.tensor("relative_position_index").unwrap_err();
        assert!(error.to_string().contains("I32") && error.hint().unwrap().contains("F16, BF16, F32"), "{error}");
        assert_eq!(file.dtypes(), BTreeMap::from([("F16".into(), 1), ("F32".into(), 1), ("I32".into(), 1)]));
    }
}
