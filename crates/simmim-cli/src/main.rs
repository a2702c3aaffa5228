//! The `simmim` command as a program of its own.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    simmim_cli::main(std::env::args_os()).into()
}
