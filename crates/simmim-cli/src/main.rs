//! The `simmim` command: parses arguments, calls the library, and returns an exit code.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod counting;
mod device;
mod exit;
#[cfg(feature = "hub")]
mod hub;
#[cfg(not(feature = "hub"))]
#[path = "no_hub.rs"]
mod hub;
mod interrupt;
mod paths;
mod progress;
mod terminal;
mod unused;

use clap::Parser;
use cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let ran = hub::fetch(&mut cli).map_err(Into::into).and_then(|()| device::run(&cli));
    match ran {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error).into(),
    }
}
