//! Everything that must hold before a change is merged, cheapest first, stopping at the first failure.

use crate::{crates, tidy};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The examples of the library, each of which runs in seconds without arguments.
const EXAMPLES: &[&str] = &["pretrain_folder", "image_features", "own_mask", "own_head"];

/// Parts of the program that are not in the default build and are checked too.
const FEATURES: &[&str] = &["--features", "simmim-cli/remote,simmim-cli/hub"];

/// The Python package, which wants Python: `CONTRIBUTING.md` says how it is tested.
const WITHOUT_PYTHON: [&str; 2] = ["--exclude", "simmim-python"];

/// Runs all checks.
pub(crate) fn check(root: &Path) -> Result<()> {
    step("format", || cargo(root, &["fmt", "--all", "--check"], &[]))?;
    tidy(root)?;
    let warnings = ["--", "--deny", "warnings"];
    let of_all = |command: &'static str| [&[command, "--workspace", "--locked"], &WITHOUT_PYTHON[..]].concat();
    step("clippy", || cargo(root, &[&of_all("clippy")[..], &["--all-targets"], FEATURES, &warnings].concat(), &[]))?;
    step("tests", || cargo(root, &[&of_all("test")[..], FEATURES].concat(), &[]))?;
    for example in EXAMPLES {
        let run = ["run", "--quiet", "--package", "simmim", "--locked", "--example", example];
        step(&format!("example {example}"), || cargo(root, &run, &[]))?;
    }
    let doc = [&of_all("doc")[..], &["--no-deps"]].concat();
    step("documentation", || cargo(root, &doc, &[("RUSTDOCFLAGS", "--deny warnings")]))
}

/// Runs the checks of what wants an MPI library. Its tests start `mpirun`.
pub(crate) fn mpi(root: &Path) -> Result<()> {
    let both = ["--package", "simmim-mpi", "--package", "simmim-cli", "--features", "simmim-cli/mpi", "--locked"];
    let clippy = [&["clippy", "--all-targets"], &both[..], &["--", "--deny", "warnings"]].concat();
    step("clippy with MPI", || cargo(root, &clippy, &[]))?;
    let of_crate = ["test", "--package", "simmim-mpi", "--features", "mpi", "--locked"];
    step("tests of ranks", || cargo(root, &of_crate, &[]))?;
    let of_command = ["test", "--package", "simmim-cli", "--features", "mpi", "--test", "mpi", "--locked"];
    step("tests of the command on ranks", || cargo(root, &of_command, &[]))
}

/// Runs the checks that compile nothing.
pub(crate) fn tidy(root: &Path) -> Result<()> {
    step("tidy", || no_complaints(&tidy::complaints(root)?))?;
    step("dependencies", || no_complaints(&crates::complaints(root)?))
}

/// Says what runs and how long it took, so that a slow step is seen.
fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("── {name}");
    let started = Instant::now();
    run().with_context(|| format!("{name} failed"))?;
    eprintln!("── {name}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo).args(arguments).envs(environment.iter().copied()).current_dir(root).status()?;
    ensure!(status.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}

fn no_complaints(complaints: &[String]) -> Result<()> {
    ensure!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    Ok(())
}
