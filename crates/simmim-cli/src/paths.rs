//! Paths as they are typed: a leading `~/` is the home folder, also where the shell leaves it as it is: in quotes, after
//! `=`, and after a comma.

use clap::builder::{OsStringValueParser, TypedValueParser};
use simmim::recipe::{PATH_KEYS, split_list};
use std::path::{Path, PathBuf};

/// Parses a path.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|typed| {
        let path = PathBuf::from(typed);
        match path.strip_prefix("~") {
            Ok(rest) => home().map(|home| home.join(rest)),
            Err(_) => Ok(path),
        }
    })
}

/// Parses a path, or a word such as `scratch` or the name of a recipe.
pub(crate) fn name(typed: &str) -> Result<String, String> {
    match Path::new(typed).strip_prefix("~") {
        Ok(rest) => Ok(home()?.join(rest).display().to_string()),
        Err(_) => Ok(typed.to_owned()),
    }
}

/// Parses a list of data sets, which commas outside of braces separate.
pub(crate) fn data(typed: &str) -> Result<String, String> {
    let items: Result<Vec<String>, String> = split_list(typed).into_iter().map(name).collect();
    Ok(items?.join(","))
}

/// Parses `key.path=value`.
pub(crate) fn edit(typed: &str) -> Result<String, String> {
    let Some((key, value)) = typed.split_once('=') else { return Ok(typed.to_owned()) };
    let quotes = ['"', '\''];
    let start = value.len() - value.trim_start().trim_start_matches(quotes).len();
    let (before, path) = value.split_at(start);
    match PATH_KEYS.contains(&key.trim()) {
        true => Ok(format!("{key}={before}{}", data(path)?)),
        false => Ok(typed.to_owned()),
    }
}

fn home() -> Result<PathBuf, String> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.ok_or_else(|| "no home folder is known that `~` could stand for; write the path in full".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_in_front_of_a_path_is_the_home_folder() {
        let home = home().unwrap().display().to_string();
        let check = |parse: fn(&str) -> Result<String, String>, typed: &str, expected: &str| {
            assert_eq!(parse(typed).unwrap(), expected.replace("HOME", &home), "{typed}");
        };
        check(name, "~/x", "HOME/x");
        check(name, "./~/x", "./~/x");
        for unchanged in ["scratch", "x~", "~x", "a/~/b"] {
            check(name, unchanged, unchanged);
        }
        check(data, "~/a,b,~/c", "HOME/a,b,HOME/c");
        check(data, "a-{0..1,~/x}.tar", "a-{0..1,~/x}.tar");
        check(edit, "target.tokenizer=~/x", "target.tokenizer=HOME/x");
        check(edit, "monitor.train = \"~/a,~/b\"", "monitor.train = \"HOME/a,HOME/b\"");
        check(edit, "train.epochs=~/x", "train.epochs=~/x");
    }
}
