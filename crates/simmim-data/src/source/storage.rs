//! Where the bytes of archives come from: the one seam between their formats and files or remote stores.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::opened;
use crate::error::{Error, Result};

/// Bytes of a known length that several threads may read in any order.
///
/// A format of archives needs nothing else of the place where the archive lies. A remote store implements the same with
/// requests of ranges.
pub(crate) trait Storage: Send + Sync {
    /// What messages call it: a path or an address.
    fn path(&self) -> &Path;

    /// The number of bytes.
    fn len(&self) -> u64;

    /// Reads the bytes of a range.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the range ends behind the last byte, before any memory is taken; else what the system says.
    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>>;

    /// The same for bytes that others near them will follow, which may be read at once and kept for that.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    fn read_ahead(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.read(range)
    }

    /// Reads the file with this name in the same folder; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if it cannot be read.
    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>>;
}

/// A file on a local disk.
pub(crate) struct LocalFile {
    path: PathBuf,
    len: u64,
}

impl LocalFile {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let failed = |cause| Error::Read { path: path.to_owned(), cause };
        let len = opened(path)?.metadata().map_err(failed)?.len();
        Ok(Arc::new(Self { path: path.to_owned(), len }))
    }

    /// The file is opened for every read: so any number of archives stays below the limit of open files, and threads do not
    /// move each other's position.
    fn unchanged(&self) -> io::Result<File> {
        let file = opened(&self.path).map_err(|error| match error {
            Error::Read { cause, .. } => cause,
            error => io::Error::other(error.to_string()),
        })?;
        let now = file.metadata()?.len();
        match now == self.len {
            true => Ok(file),
            false => Err(io::Error::other(format!("it had {} bytes when it was opened and has {now} now", self.len))),
        }
    }
}

impl Storage for LocalFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let length = checked(&range, self.len)?;
        let mut file = self.unchanged()?;
        file.seek(SeekFrom::Start(range.start))?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.with_file_name(name);
        if path.exists() { super::read(&path).map(Some) } else { Ok(None) }
    }
}

/// Returns the length of a range of `len` bytes.
pub(super) fn checked(range: &Range<u64>, len: u64) -> io::Result<usize> {
    if range.start > range.end || range.end > len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// The bytes that a reader asks for first; it doubles them as long as it is read on, so that headers far apart cost little
/// and neighbors are read together.
const FIRST_READ: u64 = 4 << 10;
const LARGEST_READ: u64 = 256 << 10;

/// Reads a storage from the beginning, or from any other place.
#[derive(Clone)]
pub(crate) struct Reader {
    storage: Arc<dyn Storage>,
    position: u64,
    /// The bytes from `start` on.
    buffer: Vec<u8>,
    start: u64,
    next_read: u64,
    /// What is read first, if its length is known.
    expected: Option<u64>,
}

impl Reader {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, position: 0, buffer: Vec::new(), start: 0, next_read: FIRST_READ, expected: None }
    }

    /// A reader that will read about `bytes` bytes from `position` on, and gets them at once.
    pub(super) fn expecting(storage: Arc<dyn Storage>, position: u64, bytes: u64) -> Self {
        Self { position, start: position, expected: Some(bytes), ..Self::new(storage) }
    }

    /// A reader that begins at another place.
    pub(super) fn at(storage: Arc<dyn Storage>, position: u64) -> Self {
        Self { position, ..Self::new(storage) }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The number of bytes of the storage.
    pub(super) fn len(&self) -> u64 {
        self.storage.len()
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let end = self.start + self.buffer.len() as u64;
        if !(self.start..end).contains(&self.position) {
            let is_next = self.position == end;
            self.next_read = if is_next { (2 * self.next_read).min(LARGEST_READ) } else { FIRST_READ };
            let expected = self.expected.take();
            let bytes = expected.unwrap_or(self.next_read);
            let until = self.position.saturating_add(bytes).min(self.storage.len());
            self.start = self.position;
            self.buffer.clear();
            if self.position < until {
                let range = self.position..until;
                self.buffer = match expected {
                    Some(_) => self.storage.read(range)?,
                    None => self.storage.read_ahead(range)?,
                };
            }
        }
        Ok(&self.buffer[(self.position - self.start) as usize..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count as u64;
    }
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.storage.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Bytes in memory, for tests of formats, and what every storage must do.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::source) struct InMemory(pub(in crate::source) Vec<u8>);

    impl Storage for InMemory {
        fn path(&self) -> &Path {
            Path::new("memory")
        }

        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
            checked(&range, Storage::len(self))?;
            Ok(self.0[range.start as usize..range.end as usize].to_vec())
        }

        fn beside(&self, _: &str) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }
    }

    /// Reads ranges, and through a reader.
    pub(in crate::source) fn check_storage(storage: Arc<dyn Storage>, content: &[u8]) {
        assert_eq!(storage.len(), content.len() as u64);
        assert_eq!(storage.read(3..7).unwrap(), &content[3..7]);
        assert!(storage.read(0..0).unwrap().is_empty());
        for range in [content.len() as u64 - 1..content.len() as u64 + 1, 0..u64::MAX, Range { start: 2, end: 1 }] {
            assert_eq!(storage.read(range).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        let mut reader = Reader::new(storage);
        let mut whole = Vec::new();
        reader.read_to_end(&mut whole).unwrap();
        assert!(whole == content);
        for start in [content.len() - 5, 0, 70_000, 70_003, 9] {
            let mut five = [0; 5];
            reader.seek(SeekFrom::Start(start as u64)).unwrap();
            reader.read_exact(&mut five).unwrap();
            assert_eq!(five, content[start..start + 5]);
        }
        reader.seek(SeekFrom::End(10)).unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0, "behind the end there is nothing");
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{InMemory, check_storage};
    use super::*;

    #[test]
    fn files_and_memory_are_read_alike() {
        let content: Vec<u8> = (0..1_000_003_u32).map(|at| ((at * 7) >> 3) as u8).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, &content).unwrap();
        check_storage(LocalFile::open(&path).unwrap(), &content);
        check_storage(Arc::new(InMemory(content.clone())), &content);
    }

    #[test]
    fn a_file_that_changes_its_length_or_disappears_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, [1; 100]).unwrap();
        let file = LocalFile::open(&path).unwrap();
        for now in [99, 101] {
            std::fs::write(&path, vec![1; now]).unwrap();
            let error = file.read(0..10).unwrap_err().to_string();
            assert!(error.contains(&format!("had 100 bytes when it was opened and has {now} now")), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.read(0..10).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
