//! Files that are there whole or not at all, and errors that name them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces `path` by `bytes`: written beside it, flushed to the disk, then renamed.
///
/// # Errors
/// If writing or renaming fails; the message names `path`, and what was there before still is.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_added_extension("partial");
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // best effort: what matters is the error that brought us here
        let _ = fs::remove_file(&partial);
        with_path(error, path)
    })
}

/// Flushes a folder's list of names to the disk.
///
/// # Errors
/// If the system refuses; the message names the folder.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| with_path(e, path))
}

/// The same kind of error with the path in front of its message.
pub(crate) fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}
