//! Zip archives of images, with or without folders for the classes. Nothing is unpacked to disk.

use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::zip::read::{ZipArchive, ZipArchiveMetadata, ZipFileEntry};
use ::zip::result::ZipError;
use ::zip::{CompressionMethod, ZipReadOptions};

use super::class_folders::ClassFolders;
use super::hugging_face::check_one_split_below;
use super::passed_over::PassedOverReason;
use super::storage::{Reader, Storage};
use super::{PassedOver, Source, by_path, check_encoded, is_ignored, is_image};
use crate::encoded::Encoded;
use crate::error::{Error, Result, panic_message};

pub(super) struct Zip {
    storage: Arc<dyn Storage>,
    directory: Arc<ZipArchiveMetadata>,
    /// The number of the entry in the directory and the name of every image, ordered by path.
    images: Vec<(usize, String)>,
    folders: ClassFolders,
    channels: usize,
    passed_over: PassedOver,
}

impl Zip {
    pub(super) fn of(storage: Arc<dyn Storage>, channels: usize) -> Result<Self> {
        let path = storage.path().to_owned();
        let reader = Reader::new(Arc::clone(&storage));
        let archive = guarded(|| ZipArchive::new(reader)).map_err(|fault| match fault {
            Fault::Read(cause) => Error::Read { path: path.clone(), cause },
            Fault::Invalid(what) => Error::BadArchive { name: path.display().to_string(), what },
        })?;
        let directory = archive.metadata();
        let (mut images, mut folders, mut passed_over) = (Vec::new(), Vec::new(), PassedOver::new());
        if directory.has_duplicate_names() {
            passed_over.add(path.display(), PassedOverReason::SameName);
        }
        for number in 0..directory.len() {
            let entry = directory.entry(number).map_err(|error| bad_archive(&path, error))?;
            let name = portable(&entry);
            match reason_against(&entry, &name) {
                Some(reason) => passed_over.add(format_args!("{}:{name}", path.display()), reason),
                None if entry.is_dir() => folders.push(name),
                None => images.push((number, name)),
            }
        }
        if images.is_empty() {
            return Err(Error::NoSamples { path, passed_over });
        }
        images.sort_by(|first, second| by_path(&first.1, &second.1));
        let names: Vec<String> = images.iter().map(|(_, name)| name.clone()).collect();
        check_one_split_below(&path, names.iter().map(Path::new))?;
        let folders = ClassFolders::of(&names, &folders);
        Ok(Self { storage, directory, images, folders, channels, passed_over })
    }

    /// Reads the content of an entry, after its sizes have been checked.
    fn content(&self, number: usize, name: &str) -> Result<Vec<u8>> {
        let bad = |what: String| Error::BadArchive { name: name.to_owned(), what };
        let entry = self.directory.entry(number).map_err(|error| bad(error.to_string()))?;
        let (size, compressed) = (entry.size(), entry.compressed_size());
        check_encoded(size, name)?;
        if compressed > self.storage.len() {
            return Err(bad(format!("it claims {compressed} bytes, more than the archive has")));
        }
        // deflate makes nothing longer by more than this, and a file may claim any length
        let expected = HEADER + compressed.min(size + LONGER);
        let mut reader = Reader::expecting(Arc::clone(&self.storage), entry.header_start(), expected);
        let read = guarded(|| {
            let mut bytes = Vec::new();
            let file = entry.with_reader(&mut reader, ZipReadOptions::new())?;
            // no memory is taken for what is only claimed, and nothing is read beyond it
            file.take(size + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) if bytes.len() as u64 == size => Ok(bytes),
            Ok(bytes) if bytes.len() as u64 > size => {
                Err(bad(format!("it holds more than the {size} bytes that it claims")))
            }
            Ok(bytes) => Err(bad(format!("it holds {} bytes and claims {size}", bytes.len()))),
            Err(Fault::Read(cause)) => Err(Error::Read { path: name.into(), cause }),
            Err(Fault::Invalid(what)) => Err(bad(what)),
        }
    }
}

impl Source for Zip {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        &self.folders.classes
    }

    fn name(&self, index: usize) -> String {
        format!("{}:{}", self.storage.path().display(), self.images[index].1)
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let name = self.name(index);
        Ok(Encoded::file(self.content(self.images[index].0, &name)?, self.channels, name))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.folders.labels.get(index).copied()
    }

    fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    fn why_unlabeled(&self) -> Option<Error> {
        let image = self.name(self.folders.stray?).into();
        Some(Error::NotInClassFolder { image, folder: self.storage.path().to_owned() })
    }
}

/// Why an entry is no image; `None` for an image or a folder.
fn reason_against(entry: &ZipFileEntry<'_>, name: &str) -> Option<PassedOverReason> {
    if name.split('/').any(is_ignored) {
        return Some(PassedOverReason::Hidden);
    }
    if entry.is_dir() {
        return None;
    }
    if entry.is_symlink() {
        return Some(PassedOverReason::Link);
    }
    let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if !is_image(&extension) {
        return Some(PassedOverReason::of_extension(&extension));
    }
    if entry.encrypted() {
        return Some(PassedOverReason::Encrypted);
    }
    let is_read = matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated);
    (!is_read).then_some(PassedOverReason::Compression)
}

/// The name of an entry with slashes; some programs for Windows write the others. It is never a path on this machine.
fn portable(entry: &ZipFileEntry<'_>) -> String {
    let name =
        entry.name().map_or_else(|_| String::from_utf8_lossy(entry.name_raw()).into_owned(), |name| name.into_owned());
    if name.contains('/') { name } else { name.replace('\\', "/") }
}

/// The header of an entry has 30 bytes and its name, and what programs add (APPNOTE.TXT, 4.3.7); a longer one costs one
/// more read.
const HEADER: u64 = 512;
const LONGER: u64 = 256 << 10;

enum Fault {
    Read(std::io::Error),
    Invalid(String),
}

/// Runs the reader of zip files; its panics on a broken file are errors of this file.
fn guarded<T>(read: impl FnOnce() -> ::zip::result::ZipResult<T>) -> std::result::Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ZipError::Io(cause))) => match cause.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Other => {
                Err(Fault::Invalid(cause.to_string()))
            }
            std::io::ErrorKind::UnexpectedEof => Err(Fault::Invalid("it ends early".to_owned())),
            _ => Err(Fault::Read(cause)),
        },
        Ok(Err(error)) => Err(Fault::Invalid(error.to_string())),
        Err(payload) => Err(Fault::Invalid(format!("the reader of zip files panicked: {}", panic_message(&*payload)))),
    }
}

fn bad_archive(path: &Path, error: ZipError) -> Error {
    Error::BadArchive { name: path.display().to_string(), what: error.to_string() }
}
