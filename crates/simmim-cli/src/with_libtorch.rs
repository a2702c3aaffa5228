//! The `simmim` command, linked with libtorch: `simmim` starts it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    simmim_cli::main(std::env::args_os()).into()
}
