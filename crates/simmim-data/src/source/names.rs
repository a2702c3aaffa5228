//! Names of classes that have a number only: `classes.json`, or the numbers themselves.

use std::path::Path;

use super::read;
use crate::error::{Error, Result};

/// The list in the `classes.json` of `folder`, if there is one.
pub(super) fn beside(folder: &Path) -> Result<Option<Vec<String>>> {
    let path = folder.join("classes.json");
    if !path.exists() {
        return Ok(None);
    }
    let names = serde_json::from_slice(&read(&path)?);
    names.map(Some).map_err(|cause| Error::BadClassNames { path, cause })
}

/// The names of the classes of `labels`: `given`, or else `0` up to the highest label; none if
/// no sample has a label. `member` names a sample for the error.
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
        None => Ok((0..=label).map(|number| number.to_string()).collect()),
    }
}
