//! Folders as the Hugging Face library `datasets` writes and reads them: a file of metadata beside the images, and
//! sub-folders or files for the splits of a data set.
//!
//! The names are those of its documentation ("Create an image dataset", "Structure your repository").

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::list;
use super::passed_over::PassedOverReason;
use super::walk::Found;
use crate::error::{Error, Result};

/// The files that may describe the images of a folder.
pub(super) const METADATA_FILES: &[&str] = &["metadata.csv", "metadata.jsonl"];

/// The column of these files with the path of an image.
const FILE_NAME: &[&str] = &["file_name"];

/// Opens the images of a folder that the file `metadata` describes; `None` if this is a file of another kind. Other images
/// in the folder are passed over.
pub(super) fn described(metadata: &Path, found: &mut Found, channels: usize) -> Option<Result<Folder>> {
    let (rows, mut passed_over) = match list::rows(metadata, FILE_NAME) {
        Ok(rows) => rows,
        Err(Error::NoColumn { .. }) => return None,
        Err(error) => return Some(Err(error)),
    };
    passed_over.append(&std::mem::take(&mut found.passed_over));
    for beside in found.archives.iter().chain(&found.other) {
        passed_over.add(beside.display(), PassedOverReason::Beside);
    }
    let folder = metadata.parent().unwrap_or(Path::new(""));
    let listed: HashSet<PathBuf> = rows.iter().map(|row| list::located(folder, &row.path)).collect();
    for image in found.images.iter().filter(|image| !listed.contains(*image)) {
        passed_over.add(image.display(), PassedOverReason::NotListed);
    }
    Some(list::of_rows(metadata, rows, &mut passed_over, channels))
}

/// Names of splits, in lower case.
const SPLITS: &[&str] =
    &["train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval", "evaluation"];

/// Checks that what is opened together are not the splits of a data set: a model that trains on the images that it is then
/// validated on looks better than it is.
///
/// # Errors
///
/// [`Error::Splits`] if there are several `paths`, and each has the name of a split, or a name that begins with one.
pub(super) fn check_one_split<'a>(folder: &Path, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut splits: Vec<(&str, &Path)> = Vec::new();
    for path in paths {
        match split(path) {
            Some(split) => splits.push((split, path)),
            None => return Ok(()),
        }
    }
    let (Some(first), Some(other)) = (splits.first(), splits.iter().find(|(split, _)| *split != splits[0].0)) else {
        return Ok(());
    };
    Err(Error::Splits { folder: folder.to_owned(), first: first.1.to_owned(), second: other.1.to_owned() })
}

/// The split whose name a folder has, or with which the name of a file begins, as in `train-00000-of-00002.parquet`.
fn split(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let is_file = path.extension().is_some();
    let end = name.find(['-', '.', '_']).filter(|_| is_file).unwrap_or(name.len());
    SPLITS.iter().copied().find(|split| name[..end] == **split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_told_by_their_names() {
        let check = |paths: &[&str], expected: bool| {
            let result = check_one_split(Path::new("d"), paths.iter().map(Path::new));
            assert_eq!(result.is_err(), expected, "{paths:?}");
        };
        check(&["d/train", "d/validation"], true);
        check(&["d/Train", "d/test"], true);
        check(&["d/train-00000-of-00002.parquet", "d/train-00001-of-00002.parquet"], false);
        check(&["d/train-00000-of-00001.parquet", "d/test-00000-of-00001.parquet"], true);
        check(&["d/train", "d/plane"], false);
        check(&["d/train-1", "d/test-1"], false);
        check(&["d/train"], false);
        check(&["d/trainings", "d/vals"], false);
        check(&[], false);
    }
}
