//! Atomic file writes, and I/O errors that name the file.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Replaces the content of `path` with `bytes`; see [`replace`].
///
/// # Errors
/// If writing or renaming fails; the message names `path`, whose previous content is unchanged.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |partial| fs::write(partial, bytes))
}

/// Replaces the content of `path` with what `write` writes to the temporary file whose path it gets: a file next to
/// `path`, which is flushed to the disk and renamed. It gets the mode of a new file, which follows the umask, also if
/// `write` puts a file of another mode in its place, as the `safetensors` crate does. Several processes may replace the
/// same file at once: the last one wins.
///
/// # Errors
/// If writing or renaming fails; the message names `path`, whose previous content is unchanged.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let (file, partial) = create_beside(path).map_err(|error| with_path(error, path))?;
    let replaced = file.metadata().and_then(|new| {
        drop(file); // some systems do not rename an open file
        write(&partial)?;
        fs::set_permissions(&partial, new.permissions())?;
        File::options().write(true).open(&partial)?.sync_all()?;
        fs::rename(&partial, path)
    });
    replaced.map_err(|error| {
        // free the space; if this fails too, the first error matters more
        let _ = fs::remove_file(&partial);
        with_path(error, path)
    })
}

/// Creates a hidden file in the folder of `path`. Its name is short, because that of `path` may be as long as the file
/// system allows, and differs from those of other threads and processes.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_file_name(format!("{PARTIAL}{}-{number}", std::process::id()));
        match File::create_new(&partial) {
            // of a process with the same id: one that was killed, or one on another machine
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => return Ok((created?, partial)),
        }
    }
}

/// The start of the names of temporary files; the id of the process follows, and a number.
const PARTIAL: &str = ".partial-";

/// Removes the temporary files in a folder whose processes are gone, having been killed while they wrote, and that
/// nothing has changed for `age`: a process on another machine may share the folder. Failures are ignored, because the
/// files are only in the way.
pub(crate) fn remove_leftovers(folder: &Path, age: Duration) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PARTIAL)?.split('-').next()?.parse().ok());
        let since = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = since.is_ok_and(|since| since.elapsed().is_ok_and(|elapsed| elapsed >= age));
        if is_old && process.is_some_and(|process: u32| !is_running(process)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a process of this machine has this id; where that cannot be told, it counts as running.
fn is_running(process: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(process.to_string()).exists()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a folder.
    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn two_that_replace_one_file_at_once_both_succeed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let outer = replace(&path, |partial| {
            write_atomically(&path, b"inner")?;
            fs::write(partial, b"outer")
        });
        outer.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"outer", "the last one wins, and neither writes into the other's file");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_temporary_file_of_a_process_with_the_same_id_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (_, first) = create_beside(&path).unwrap();
        let number: u64 = first.to_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        // other tests may take numbers meanwhile, but hardly a hundred
        let taken = |n| folder.path().join(format!(".partial-{}-{n}", std::process::id()));
        (number + 1..number + 100).for_each(|n| drop(File::create(taken(n)).unwrap()));
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()).len(), 101, "all of them, and the file");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_a_process_left_that_is_gone_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let gone = u32::MAX; // no process has such an id
        let own = format!("{PARTIAL}{}-0", std::process::id());
        let kept = [own.as_str(), ".partial-x-0", ".partial-", "partial-1-0", "weights.safetensors"];
        for name in kept.into_iter().chain([format!("{PARTIAL}{gone}-3").as_str()]) {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        remove_leftovers(folder.path(), Duration::from_secs(3600));
        assert_eq!(names(folder.path()).len(), 6, "a process of another machine may still write it");
        remove_leftovers(folder.path(), Duration::ZERO);
        let (mut left, mut kept) = (names(folder.path()), kept.map(str::to_owned).to_vec());
        left.sort();
        kept.sort();
        assert_eq!(left, kept);
        remove_leftovers(&folder.path().join("absent"), Duration::ZERO);
    }

    #[cfg(unix)]
    #[test]
    fn a_name_may_be_as_long_as_the_file_system_allows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255)); // NAME_MAX of all common file systems
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_failed_write_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, b"old").unwrap();
        let error = replace(&path, |partial| {
            fs::write(partial, b"half")?;
            Err(io::Error::new(ErrorKind::StorageFull, "full"))
        });
        let error = error.unwrap_err();
        assert!(error.kind() == ErrorKind::StorageFull && error.to_string().contains("file"), "{error}");
        assert_eq!((fs::read(&path).unwrap().as_slice(), names(folder.path()).len()), (b"old".as_slice(), 1));
    }
}
