//! Rules on the text of files that no other tool checks.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Files with more lines than this are two ideas.
const MOST_LINES: usize = 600;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Crates whose subject is unsafe code.
const UNSAFE_CRATES: &[&str] = &["crates/simmim-kernels/"];

/// Folders that only exist on somebody's machine.
const MACHINE_FOLDERS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// What is wrong with the repository's files, one line each.
pub(crate) fn complaints(root: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for folder in ["crates", "docs", "recipes", "xtask", ".ci", ".cargo"] {
        find(&root.join(folder), &mut paths)?;
    }
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md" || extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut complaints = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        if let Ok(text) = String::from_utf8(bytes) {
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            complaints.extend(of_file(&name, &text));
        }
    }
    Ok(complaints)
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { find(&path, paths)? } else { paths.push(path) }
    }
    Ok(())
}

fn of_file(name: &str, text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = text
        .lines()
        .enumerate()
        .flat_map(|(at, line)| of_line(name, line).map(move |what| format!("{name}:{}: {what}", at + 1)))
        .collect();
    if name.ends_with(".rs") {
        if !text.starts_with("//! ") {
            complaints.push(format!("{name}: opens without a `//!` line that says its one idea"));
        }
        let lines = text.lines().count();
        if lines > MOST_LINES && !LONG_FILES.iter().any(|(long, _)| *long == name) {
            complaints.push(format!("{name}: {lines} lines, more than {MOST_LINES}: is it two ideas?"));
        }
    }
    complaints
}

fn of_line(name: &str, line: &str) -> impl Iterator<Item = String> {
    let folder = MACHINE_FOLDERS.iter().find(|folder| line.contains(**folder));
    let folder = folder.map(|folder| format!("`{folder}` is a path of one machine"));
    let is_code = name.ends_with(".rs") && !line.trim_start().starts_with("//");
    let is_unsafe = ["{", "fn", "impl", "extern"].iter().any(|word| line.contains(&["unsafe", word].join(" ")));
    let may_be = UNSAFE_CRATES.iter().any(|folder| name.starts_with(folder));
    let wrong = is_code && is_unsafe && !may_be;
    folder.into_iter().chain(wrong.then(|| "`unsafe` belongs into simmim-kernels".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        let found = of_file(name, text);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(found, part)| found.contains(part)), "{found:?}");
    }

    #[test]
    fn files_that_break_a_rule_are_named_with_their_line() {
        check("crates/simmim/src/a.rs", "//! One idea.\n", &[]);
        check("crates/simmim/src/a.rs", "fn f() {}\n", &["a.rs: opens without"]);
        check("crates/simmim/src/a.rs", &format!("//! Long.\n{}", "\n".repeat(MOST_LINES)), &["601 lines"]);
        let code = ["//! Code.\n// ", " fn\n", " {}\n"].join("unsafe");
        check("crates/simmim/src/a.rs", &code, &["a.rs:3: `unsafe`"]);
        check("crates/simmim-kernels/src/a.rs", &code, &[]);
        check("README.md", &format!("see {}me\n", MACHINE_FOLDERS[0]), &["README.md:1: "]);
        check("recipes/demo.toml", &"\n".repeat(MOST_LINES + 1), &[]);
    }
}
