//! Chores of the repository: `cargo xtask check` is what contributors and CI run.

#![forbid(unsafe_code)]

mod check;
mod crates;
mod libtorch;
mod tidy;

use anyhow::{Result, bail};
use std::path::Path;

const USAGE: &str = "usage: cargo xtask COMMAND

  check   format, tidiness, dependencies, clippy, tests, documentation
  tidy    only tidiness and dependencies: seconds, nothing is compiled
  mpi     clippy and tests of what wants an MPI library, which `check` leaves out
  libtorch         builds the command with libtorch, which it installs in target/libtorch: 5 GB
  libtorch test [ARGUMENTS OF CARGO]   tests of the backend, on the device that SIMMIM_LIBTORCH_DEVICE names
  libtorch check   clippy and tests of that; says so where libtorch cannot be installed";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check::check(root),
        ["mpi"] => check::mpi(root),
        ["tidy"] => check::tidy(root),
        ["libtorch"] => libtorch::build(root),
        ["libtorch", "test", ref more @ ..] => libtorch::test(root, more),
        ["libtorch", "check"] => libtorch::check(root),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}
