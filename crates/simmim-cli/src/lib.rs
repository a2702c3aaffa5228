//! The `simmim` command: parses arguments, calls the library, and returns an exit code.
//!
//! It is a library so that what is not a program, such as a package of Python, has the same command.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod counting;
mod device;
mod exit;
mod hub;
mod interrupt;
mod paths;
mod progress;
mod ranks;
mod terminal;
mod unused;

pub use exit::Exit;

use clap::Parser;
use cli::Cli;
use std::ffi::OsString;
use std::io::Write;

/// Runs the command with these arguments, of which the first is its own name. What it says goes to stdout and stderr.
///
/// From the first training on, it handles SIGINT, SIGTERM, SIGHUP and SIGUSR1 for the whole process, and ends it at the second
/// one, unless that is SIGUSR1 or the process is one of several ranks.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let exit = match Cli::try_parse_from(arguments) {
        Ok(mut cli) => {
            let ran = hub::fetch(&mut cli).map_err(Into::into).and_then(|()| device::run(&mut cli));
            ran.unwrap_or_else(|error| exit::report(&error))
        }
        Err(answer) => {
            // help and version too; who does not read them does not miss them
            let _ = answer.print();
            if answer.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    // a caller that is no program of Rust does not flush it
    let _ = std::io::stdout().flush();
    exit
}
