//! The zip archive of `torch.save`: stored entries only, as torch writes them, so that nothing in it is larger than the
//! file.

use super::TorchFault;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use zip::result::{ZipError, ZipResult};
use zip::{CompressionMethod, ZipArchive};

/// The most bytes of a pickle that are read. Those of published checkpoints, optimizer included, have less than 1 MiB.
const MAX_PICKLE: usize = 16 << 20;

pub(super) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The one folder that all entries lie in.
    folder: String,
    length: u64,
}

impl Archive {
    /// Opens the archive in a file.
    ///
    /// # Errors
    /// If it is none, has no pickle, or is of a machine with the other order of bytes.
    pub(super) fn open(file: File) -> Result<Self, TorchFault> {
        let length = file.metadata().map_err(|error| TorchFault::Archive(error.to_string()))?.len();
        let zip = guarded(|| ZipArchive::new(BufReader::new(file)))?;
        let names = zip.file_names().flatten();
        let folders = names.filter_map(|name| name.strip_suffix("/data.pkl").map(str::to_owned));
        let folders: Vec<String> = folders.filter(|folder| !folder.contains('/')).collect();
        let [folder] = &folders[..] else {
            return Err(TorchFault::Archive(format!("it has {} entries `…/data.pkl`", folders.len())));
        };
        let mut archive = Self { folder: folder.clone(), zip, length };
        let order = format!("{folder}/byteorder");
        if archive.zip.index_for_name(&order).is_some() {
            let mut found = Vec::new();
            archive.read(&order, MAX_PICKLE as u64, &mut found)?;
            if found != b"little" {
                return Err(TorchFault::Archive("its byte order is not `little`".into()));
            }
        }
        Ok(archive)
    }

    /// Length of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// The pickle.
    ///
    /// # Errors
    /// If it is damaged or too large.
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>, TorchFault> {
        let mut bytes = Vec::new();
        self.read(&format!("{}/data.pkl", self.folder), MAX_PICKLE as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// Appends the bytes of a storage to `bytes`.
    ///
    /// # Errors
    /// If it is not there, damaged, or of another length.
    pub(super) fn storage(&mut self, key: &str, length: u64, bytes: &mut Vec<u8>) -> Result<(), TorchFault> {
        let fault = |what: String| TorchFault::Storage { key: key.to_owned(), what };
        let (start, name) = (bytes.len(), format!("{}/data/{key}", self.folder));
        if self.zip.index_for_name(&name).is_none() {
            return Err(fault("is not in the file".into()));
        }
        self.read(&name, length, bytes)?;
        match (bytes.len() - start) as u64 {
            found if found == length => Ok(()),
            found => Err(fault(format!("has {found} bytes, and its tensors need {length}"))),
        }
    }

    /// Appends an entry of at most `most` bytes to `bytes`.
    fn read(&mut self, name: &str, most: u64, bytes: &mut Vec<u8>) -> Result<(), TorchFault> {
        let length = self.length;
        let refused = |what: String| TorchFault::Archive(format!("`{name}` {what}"));
        guarded(|| {
            let entry = self.zip.by_name(name)?;
            let (size, is_stored) = (entry.size(), entry.compression() == CompressionMethod::Stored);
            if !is_stored {
                return Ok(Err(refused("is compressed, which torch never does".into())));
            }
            if size > length.min(most) {
                return Ok(Err(refused(format!("claims {size} bytes, and {} are possible", length.min(most)))));
            }
            // one byte more, so that the end is reached, at which the checksum is compared
            match entry.take(size + 1).read_to_end(bytes)? {
                found if found as u64 == size => Ok(Ok(())),
                found => Ok(Err(refused(format!("has {found} bytes, and claims {size}")))),
            }
        })?
    }
}

/// Runs the reader of zip files; its panics on a broken file are errors of this file.
fn guarded<T>(read: impl FnOnce() -> ZipResult<T>) -> Result<T, TorchFault> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ZipError::Io(cause))) => Err(TorchFault::Archive(cause.to_string())),
        Ok(Err(error)) => Err(TorchFault::Archive(error.to_string())),
        Err(_) => Err(TorchFault::Archive("the reader of zip files panicked".into())),
    }
}
