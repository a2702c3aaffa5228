//! Rules on the text of files that no other tool checks.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Files with more lines than this are two ideas.
const MOST_LINES: usize = 600;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// The files that contain `unsafe`, and have to.
const UNSAFE_FILES: &[&str] = &[
    "crates/simmim-kernels/src/amx.rs",
    "crates/simmim-kernels/src/avx512/attention_weights.rs",
    "crates/simmim-kernels/src/avx512/bf16.rs",
    "crates/simmim-kernels/src/avx512/epilogue.rs",
    "crates/simmim-kernels/src/avx512/gelu.rs",
    "crates/simmim-kernels/src/avx512/layer_norm.rs",
    "crates/simmim-kernels/src/avx512/mod.rs",
    "crates/simmim-kernels/src/avx512/pack.rs",
    "crates/simmim-kernels/src/avx512/softmax.rs",
    "crates/simmim-kernels/src/peak.rs",
    "crates/simmim-kernels/src/product/amx.rs",
    "crates/simmim-kernels/src/product/avx2.rs",
    "crates/simmim-kernels/src/product/avx512.rs",
    "crates/simmim-kernels/src/product/mod.rs",
    "crates/simmim-kernels/src/product/packed.rs",
    "crates/simmim-kernels/src/product/portable.rs",
    "crates/simmim-kernels/src/product/tiles.rs",
    "crates/simmim-libtorch/src/shim.rs",
    "crates/simmim-libtorch/src/streams.rs",
];

/// What only the command line may do: print, end the process, read arguments and the environment.
const COMMAND_LINE_WORDS: &[&str] = &["println!(", "print!(", "dbg!(", "process::exit", "env::var", "env::args"];

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
    let is_missing = |name: &&&str| !root.join(name).exists();
    let missing = UNSAFE_FILES.iter().filter(is_missing);
    let mut complaints: Vec<_> =
        missing.map(|name| format!("{name}: may contain `unsafe`, but does not exist")).collect();
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
        if UNSAFE_FILES.contains(&name) && !text.lines().any(is_unsafe) {
            complaints.push(format!("{name}: may contain `unsafe`, but does not: take it off the list in {}", file!()));
        }
    }
    complaints
}

fn of_line(name: &str, line: &str) -> impl Iterator<Item = String> {
    let folder = MACHINE_FOLDERS.iter().find(|folder| line.contains(**folder));
    let folder = folder.map(|folder| format!("`{folder}` is a path of one machine"));
    let wrong = name.ends_with(".rs") && is_unsafe(line) && !UNSAFE_FILES.contains(&name);
    let wrong = wrong.then(|| format!("`unsafe` is only for the files that {} lists", file!()));
    let word = COMMAND_LINE_WORDS.iter().find(|word| is_library(name) && is_code(line) && line.contains(**word));
    let word = word.map(|word| format!("`{word}` is for the command line; a library reports to its caller"));
    folder.into_iter().chain(wrong).chain(word)
}

/// Whether a file is part of a library, in contrast to the command line, tests, benchmarks and examples.
fn is_library(name: &str) -> bool {
    let in_crate = name.strip_prefix("crates/").and_then(|rest| rest.split_once('/'));
    in_crate.is_some_and(|(owner, path)| owner != "simmim-cli" && path.starts_with("src/"))
}

fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// Whether a line of Rust opens an unsafe block or item.
fn is_unsafe(line: &str) -> bool {
    let opens = |word: &&str| line.contains(&["unsafe", word].join(" "));
    is_code(line) && ["{", "fn", "impl", "trait", "extern"].iter().any(opens)
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
        check("crates/simmim-kernels/src/a.rs", &code, &["a.rs:3: `unsafe`"]);
        check(UNSAFE_FILES[0], &code, &[]);
        check(UNSAFE_FILES[0], "//! Code.\nfn f() {}\n", &["but does not"]);
        check("README.md", &format!("see {}me\n", MACHINE_FOLDERS[0]), &["README.md:1: "]);
        let printing = "//! Code.\nfn f() {\n    println!(\"x\"); // said\n}\n";
        check("crates/simmim-data/src/a.rs", printing, &["a.rs:3: `println!(` is for the command line"]);
        check("crates/simmim-cli/src/a.rs", printing, &[]);
        check("crates/simmim/examples/a.rs", printing, &[]);
        check("recipes/demo.toml", &"\n".repeat(MOST_LINES + 1), &[]);
    }
}
