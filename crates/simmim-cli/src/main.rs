//! The `simmim` command: parses arguments, calls the library, and returns an exit code.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod counting;
mod device;
mod exit;
mod interrupt;
mod paths;
mod progress;
mod terminal;
mod unused;

use clap::Parser;
use cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match device::run(&cli) {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error).into(),
    }
}
