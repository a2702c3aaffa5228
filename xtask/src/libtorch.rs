//! The build with libtorch: an environment with PyTorch beside the build, the command linked with it, and its tests.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The release of PyTorch whose library the binding `tch` is for.
const TORCH: &str = "torch==2.13.0";

/// Time that the installation may take: it is a download of up to 3 GB.
const INSTALL_WITHIN: Duration = Duration::from_secs(600);

/// Packages with the feature, which is that of one of them.
const PACKAGES: &[&str] =
    &["-p", "simmim-libtorch", "-p", "simmim-cli", "--features", "simmim-cli/libtorch", "--locked"];

/// Tests of the backend, which run on any of its devices.
const TESTS: &[&str] = &["--test", "backend", "--test", "parity", "--test", "steps", "--test", "graphs"];

/// Builds the command with libtorch, for those who use it.
pub(crate) fn build(root: &Path) -> Result<()> {
    let python = environment(root)?;
    cargo(root, &python, &["build", "--release", "-p", "simmim-cli", "--features", "libtorch", "--locked"])?;
    eprintln!("built {}, which finds libtorch where it is now:", root.join("target/release/simmim").display());
    eprintln!("  {}", python.display());
    Ok(())
}

/// Runs the tests of the backend, with more arguments for cargo.
pub(crate) fn test(root: &Path, more: &[&str]) -> Result<()> {
    cargo(root, &environment(root)?, &[&["test"], PACKAGES, TESTS, more].concat())
}

/// Runs clippy and the tests of what is linked with libtorch. Where PyTorch cannot be installed, that is said, and is no
/// failure.
pub(crate) fn check(root: &Path) -> Result<()> {
    eprintln!("── libtorch");
    let started = Instant::now();
    let python = match environment(root) {
        Ok(python) => python,
        Err(error) => {
            eprintln!("── libtorch: NOT TESTED, because it cannot be installed here: {error:#}");
            return Ok(());
        }
    };
    cargo(root, &python, &[&["clippy", "--all-targets"], PACKAGES, &["--", "--deny", "warnings"]].concat())?;
    cargo(root, &python, &[&["test"], PACKAGES, TESTS, &["--lib", "--bins", "--test", "libtorch"]].concat())?;
    eprintln!("── libtorch: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// An interpreter that has PyTorch: that of the environment `SIMMIM_LIBTORCH_VENV`, or of one in the target folder, which is
/// made if it is not there.
fn environment(root: &Path) -> Result<PathBuf> {
    let folder = std::env::var_os("SIMMIM_LIBTORCH_VENV").map_or(root.join("target/libtorch"), PathBuf::from);
    let python = folder.join("bin/python3");
    let has_torch = |python: &Path| {
        let version =
            format!("import torch; assert torch.__version__.split('+')[0] == '{}'", &TORCH["torch==".len()..]);
        Command::new(python).args(["-c", &version]).output().is_ok_and(|ran| ran.status.success())
    };
    if !has_torch(&python) {
        ensure!(has_compiler(), "there is no C++ compiler");
        eprintln!("installing {TORCH} in {}", folder.display());
        within(INSTALL_WITHIN, Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        within(INSTALL_WITHIN, Command::new(&python).args(["-m", "pip", "install", "--quiet", TORCH, "numpy"]))?;
        ensure!(has_torch(&python), "{} cannot import {TORCH}", python.display());
    }
    Ok(python)
}

fn has_compiler() -> bool {
    let compiler = std::env::var_os("CXX").unwrap_or("c++".into());
    Command::new(compiler).arg("--version").output().is_ok_and(|ran| ran.status.success())
}

/// Runs a command that may take so long.
fn within(limit: Duration, command: &mut Command) -> Result<()> {
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{command:?} failed");
            return Ok(());
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} took more than {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs cargo where the build script of the binding finds this interpreter first.
fn cargo(root: &Path, python: &Path, arguments: &[&str]) -> Result<()> {
    let bin = python.parent().context("an interpreter lies in a folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path)))?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .current_dir(root)
        .env("PATH", path)
        .env("LIBTORCH_USE_PYTORCH", "1")
        .env_remove("VIRTUAL_ENV");
    ensure!(command.status()?.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}
