//! The error for a path that does not exist, with a suggestion of what the user may have meant.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Describes the missing `path`: the deepest folder on the way that exists, and the most similar name in this folder.
pub(super) fn error(path: &Path) -> Error {
    // the parent of a relative path without a slash is the empty path, which means the current folder
    let named = |folder: &Path| {
        if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }
    };
    let parent = path.ancestors().skip(1).find(|folder| named(folder).is_dir()).unwrap_or(Path::new(""));
    let wanted = path.strip_prefix(parent).ok().and_then(|rest| rest.iter().next());
    let wanted = wanted.unwrap_or_default().to_string_lossy().to_lowercase();
    let mut names: Vec<String> = std::fs::read_dir(named(parent))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !super::is_ignored(name))
        .collect();
    names.sort();
    let nearest = names
        .iter()
        .map(|name| (distance(&wanted, &name.to_lowercase()), name))
        .min()
        .filter(|(edits, _)| *edits <= wanted.chars().count().div_ceil(3))
        .map(|(_, name)| parent.join(name));
    Error::MissingPath { path: path.to_owned(), nearest, parent: named(parent) }
}

/// The number of letters to insert, delete or replace (Levenshtein distance).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (left, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(row[left] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, expected: usize) {
        assert_eq!(distance(from, to), expected, "{from} to {to}");
        assert_eq!(distance(to, from), expected, "{to} to {from}");
    }

    #[test]
    fn distance_counts_edits() {
        check("", "", 0);
        check("", "abc", 3);
        check("train", "train", 0);
        check("trian", "train", 2);
        check("kitten", "sitting", 3);
    }
}
