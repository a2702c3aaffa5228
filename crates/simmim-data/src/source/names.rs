//! Names for classes that are stored as numbers: those in `classes.json`, or else the numbers themselves.

use std::path::{Path, PathBuf};

use super::read;
use super::storage::Storage;
use crate::error::{Error, Result};

/// The file that names the classes, beside shards, IDX files and lists.
pub(super) const CLASS_NAMES: &str = "classes.json";

/// Reads the `classes.json` in `folder`, if there is one.
pub(super) fn read_list(folder: &Path) -> Result<Option<Vec<String>>> {
    let path = folder.join(CLASS_NAMES);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read(&path)?;
    parsed(path, &bytes).map(Some)
}

/// Reads the `classes.json` beside an archive, if there is one.
pub(super) fn read_beside(archive: &dyn Storage) -> Result<Option<Vec<String>>> {
    let bytes = archive.beside(CLASS_NAMES)?;
    bytes.map(|bytes| parsed(archive.path().with_file_name(CLASS_NAMES), &bytes)).transpose()
}

fn parsed(path: PathBuf, bytes: &[u8]) -> Result<Vec<String>> {
    serde_json::from_slice(bytes).map_err(|cause| Error::BadClassNames { path, cause })
}

/// Labels without names are numbers below this one. A higher one is taken for something else, because each number up to
/// the highest is a class.
const MAX_CLASSES: usize = 1 << 20;

/// Returns the names of the classes: the `given` ones, or else `0` up to the highest of `labels`; none if no sample has
/// a label. `member` returns the name of a sample for the error.
pub(super) fn of(
    labels: impl Iterator<Item = Option<usize>>,
    given: Option<Vec<String>>,
    member: impl Fn(usize) -> String,
) -> Result<Vec<String>> {
    let highest = labels.enumerate().filter_map(|(index, label)| Some((label?, index))).max();
    let Some((label, index)) = highest else {
        return Ok(Vec::new());
    };
    match given {
        Some(names) if label >= names.len() => {
            Err(Error::LabelOutOfRange { member: member(index), label, classes: names.len() })
        }
        Some(names) => Ok(names),
        None if label >= MAX_CLASSES => Err(Error::TooManyClasses { member: member(index), label, limit: MAX_CLASSES }),
        None => Ok((0..=label).map(|number| number.to_string()).collect()),
    }
}
