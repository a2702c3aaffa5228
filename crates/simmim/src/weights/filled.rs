//! Weights files that several processes fill: one writes the header, and each of them the values that it keeps, at their
//! places. The file has the bytes that one process alone writes with [`save_slots`](super::save_slots).

use super::file::not_finite;
use crate::error::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use simmim_engine::{ParameterId, ParameterTable, Slot};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::Path;

/// Bytes of a value.
const WIDTH: usize = size_of::<f32>();

/// Creates a file with its header and room for one tensor per parameter and slot; returns where the values begin, in bytes.
/// `slots` are pairs of a name prefix and a slot.
///
/// # Errors
/// If the file is there already, or cannot be written.
pub(crate) fn outline(
    path: &Path,
    table: &ParameterTable,
    slots: &[(String, Slot)],
    metadata: HashMap<String, String>,
) -> Result<u64> {
    let (places, len) = places(table, slots);
    let tensors = places.iter().map(|(name, (_, id, place))| {
        let shape = table.get(*id).shape.clone();
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (place.start, place.end) })
    });
    let header = Metadata::new(Some(metadata), tensors.collect()).expect("tensors lie behind each other");
    let mut header = serde_json::to_vec(&header).expect("names and numbers serialize");
    header.resize(header.len().next_multiple_of(8), b' ');
    let start = 8 + header.len() as u64;
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        file.set_len(start + len as u64)
    });
    written.map_err(Error::io(path))?;
    Ok(start)
}

/// Writes the values that this process keeps, and flushes them to the disk; returns their [`sum`]. `kept` gets those of a
/// parameter's values in a slot, by their ranges; `path` is what errors name.
///
/// # Errors
/// If a value is not finite, or the file cannot be written.
pub(crate) fn fill(
    file: &mut File,
    path: &Path,
    start: u64,
    table: &ParameterTable,
    slots: &[(String, Slot)],
    kept: impl Fn(Slot, ParameterId) -> Vec<(Range<usize>, Vec<f32>)>,
) -> Result<u32> {
    let mut sum = 0u32;
    let mut write = |place: usize, values: &[f32]| -> io::Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        sum = sum_of(sum, &bytes);
        file.seek(SeekFrom::Start(start + place as u64))?;
        file.write_all(&bytes)
    };
    for (name, (slot, id, place)) in places(table, slots).0 {
        for (range, values) in kept(slot, id) {
            if let Some(error) = not_finite(path, &name, &values, range.start) {
                return Err(error);
            }
            write(place.start + WIDTH * range.start, &values).map_err(Error::io(path))?;
        }
    }
    file.sync_all().map_err(Error::io(path))?;
    Ok(sum)
}

/// The sum of the bits of all values of a file, modulo 2³²: that of what several processes have written is the sum of theirs.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn sum(path: &Path, start: u64) -> Result<u32> {
    let read = || -> io::Result<u32> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let (mut sum, mut block) = (0, Vec::new());
        while (&mut file).take(1 << 20).read_to_end(&mut block)? > 0 {
            sum = sum_of(sum, &block);
            block.clear();
        }
        Ok(sum)
    };
    read().map_err(Error::io(path))
}

fn sum_of(before: u32, bytes: &[u8]) -> u32 {
    bytes.as_chunks().0.iter().fold(before, |sum, value| sum.wrapping_add(u32::from_le_bytes(*value)))
}

/// Slot, parameter and bytes of a tensor.
type Place = (Slot, ParameterId, Range<usize>);

/// The places of all tensors behind the header, sorted by their names as in every safetensors file of one data type, and their
/// bytes together.
fn places(table: &ParameterTable, slots: &[(String, Slot)]) -> (BTreeMap<String, Place>, usize) {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for (prefix, slot) in slots {
        for (id, parameter) in table.iter().enumerate() {
            places.insert(format!("{prefix}{}", parameter.name), (*slot, ParameterId(id), 0..0));
        }
    }
    let mut end = 0;
    for (_, id, place) in places.values_mut() {
        let start = end;
        end += WIDTH * table.get(*id).range.len();
        *place = start..end;
    }
    (places, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::save;

    #[test]
    fn a_file_that_two_fill_has_the_bytes_of_one_that_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let mut table = ParameterTable::default();
        for (name, shape) in [("b", [3, 5].as_slice()), ("a", &[2]), ("c.weight", &[1, 1, 7])] {
            table.add(name, shape);
        }
        let buffers: [Vec<f32>; 2] = [1.0, -0.5].map(|factor| (0..24).map(|i| factor * i as f32).collect());
        for metadata in [HashMap::new(), HashMap::from([("k".to_owned(), "a \"b\"".to_owned())])] {
            save(&one, &table, &[("m.", &buffers[0]), ("", &buffers[1])], metadata.clone()).unwrap();
            let slots = [("m.".to_owned(), Slot::FirstMoment), (String::new(), Slot::Average)];
            let start = outline(&two, &table, &slots, metadata).unwrap();
            let mut sums = 0u32;
            for rank in [1, 0] {
                let mut file = File::options().write(true).open(&two).unwrap();
                let kept = |slot, id| {
                    let all = &buffers[usize::from(slot == Slot::Average)][table.get(id).range.clone()];
                    let parts = all.chunks(2).enumerate().filter(|(part, _)| part % 2 == rank);
                    parts.map(|(part, values)| (2 * part..2 * part + values.len(), values.to_vec())).collect()
                };
                sums = sums.wrapping_add(fill(&mut file, &two, start, &table, &slots, kept).unwrap());
            }
            let mut bytes = std::fs::read(&two).unwrap();
            assert!(std::fs::read(&one).unwrap() == bytes && sum(&two, start).unwrap() == sums);
            // as a disk that keeps zeros of one where another has written
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[last] = 0;
            std::fs::write(&two, &bytes).unwrap();
            assert_ne!(sum(&two, start).unwrap(), sums);
            std::fs::remove_file(&two).unwrap();
        }
    }

    #[test]
    fn what_is_not_finite_is_named_by_its_place_in_the_whole_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut table = ParameterTable::default();
        table.add("a", &[6]);
        let slots = [("m.".to_owned(), Slot::FirstMoment)];
        let start = outline(&path, &table, &slots, HashMap::new()).unwrap();
        let mut file = File::options().write(true).open(&path).unwrap();
        let kept = |_, _| vec![(0..1, vec![1.0]), (3..6, vec![1.0, f32::NAN, 1.0])];
        let error = fill(&mut file, Path::new("w"), start, &table, &slots, kept).unwrap_err();
        assert!(matches!(&error, Error::WeightNotFinite { tensor, index: 4, .. } if tensor == "m.a"), "{error}");
        assert!(outline(&path, &table, &slots, HashMap::new()).is_err(), "nothing is overwritten");
    }
}
