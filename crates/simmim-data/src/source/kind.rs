//! What a path is: a folder, a kind of file that is told by its name, or something that is neither.

use std::fs::{File, FileType, metadata};
use std::io::Read as _;
use std::path::Path;

use super::is_image;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// A tar file, compressed by gzip or not.
    Shard,
    Zip,
    Parquet,
    /// A list of images.
    List,
    Image,
    Idx,
    /// A pipe, a socket or a device, whatever its name. To open one may take forever.
    Special(&'static str),
}

impl Kind {
    /// Returns what `path` or the target of this link is; `None` for a file that cannot be read as data.
    pub(super) fn of(path: &Path) -> Option<Self> {
        Self::of_type(path, metadata(path).ok().map(|metadata| metadata.file_type()))
    }

    /// The same for a known type of file; `None` is a link to nothing, which is told by its name.
    pub(super) fn of_type(path: &Path, file_type: Option<FileType>) -> Option<Self> {
        if file_type.is_some_and(|file_type| file_type.is_dir()) {
            return Some(Self::Folder);
        }
        if let Some(what) = file_type.and_then(special) {
            return Some(Self::Special(what));
        }
        Self::of_name(path)
    }

    /// The same by the name alone, as of a file.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if extension == "tar" || is_compressed_tar(&name) {
            Some(Self::Shard)
        } else if extension == "zip" {
            Some(Self::Zip)
        } else if extension == "parquet" {
            Some(Self::Parquet)
        } else if ["csv", "tsv", "jsonl"].contains(&extension.as_str()) {
            Some(Self::List)
        } else if is_image(&extension) {
            Some(Self::Image)
        } else if name.ends_with("idx3-ubyte") || name.ends_with("idx3-ubyte.gz") {
            Some(Self::Idx)
        } else if extension.bytes().all(|byte| byte.is_ascii_digit()) && name != "dicomdir" && holds_dicom(path) {
            Some(Self::Image)
        } else {
            None
        }
    }
}

/// Whether a file begins as DICOM files do, which have no extension as a rule, or what looks like one at the end of an
/// identifier such as `1.2.840.10008`.
fn holds_dicom(path: &Path) -> bool {
    let mut start = [0; 132];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start.ends_with(b"DICM")
}

/// Whether a name is that of a tar file that is compressed by gzip.
pub(super) fn is_compressed_tar(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".tar.gz") || name.ends_with(".tgz")
}

/// What a file is that is neither a regular file nor a folder, as part of a sentence.
#[cfg(unix)]
fn special(file_type: FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    if file_type.is_fifo() {
        Some("a pipe")
    } else if file_type.is_socket() {
        Some("a socket")
    } else if file_type.is_char_device() || file_type.is_block_device() {
        Some("a device")
    } else {
        None
    }
}

/// Other systems do not have such files in folders.
#[cfg(not(unix))]
fn special(_: FileType) -> Option<&'static str> {
    None
}
