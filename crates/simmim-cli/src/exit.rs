//! Exit codes and the output of errors.

use crate::terminal;
use std::process::ExitCode;

/// The exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// The run failed.
    Failed = 1,
    /// Invalid usage, recipe or input.
    Usage = 2,
    /// Interrupted; the same command resumes the run.
    Interrupted = 130,
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The exit code of a command that failed at one thing and then at another: that of a failure of the machine counts more
/// than that of a wrong input.
pub(crate) fn worse(first: Exit, second: Exit) -> Exit {
    match (first, second) {
        (Exit::Done, second) => second,
        (first, Exit::Done | Exit::Usage) => first,
        (_, second @ (Exit::Failed | Exit::Interrupted)) => second,
    }
}

/// Prints an error and its hint to stderr; returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    terminal::line(&format!("error: {error:#}"));
    let library_error = error.downcast_ref::<simmim::Error>();
    if let Some(hint) = library_error.and_then(simmim::Error::hint) {
        terminal::line(&format!("hint: {hint}"));
    }
    match library_error {
        Some(error) if !error.is_users_fault() => Exit::Failed,
        Some(_) => Exit::Usage,
        None => Exit::Failed,
    }
}
