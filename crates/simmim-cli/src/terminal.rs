//! Lines on stderr: progress, warnings and errors.
//!
//! A stderr that is closed, full or read by nobody costs nothing but its lines, and control characters of file names do
//! not reach a terminal. Of several ranks only the first one speaks there; the others write to files in the run folder.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Folder of the files of the other ranks, in the run folder.
const RANKS_FOLDER: &str = "ranks";

/// Where lines of this process go.
static VOICE: Mutex<Voice> = Mutex::new(Voice::Stderr);

enum Voice {
    Stderr,
    /// Kept for the file of this rank, as the run folder is not there yet.
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "a process alone speaks itself"))]
    Held {
        rank: usize,
        lines: Vec<String>,
    },
    File(File),
    /// The file cannot be written.
    Nowhere,
}

/// Writes a line to stderr, or to the file of this rank; a failure to write is ignored, because a run must not end for it.
pub(crate) fn line(text: &str) {
    let text = escaped(text);
    match &mut *voice() {
        Voice::Stderr => drop(writeln!(std::io::stderr().lock(), "{text}")),
        Voice::Held { lines, .. } => lines.push(text),
        Voice::File(file) => drop(writeln!(file, "{text}")),
        Voice::Nowhere => {}
    }
}

/// Writes a line to stderr, whichever rank this is, and to its file if it has one.
#[cfg(feature = "mpi")]
pub(crate) fn shout(text: &str) {
    line(text);
    if is_held() {
        let _ = writeln!(std::io::stderr().lock(), "{}", escaped(text));
    }
}

/// Keeps all lines from here on for the file of this rank, which is not the first one.
#[cfg(feature = "mpi")]
pub(crate) fn hold(rank: usize) {
    *voice() = Voice::Held { rank, lines: Vec::new() };
}

/// Begins the file of this rank in the run folder, if lines are held.
pub(crate) fn begin_log(run: &Path) {
    let mut voice = voice();
    let Voice::Held { rank, lines } = &*voice else { return };
    let folder = run.join(RANKS_FOLDER);
    let path = folder.join(format!("rank-{rank}.log"));
    let file = fs::create_dir_all(&folder).and_then(|()| File::options().create(true).append(true).open(path));
    *voice = match file {
        Ok(mut file) => {
            lines.iter().for_each(|line| drop(writeln!(file, "{line}")));
            Voice::File(file)
        }
        Err(_) => Voice::Nowhere,
    };
}

/// Whether another rank speaks for this one.
pub(crate) fn is_held() -> bool {
    match &*voice() {
        Voice::Stderr => false,
        Voice::Held { .. } | Voice::File(_) | Voice::Nowhere => true,
    }
}

/// Whether lines go to a terminal.
pub(crate) fn is_terminal() -> bool {
    !is_held() && std::io::stderr().is_terminal()
}

fn voice() -> MutexGuard<'static, Voice> {
    VOICE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text with its control characters but tabs, line breaks among them, written as escapes.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert_eq!(escaped("naïve ·\u{1b}[31m\nerror"), "naïve ·\\u{1b}[31m\\nerror");
    }
}
