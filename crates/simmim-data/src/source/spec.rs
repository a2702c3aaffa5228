//! Expands a data specification into the paths and addresses that it names: comma lists, braces and wildcards.

use std::path::{Path, PathBuf};

use super::address::{Address, without_secrets};
use super::hugging_face::{check_one_split, check_one_split_below};
use super::kind::Kind;
use super::passed_over::{PassedOver, PassedOverReason};
use super::place::Place;
use super::run_folder::{LinksIntoRuns, is_run};
use super::{is_ignored, missing};
use crate::error::{Error, Result};

/// What a specification names.
#[derive(Default)]
pub(super) struct Places {
    /// The paths and addresses in order; all of the paths exist.
    pub(super) places: Vec<Place>,
    /// What a wildcard matches and is not read.
    pub(super) passed_over: PassedOver,
}

/// Returns the paths and addresses that `spec` names.
///
/// If a file or folder is called `spec`, it is this one path, even if the name contains commas or braces.
pub(super) fn places(spec: &str) -> Result<Places> {
    if !spec.is_empty() && Path::new(spec).exists() {
        return Ok(Places { places: vec![Place::Path(PathBuf::from(spec))], passed_over: PassedOver::new() });
    }
    let mut named = Places::default();
    for item in expand(spec)? {
        if let Some(address) = Address::of(&item) {
            named.places.push(Place::Address(address?));
        } else if item.contains(['*', '?', '[']) && !Path::new(&item).exists() {
            add_matches(&item, &mut named)?;
        } else if Path::new(&item).exists() {
            named.places.push(Place::Path(PathBuf::from(item)));
        } else {
            return Err(missing::error(Path::new(&item)));
        }
    }
    Ok(named)
}

/// Adds the paths that match a wildcard and can be opened, ordered by name.
fn add_matches(pattern: &str, named: &mut Places) -> Result<()> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let matching = glob::glob_with(pattern, options)
        .map_err(|error| Error::BadSpec { spec: pattern.to_owned(), fault: error.msg })?;
    let mut links = LinksIntoRuns::default();
    let (places_before, mut passed_over) = (named.places.len(), PassedOver::new());
    for path in matching {
        let path = path.map_err(|error| Error::Read { path: error.path().to_owned(), cause: error.into() })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let reason = match Kind::of(&path) {
            _ if is_ignored(&name) => Some(PassedOverReason::Hidden),
            None => Some(PassedOverReason::of_extension(&path.extension().unwrap_or_default().to_string_lossy())),
            Some(Kind::Folder) => is_run(&path).then_some(PassedOverReason::Run),
            Some(Kind::Special(what)) => Some(PassedOverReason::NotAFile(what)),
            Some(Kind::Image) if path.is_symlink() => {
                let folder = path.parent().and_then(|folder| folder.canonicalize().ok()).unwrap_or_default();
                links.contain(&path, &folder).then_some(PassedOverReason::Run)
            }
            Some(Kind::Shard | Kind::Zip | Kind::Parquet | Kind::List | Kind::Image | Kind::Idx) => None,
        };
        match reason {
            Some(reason) => passed_over.add(path.display(), reason),
            None => named.places.push(Place::Path(path)),
        }
    }
    if named.places.len() == places_before {
        return Err(Error::NoMatch { pattern: pattern.to_owned(), passed_over });
    }
    let (folders, files): (Vec<&Path>, Vec<&Path>) =
        named.places[places_before..].iter().map(Place::shown).partition(|path| path.is_dir());
    let archives = files.iter().copied().filter(|file| Kind::of(file) != Some(Kind::Image));
    check_one_split(Path::new(pattern), folders.iter().copied().chain(archives))?;
    let within: Vec<PathBuf> = folders.iter().map(|folder| folder.join("*")).collect();
    check_one_split_below(Path::new(pattern), files.into_iter().chain(within.iter().map(PathBuf::as_path)))?;
    named.passed_over.append(&passed_over);
    Ok(())
}

/// A longer list is taken for a typing error, and would take too much memory.
const MAX_ITEMS: usize = 1_000_000;

/// Returns the items of a comma list with their braces expanded.
fn expand(spec: &str) -> Result<Vec<String>> {
    let bad = |fault| Error::BadSpec { spec: without_secrets(spec), fault };
    let mut items = Vec::new();
    for item in split(spec).map_err(bad)? {
        if item.is_empty() {
            return Err(bad("an item is empty"));
        }
        items.extend(braces(item).map_err(bad)?);
    }
    Ok(items)
}

/// Splits a list at the commas that are outside of braces.
pub(super) fn split(list: &str) -> std::result::Result<Vec<&str>, &'static str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1).ok_or("a `}` has no `{`")?,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("a `{` has no `}`");
    }
    items.push(&list[start..]);
    Ok(items)
}

/// Expands the first pair of braces of an item, and then the other ones.
fn braces(item: &str) -> std::result::Result<Vec<String>, &'static str> {
    let Some(open) = item.find('{') else {
        return Ok(vec![item.to_owned()]);
    };
    let close = closing(item, open).ok_or("a `{` has no `}`")?;
    let (before, inside, after) = (&item[..open], &item[open + 1..close], &item[close + 1..]);
    let choices = match inside.split_once("..") {
        Some((first, last)) if !inside.contains(['{', ',']) => range(first, last)?,
        _ => {
            let mut choices = Vec::new();
            for choice in split(inside)? {
                choices.extend(braces(choice)?);
            }
            choices
        }
    };
    let rest = braces(after)?;
    if choices.len().saturating_mul(rest.len()) > MAX_ITEMS {
        return Err("the braces name more than a million paths");
    }
    let mut items = Vec::with_capacity(choices.len() * rest.len());
    for choice in &choices {
        items.extend(rest.iter().map(|rest| format!("{before}{choice}{rest}")));
    }
    Ok(items)
}

/// Returns the position of the brace that closes the one at `open`.
fn closing(item: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, letter) in item[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at);
        }
    }
    None
}

/// Returns the numbers from `first` to `last`; if either starts with a 0, all are padded to the longer width.
fn range(first: &str, last: &str) -> std::result::Result<Vec<String>, &'static str> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| "a range in braces is not of whole numbers");
    let (low, high) = (number(first)?, number(last)?);
    if low > high {
        return Err("a range in braces goes down");
    }
    if high - low >= MAX_ITEMS {
        return Err("the braces name more than a million paths");
    }
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if is_padded(first) || is_padded(last) { first.len().max(last.len()) } else { 0 };
    Ok((low..=high).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: &str, expected: &[&str]) {
        assert_eq!(expand(spec).unwrap(), expected, "{spec}");
    }

    #[test]
    fn lists_and_braces_are_expanded() {
        check("a", &["a"]);
        check("a,b/c", &["a", "b/c"]);
        check("x-{00000..00002}.tar", &["x-00000.tar", "x-00001.tar", "x-00002.tar"]);
        check("{8..11}", &["8", "9", "10", "11"]);
        check("{08..11}", &["08", "09", "10", "11"]);
        check("{0..1}", &["0", "1"]);
        check("{3..3}", &["3"]);
        check("{a,b}/x", &["a/x", "b/x"]);
        check("{a,b}{1..2}", &["a1", "a2", "b1", "b2"]);
        check("{train-{0..1},val}.tar", &["train-0.tar", "train-1.tar", "val.tar"]);
        check("x{,y}", &["x", "xy"]);
        check("a{1,2},b", &["a1", "a2", "b"]);
        check("*.tar", &["*.tar"]);
        check("../a{..b,c}", &["../a..b", "../ac"]);
    }

    #[track_caller]
    fn check_fault(spec: &str, expected: &str) {
        let error = expand(spec).unwrap_err();
        assert!(error.is_users_fault());
        assert!(error.to_string().contains(expected), "{spec}: {error}");
        assert!(error.to_string().contains(&format!("`{spec}`")), "{spec}: {error}");
    }

    #[test]
    fn a_wrong_specification_is_explained() {
        check_fault("", "an item is empty");
        check_fault("a,,b", "an item is empty");
        check_fault("a,", "an item is empty");
        check_fault("{a", "a `{` has no `}`");
        check_fault("a}", "a `}` has no `{`");
        check_fault("{a..b}", "not of whole numbers");
        check_fault("{5..1}", "goes down");
        check_fault("{0..9999999}", "more than a million");
        check_fault("{0..9999}{0..9999}", "more than a million");
    }
}
