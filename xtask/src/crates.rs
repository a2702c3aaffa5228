//! Rules on what may depend on what, and under which licences, read from `cargo metadata`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What each crate of the workspace may depend on among the others, tests aside.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("simmim-kernels", &[]),
    ("simmim-engine", &["simmim-kernels"]),
    ("simmim-data", &[]),
    ("simmim", &["simmim-engine", "simmim-data"]),
    ("simmim-cli", &["simmim", "simmim-data"]),
    ("xtask", &[]),
];

/// Crates that only some of ours may depend on: libraries neither parse arguments, nor draw, nor handle signals, nor
/// return errors without a type.
const ONLY_FOR: &[(&str, &[&str])] = &[
    ("anyhow", &["simmim-cli", "xtask"]),
    ("clap", &["simmim-cli"]),
    ("ctrlc", &["simmim-cli"]),
    ("indicatif", &["simmim-cli"]),
];

/// Licences that ask for no more than their text; of a choice, one of these is enough.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What is wrong with the dependencies, one line each.
pub(crate) fn complaints(root: &Path) -> Result<Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "`cargo metadata` failed");
    of_metadata(&serde_json::from_slice(&output.stdout)?)
}

fn of_metadata(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let mut complaints = Vec::new();
    for package in packages {
        let name = text(package, "name");
        let is_ours = package["source"].is_null();
        if is_ours {
            let dependencies = package["dependencies"].as_array().context("a package without dependencies")?;
            let normal = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
            complaints.extend(normal.filter_map(|dependency| of_dependency(name, text(dependency, "name"))));
        } else if !is_licence_fine(text(package, "license")) {
            complaints.push(format!("{name}: its licence is `{}`", text(package, "license")));
        }
    }
    Ok(complaints)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What is wrong with `ours` depending on `other`.
fn of_dependency(ours: &str, other: &str) -> Option<String> {
    let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(name, _)| *name == ours) else {
        return Some(format!("{ours}: say in {} what it may depend on", file!()));
    };
    let is_ours = MAY_DEPEND_ON.iter().any(|(name, _)| *name == other);
    let is_reserved = ONLY_FOR.iter().any(|(name, only)| *name == other && !only.contains(&ours));
    ((is_ours && !allowed.contains(&other)) || is_reserved).then(|| format!("{ours} must not depend on {other}"))
}

/// Whether an SPDX expression can be met: every part joined by AND by one of its choices.
fn is_licence_fine(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|choice| LICENCES.contains(&choice.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_one_way() {
        assert_eq!(of_dependency("simmim", "simmim-engine"), None);
        assert_eq!(of_dependency("simmim", "toml"), None);
        assert!(of_dependency("simmim-engine", "simmim-data").is_some());
        assert!(of_dependency("simmim-kernels", "simmim-engine").is_some());
        assert!(of_dependency("simmim", "clap").is_some());
        assert!(of_dependency("simmim-new", "toml").is_some());
    }

    #[test]
    fn licences_are_read_as_spdx_expressions() {
        for fine in
            ["MIT", "MIT OR Apache-2.0", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "GPL-2.0 OR MIT"]
        {
            assert!(is_licence_fine(fine), "{fine}");
        }
        for wrong in ["", "GPL-3.0", "MIT AND MPL-2.0"] {
            assert!(!is_licence_fine(wrong), "{wrong}");
        }
    }
}
