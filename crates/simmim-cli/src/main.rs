//! The `simmim` command as a program of its own.

#![forbid(unsafe_code)]

#[cfg(feature = "libtorch")]
mod launcher;

use std::process::ExitCode;

#[cfg(not(feature = "libtorch"))]
fn main() -> ExitCode {
    simmim_cli::main(std::env::args_os()).into()
}

#[cfg(feature = "libtorch")]
fn main() -> ExitCode {
    launcher::main()
}
