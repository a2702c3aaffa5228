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
/// [`Error::Splits`] if two of the `paths` have the names of different splits, or names that begin with them.
pub(super) fn check_one_split<'a>(folder: &Path, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut splits = paths.into_iter().filter_map(|path| Some((split(path, path.extension().is_some())?, path)));
    let Some(first) = splits.next() else { return Ok(()) };
    match splits.find(|(split, _)| *split != first.0) {
        Some(second) => Err(different(folder, first.1, second.1)),
        None => Ok(()),
    }
}

/// The same for the folders in which the paths of `files` below `root` part, of which there may be others around all of them.
/// Several data sets side by side, each with its splits, are not refused: that is a choice.
pub(super) fn check_one_split_below<'a>(
    root: &Path,
    files: impl IntoIterator<Item = &'a Path, IntoIter: Clone>,
) -> Result<()> {
    let files = files.into_iter();
    let mut folders = files.clone().filter_map(Path::parent);
    let Some(mut common) = folders.next() else { return Ok(()) };
    for folder in folders {
        while !folder.starts_with(common) {
            common = common.parent().unwrap_or(Path::new(""));
        }
    }
    let mut first: Option<(&str, &Path)> = None;
    for folder in files.filter_map(Path::parent) {
        let below = folder.ancestors().find(|above| above.parent() == Some(common));
        let Some((folder, own)) = below.and_then(|folder| Some((folder, split(folder, false)?))) else { continue };
        match first {
            Some((split, path)) if split != own => return Err(different(root, path, folder)),
            _ => first = Some((own, folder)),
        }
    }
    Ok(())
}

fn different(folder: &Path, first: &Path, second: &Path) -> Error {
    Error::Splits { folder: folder.to_owned(), first: first.to_owned(), second: second.to_owned() }
}

/// The split whose name a folder has, perhaps with a year, or with which the name of a file begins, as in
/// `train-00000-of-00002.parquet`.
fn split(path: &Path, is_file: bool) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let end = name.find(['-', '.', '_']).filter(|_| is_file).unwrap_or(name.len());
    let word = name[..end].trim_end_matches(|letter: char| letter.is_ascii_digit());
    SPLITS.iter().copied().find(|split| word == *split)
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
        check(&["d/train2017", "d/annotations", "d/val2017"], true);
        check(&["d/train", "d/plane"], false);
        check(&["d/train-1", "d/test-1"], false);
        check(&["d/train"], false);
        check(&["d/trainings", "d/vals"], false);
        check(&[], false);
    }

    #[test]
    fn splits_are_found_where_paths_part() {
        let check = |files: &[&str], expected: Option<[&str; 2]>| {
            let result = check_one_split_below(Path::new("d"), files.iter().map(Path::new));
            let found = result.err().map(|error| match error {
                Error::Splits { first, second, .. } => [first, second],
                other => panic!("{other}"),
            });
            assert_eq!(found, expected.map(|two| two.map(PathBuf::from)), "{files:?}");
        };
        check(&["d/images/train/cat/a.png", "d/images/val/cat/b.png"], Some(["d/images/train", "d/images/val"]));
        check(&["d/annotations/x.png", "d/train/a.png", "d/val/b.png"], Some(["d/train", "d/val"]));
        check(&["d/a/train/1.png", "d/a/test/1.png", "d/b/train/1.png", "d/b/test/1.png"], None);
        check(&["d/cat/train/a.png", "d/dog/train/a.png", "d/e/test.png"], None);
        check(&["d/train/test/a.png", "d/train/b.png"], None);
        check(&["d/train/test/a.png", "d/train/val/b.png"], Some(["d/train/test", "d/train/val"]));
        check(&[], None);
        check(&["train/a.png"], None);
    }
}
