//! Rules on what may depend on what, and under which licenses, read from `cargo metadata`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What each crate of the workspace may depend on among the others, tests aside.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("simmim-kernels", &[]),
    ("simmim-engine", &[]),
    ("simmim-cpu", &["simmim-engine", "simmim-kernels"]),
    ("simmim-libtorch", &["simmim-engine"]),
    ("simmim-data", &[]),
    ("simmim-onnx", &["simmim-engine"]),
    ("simmim-mpi", &["simmim-engine"]),
    ("simmim", &["simmim-engine", "simmim-data", "simmim-onnx"]),
    ("simmim-cli", &["simmim", "simmim-cpu", "simmim-data", "simmim-engine", "simmim-libtorch", "simmim-mpi"]),
    ("simmim-python", &["simmim", "simmim-cli", "simmim-cpu", "simmim-data", "simmim-engine"]),
    ("xtask", &[]),
];

/// Crates that only some of ours may depend on: libraries neither parse arguments, nor draw, nor handle signals, nor
/// return errors without a type.
const ONLY_FOR: &[(&str, &[&str])] = &[
    ("anyhow", &["simmim-cli", "xtask"]),
    ("clap", &["simmim-cli"]),
    ("ctrlc", &["simmim-cli"]),
    ("indicatif", &["simmim-cli"]),
    ("mpi", &["simmim-mpi"]),
    ("pyo3", &["simmim-python"]),
];

/// Licenses that ask for no more than their text, or, with IJG, for a sentence that the README has; of a choice, one of
/// these is enough.
const LICENSES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "IJG",
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
            let code = code_of(Path::new(text(package, "manifest_path")))?;
            let names = dependencies.iter().map(|dependency| text(dependency, "name"));
            let unused = names.filter(|dependency| !is_used(dependency, &code));
            complaints.extend(unused.map(|dependency| format!("{name}: nothing uses its dependency {dependency}")));
        } else if !is_license_fine(text(package, "license")) {
            complaints.push(format!("{name}: its license is `{}`", text(package, "license")));
        }
    }
    Ok(complaints)
}

/// All Rust code of the package with this manifest.
fn code_of(manifest: &Path) -> Result<String> {
    let mut code = String::new();
    let folder = manifest.parent().context("a manifest lies in a folder")?;
    for part in ["src", "tests", "benches", "examples"].map(|part| folder.join(part)) {
        if part.is_dir() {
            append_code(&part, &mut code)?;
        }
    }
    let script = folder.join("build.rs");
    if script.is_file() {
        code += &std::fs::read_to_string(&script)?;
    }
    Ok(code)
}

fn append_code(folder: &Path, code: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            append_code(&path, code)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            // tests that two crates share lie in the folder of one of them
            for elsewhere in text.lines().filter_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]")) {
                *code += &std::fs::read_to_string(folder.join(elsewhere))?;
            }
            *code += &text;
        }
    }
    Ok(())
}

/// Whether code names a crate, in a path, an import or an attribute.
fn is_used(dependency: &str, code: &str) -> bool {
    let name = dependency.replace('-', "_");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(&name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        !before.ends_with(is_word)
            && (after.starts_with("::")
                || before.ends_with("use ")
                || before.ends_with("#[")
                || before.ends_with("#[derive("))
    })
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
fn is_license_fine(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|choice| LICENSES.contains(&choice.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_one_way() {
        assert_eq!(of_dependency("simmim", "simmim-engine"), None);
        assert!(of_dependency("simmim", "simmim-cpu").is_some());
        assert!(of_dependency("simmim-engine", "simmim-kernels").is_some());
        assert_eq!(of_dependency("simmim", "toml"), None);
        assert!(of_dependency("simmim-engine", "simmim-data").is_some());
        assert!(of_dependency("simmim-kernels", "simmim-engine").is_some());
        assert!(of_dependency("simmim", "clap").is_some());
        assert!(of_dependency("simmim-new", "toml").is_some());
    }

    #[test]
    fn a_dependency_is_used_where_code_names_it() {
        for code in ["use tar::Builder;", "let b = tar::Builder::new();", "use tar;"] {
            assert!(is_used("tar", code), "{code}");
        }
        assert!(is_used("half-float", "half_float::f16"));
        for code in ["use star::Builder;", "// of a tar file", "let tar = 1;"] {
            assert!(!is_used("tar", code), "{code}");
        }
    }

    #[test]
    fn licenses_are_read_as_spdx_expressions() {
        for fine in
            ["MIT", "MIT OR Apache-2.0", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "GPL-2.0 OR MIT"]
        {
            assert!(is_license_fine(fine), "{fine}");
        }
        for wrong in ["", "GPL-3.0", "MIT AND MPL-2.0"] {
            assert!(!is_license_fine(wrong), "{wrong}");
        }
    }
}
