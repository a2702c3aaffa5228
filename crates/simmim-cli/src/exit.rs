//! Exit codes, and how an error is shown: once, with its hint.

use std::process::ExitCode;

/// What the process says at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// The run failed.
    Failed = 1,
    /// Bad usage, recipe or input.
    Usage = 2,
    /// Interrupted; the same command goes on.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Prints an error to stderr and says whose fault it was.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    eprintln!("error: {error:#}");
    let ours = error.downcast_ref::<simmim::Error>();
    if let Some(hint) = ours.and_then(simmim::Error::hint) {
        eprintln!("hint: {hint}");
    }
    match ours {
        Some(error) if !error.is_users_fault() => Exit::Failed,
        Some(_) => Exit::Usage,
        None => Exit::Failed,
    }
}
