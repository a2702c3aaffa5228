//! Atomic file writes, and I/O errors that name the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces the content of `path` with `bytes`: writes a temporary file next to it, flushes it to the disk and renames
/// it.
///
/// # Errors
/// If writing or renaming fails; the message names `path`, whose previous content is unchanged.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_added_extension("partial");
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // if this fails too, the first error matters more
        let _ = fs::remove_file(&partial);
        with_path(error, path)
    })
}

/// Flushes a folder's entries to the disk, so that a rename in it survives a crash.
///
/// # Errors
/// If flushing fails; the message names the folder.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| with_path(e, path))
}

/// An error of the same kind whose message starts with the path.
pub(crate) fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}
