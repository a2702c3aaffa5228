//! Files of `torch.save` (`.pth`, `.pt`, `pytorch_model.bin`): a zip archive of a pickle, which says what lies where,
//! and of the bytes of each storage.
//!
//! The pickle is read without executing anything (`pickle.rs`). Of the storages only those of the weights are read,
//! after all that the file claims was compared with what it has, so that no memory is taken for a mere claim.

mod archive;
mod cursor;
mod fault;
mod objects;
mod pickle;
mod stack;
mod state_dict;

pub use fault::TorchFault;

use super::WeightsFile;
use crate::error::{Error, Result};
use crate::memory;
use archive::Archive;
use objects::{Storage, Tensor};
use safetensors::Dtype;
use state_dict::StateDict;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

/// Whether these first bytes of a file are those of a file that torch writes, or wrote before version 1.6. In a
/// safetensors file the ninth byte opens its header.
pub(super) fn is_torch(start: &[u8]) -> bool {
    let is_safetensors = start.get(8) == Some(&b'{');
    !is_safetensors && (start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80"))
}

/// Reads the weights in a file of `torch.save`.
///
/// # Errors
/// If it cannot be read, is not complete, holds what could be code, or claims more than it has.
pub(super) fn read(path: &Path) -> Result<WeightsFile> {
    let fault = |fault: TorchFault| Error::TorchFile { path: path.to_owned(), fault };
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut start = [0; LEGACY.len()];
    let length = file.read(&mut start).map_err(Error::io(path))?;
    match &start[..length] {
        start if *start == LEGACY => return Err(fault(TorchFault::Legacy)),
        start if start.starts_with(b"\x80") => return Err(fault(TorchFault::PlainPickle)),
        _ => {}
    }
    let mut archive = Archive::open(file).map_err(fault)?;
    let pickle = archive.pickle().map_err(fault)?;
    let found = state_dict::find(&pickle::read(&pickle).map_err(fault)?).map_err(fault)?;
    let storages = Storages::of(&found, archive.len()).map_err(fault)?;
    memory::check(|| format!("`{}`", path.display()), storages.bytes.saturating_add(storages.gathered))?;
    let mut bytes = Vec::with_capacity((storages.bytes + storages.gathered) as usize);
    let mut starts = BTreeMap::new();
    for (key, length) in storages.lengths {
        starts.insert(key, bytes.len());
        archive.storage(key, length, &mut bytes).map_err(fault)?;
    }
    let mut tensors = BTreeMap::new();
    for (name, tensor) in found.tensors {
        let range = lay_out(&tensor, starts[tensor.storage.key], &mut bytes);
        tensors.insert(name.to_owned(), (tensor.storage.dtype, tensor.shape, range));
    }
    Ok(WeightsFile::of_parts(path, bytes, tensors, found.notes))
}

/// What files of torch before version 1.6 begin with: protocol 2 and a number of 10 bytes (pytorch/pytorch,
/// `torch/serialization.py`, `MAGIC_NUMBER`).
const LEGACY: [u8; 14] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19";

/// What tensors take, all of it known to be in the file.
struct Storages<'a> {
    /// Bytes of each storage, by its key.
    lengths: BTreeMap<&'a str, u64>,
    /// Bytes of all of them.
    bytes: u64,
    /// Bytes of the tensors that do not lie in one piece.
    gathered: u64,
}

impl<'a> Storages<'a> {
    /// Checks that every tensor lies within its storage, and that all of them together take no more than twice the
    /// file, which leaves room for tensors that share a storage.
    fn of(found: &StateDict<'a>, file_length: u64) -> std::result::Result<Self, TorchFault> {
        let mut known: BTreeMap<&str, Storage> = BTreeMap::new();
        let (mut claimed, mut gathered) = (0u64, 0u64);
        for (name, tensor) in &found.tensors {
            let storage = tensor.storage;
            if *known.entry(storage.key).or_insert(storage) != storage {
                return Err(TorchFault::Storage {
                    key: storage.key.to_owned(),
                    what: "is of two types or sizes".into(),
                });
            }
            let values = tensor.values().filter(|values| *values <= storage.values && tensor.is_within());
            let Some(values) = values else {
                let (tensor, shape) = ((*name).to_owned(), tensor.shape.clone());
                return Err(TorchFault::BeyondStorage { tensor, shape, values: storage.values });
            };
            let bytes = values.saturating_mul(width(storage.dtype));
            claimed = claimed.saturating_add(bytes);
            gathered = gathered.saturating_add(if tensor.is_contiguous() { 0 } else { bytes });
        }
        let length = |storage: &Storage| storage.values.saturating_mul(width(storage.dtype));
        let lengths: BTreeMap<&str, u64> = known.iter().map(|(key, storage)| (*key, length(storage))).collect();
        let bytes = lengths.values().fold(0u64, |sum, length| sum.saturating_add(*length));
        let most = file_length.saturating_mul(2);
        match bytes > file_length || claimed > most {
            true => Err(TorchFault::Claims { bytes: bytes.max(claimed), file: file_length }),
            false => Ok(Self { lengths, bytes, gathered }),
        }
    }
}

/// Bytes per value.
fn width(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

/// Where the values of a tensor lie in `bytes`; those that do not lie in one piece are appended in their order.
fn lay_out(tensor: &Tensor, start: usize, bytes: &mut Vec<u8>) -> Range<usize> {
    let width = width(tensor.storage.dtype) as usize;
    let values = tensor.values().expect("the size of every tensor was checked") as usize;
    if tensor.is_contiguous() {
        let first = start + if values == 0 { 0 } else { tensor.offset as usize * width };
        return first..first + values * width;
    }
    let first = bytes.len();
    let mut index = vec![0; tensor.shape.len()];
    for _ in 0..values {
        let value: usize = index.iter().zip(&tensor.strides).map(|(i, stride)| i * *stride as usize).sum();
        let at = start + (tensor.offset as usize + value) * width;
        bytes.extend_from_within(at..at + width);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < tensor.shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    first..bytes.len()
}
