//! The sources that samples come from, and how a data specification is opened.

mod address;
mod class_folders;
mod concat;
mod folder;
mod gzip;
mod hugging_face;
mod idx;
mod kind;
mod list;
mod missing;
mod names;
mod overlap;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "parquet")]
mod parquet_pages;
mod passed_over;
mod place;
mod relabeled;
#[cfg(feature = "remote")]
mod remote;
mod run_folder;
mod shards;
mod spec;
mod storage;
mod subset;
mod tar;
#[cfg(feature = "parquet")]
mod thrift;
mod tiled;
mod walk;
mod windowed;
mod zip;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::address::{is_address, without_secrets};
pub use self::idx::idx_from_bytes;
pub(crate) use self::list::PATH_COLUMNS;
pub use self::overlap::{Overlap, overlap};
pub use self::passed_over::{MAX_NAMED, PassedOver, PassedOverGroup, PassedOverReason};
#[cfg(feature = "remote")]
pub(crate) use self::remote::fault::Fault;
pub use relabeled::Relabeled;
pub use subset::Subset;
pub use tiled::{Tiled, Tiling};

use self::concat::Concat;
use self::folder::Folder;
use self::idx::Idx;
use self::kind::Kind;
#[cfg(feature = "parquet")]
pub use self::parquet::check_parquet;
use self::place::Place;
use self::shards::Shards;
use self::storage::Storage;
pub(crate) use self::storage::{LocalFile, Reader};
use self::windowed::Windowed;
use self::zip::Zip;
use crate::decode::{Decoding, MAX_BYTES};
use crate::encoded::Encoded;
use crate::error::{Error, Result};
use crate::image::Image;

/// One image with its class and its name.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The decoded image.
    pub image: Image,
    /// Its class; the first one if it has several.
    pub label: Option<usize>,
    /// Where it comes from, for messages.
    pub name: String,
}

/// A list of samples that several threads may read in any order.
pub trait Source: Send + Sync {
    /// Returns the number of samples.
    fn len(&self) -> usize;

    /// Returns whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the names of the classes, ordered by class number; empty if the source is unlabeled.
    fn classes(&self) -> &[String];

    /// Returns where sample `index` comes from, for messages.
    fn name(&self, index: usize) -> String;

    /// Reads the picture of sample `index`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if it cannot be read.
    fn encoded(&self, index: usize) -> Result<Encoded>;

    /// Reads and decodes sample `index`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if this sample cannot be read or decoded.
    fn get(&self, index: usize) -> Result<Sample> {
        Ok(Sample { image: self.encoded(index)?.decode()?, label: self.label(index), name: self.name(index) })
    }

    /// Returns the class of sample `index` without decoding it; the first one if it has several.
    fn label(&self, index: usize) -> Option<usize>;

    /// Returns all classes of sample `index` without decoding it.
    fn labels(&self, index: usize) -> Vec<usize> {
        self.label(index).into_iter().collect()
    }

    /// Returns whether the classes of sample `index` are known. An image may be known to be of none.
    fn is_labeled(&self, index: usize) -> bool {
        self.label(index).is_some()
    }

    /// Returns what lies among the data and is no sample.
    fn passed_over(&self) -> &PassedOver {
        const NOTHING: &PassedOver = &PassedOver::new();
        NOTHING
    }

    /// Returns what keeps the source from being labeled, if it is an image that does not lie where others do.
    fn why_unlabeled(&self) -> Option<Error> {
        None
    }
}

/// The file extensions of images, in lower case.
pub const IMAGE_EXTENSIONS: &[&str] =
    &["jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "gif", "bmp", "npy", "dcm", "dicom"];

/// Opens the data that `spec` names, whose images are decoded as `decoding` says: to a number of channels, for example.
///
/// `spec` is a list of paths and addresses separated by commas. A path may contain ranges `{00000..00004}`, choices `{a,b}` and the
/// wildcards `*`, `?` and `[…]`. Each path is one of:
///
/// - **a folder of images** at any depth. It is labeled if every image lies directly in a sub-folder of the folder: the
///   sub-folders, ordered by name, are the classes. Otherwise it is unlabeled. If the folder has a `metadata.csv` or
///   `metadata.jsonl` with `file_name` as Hugging Face's `datasets` writes it, the images are those that it names, with the
///   labels that it gives. A folder whose sub-folders are splits (`train`, `validation`, `test`) is refused: name one.
/// - **a folder without images but with archives**, which are opened together.
/// - **a shard**, `.tar`, `.tar.gz` or `.tgz`, with WebDataset names: members whose names agree up to the first dot of their
///   last part are one sample. The member `jpg`, or another of the [`IMAGE_EXTENSIONS`], is its image. The member `cls` holds
///   its class number, or several class numbers separated by spaces or commas. The file `classes.json` in the folder of the
///   shards, if there is one, names the classes. A compressed shard is decompressed once when it is opened; points to read
///   from are kept in memory, two percent of the decompressed size and at most 180 MB, and an image costs the decompression
///   of up to 2 MiB before it.
/// - **a `.zip` archive** of images at any depth, stored or deflated, with class folders as in a folder. One folder around all
///   of them does not count.
/// - **a `.parquet` file** in the layout of Hugging Face's image data sets: a column with the fields `bytes` and `path`, or a
///   binary column, and perhaps a column `label` of numbers or text. The names of the classes are those in the metadata of
///   the schema.
/// - **a list of images**, `.csv`, `.tsv` or `.jsonl`: the column `path`, `file_name`, `image` or `filename` holds paths
///   relative to the list, the column `label`, `class` or `target`, if there is one, class numbers (which `classes.json` beside
///   the list may name) or names of classes.
/// - **IDX images**, `*-images-idx3-ubyte`, labeled if `*-labels-idx1-ubyte` lies in the same folder. Both may be
///   compressed, with `.gz` at the end of the name.
/// - **an image**, unlabeled.
///
/// Files without an extension, or with a number in its place as in the identifiers of DICOM, are images where their content is
/// DICOM's and they are files themselves, not members of an archive; `DICOMDIR` is none.
///
/// An item may also be the address of a tar, zip or Parquet file in a store, `http://`, `https://` or `s3://bucket/key`, without
/// wildcards, if the feature `remote` is there. Settings of S3 (credentials, region, endpoint) are those of the environment
/// variables `AWS_…`, as the crate `object_store` reads them; this is the one place where the environment is read. A password
/// in an address, or a signature in its query, is sent and never shown. Requests of ranges are repeated for 20 s when data is
/// opened and for 2 minutes later, and 64 MiB of blocks are kept in memory.
///
/// The samples of a path are ordered by their own paths, part by part, so that the same images in a folder, a list or an
/// archive give the same batches (IDX images have the order of the file, and a Parquet file that does not give the path of
/// every image has that of its rows). Extensions may be in upper or lower case. The samples of several paths are joined in
/// the order of the list; they are labeled if all of the paths are. Nothing is unpacked to disk.
///
/// What is no sample is passed over, and counted and named by [`Source::passed_over`]: files that are no images, by their
/// extension; hidden files and `__MACOSX`; the folder of a run of this program, which is recognized by its content; links to
/// folders whose images are read anyway, links to files in the folder of a run, and links to nothing; pipes, sockets and
/// devices; members of archives that are links, encrypted, or one more picture of a sample. A link to nothing that has the
/// name of an image counts as an unreadable image.
///
/// A path whose name contains commas or braces is given alone; in a list, `?` stands for each of them.
///
/// # Errors
///
/// An [`Error`] if `spec` is not a list of paths, a path does not exist or has no images, a file is broken, a store does not
/// deliver it, or the classes of the paths disagree.
pub fn open(spec: &str, decoding: impl Into<Decoding>) -> Result<Arc<dyn Source>> {
    let Decoding { channels, window } = decoding.into();
    let spec::Places { places, passed_over } = spec::places(spec)?;
    let source = joined(grouped(places)?, passed_over, channels)?;
    Ok(match window {
        None => source,
        Some(window) => Arc::new(Windowed { source, window }),
    })
}

/// Consecutive paths of the list that are opened as one source.
enum Group {
    Folder(PathBuf),
    Shards(Vec<Place>),
    Parquet(Vec<Place>),
    Zip(Place),
    List(PathBuf),
    Images(Vec<PathBuf>),
    Idx(PathBuf),
}

impl Group {
    fn name(&self) -> String {
        match self {
            Self::Folder(path) | Self::List(path) | Self::Idx(path) => path.display().to_string(),
            Self::Zip(place) => place.shown().display().to_string(),
            Self::Shards(places) | Self::Parquet(places) => {
                places.first().map(|place| place.shown().display().to_string()).unwrap_or_default()
            }
            Self::Images(paths) => paths.first().map(|path| path.display().to_string()).unwrap_or_default(),
        }
    }

    fn open(self, channels: usize) -> Result<Arc<dyn Source>> {
        Ok(match self {
            Self::Folder(path) => folder(path, channels)?,
            Self::Shards(places) => Arc::new(Shards::open(&places, channels)?),
            Self::Parquet(places) => parquet(&places, channels)?,
            Self::Zip(place) => Arc::new(Zip::of(place.storage()?, channels)?),
            Self::List(path) => Arc::new(list::open(&path, channels)?),
            Self::Images(paths) => Arc::new(Folder::of_images(paths, channels)),
            Self::Idx(path) => Arc::new(Idx::open(&path, channels)?),
        })
    }
}

#[cfg(feature = "parquet")]
fn parquet(places: &[Place], channels: usize) -> Result<Arc<dyn Source>> {
    let storages: Result<Vec<_>> = places.iter().map(Place::storage).collect();
    Ok(Arc::new(parquet::Parquet::of(&storages?, channels)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet(places: &[Place], _: usize) -> Result<Arc<dyn Source>> {
    let path = places.first().map(|place| place.shown().to_owned()).unwrap_or_default();
    Err(Error::LeftOut { path, feature: "parquet" })
}

/// Opens the images in a folder, or else the archives of one kind.
fn folder(path: PathBuf, channels: usize) -> Result<Arc<dyn Source>> {
    let mut found = walk::walk(&path)?;
    let described = found.metadata.take().and_then(|file| {
        let source = hugging_face::described(&file, &mut found, channels);
        if source.is_none() {
            found.passed_over.add_unread(file.display(), &file.extension().unwrap_or_default().to_string_lossy());
        }
        source
    });
    if let Some(described) = described {
        return Ok(Arc::new(described?));
    }
    hugging_face::check_one_split_below(&path, found.images.iter().map(PathBuf::as_path))?;
    // what is opened here, and what lies beside it
    let archives = std::mem::take(&mut found.archives);
    let kind = archives.iter().filter(|_| found.images.is_empty()).find_map(|archive| Kind::of(archive));
    let (opened, beside): (Vec<_>, Vec<_>) =
        archives.into_iter().partition(|archive| kind.is_some() && Kind::of(archive) == kind);
    if !found.images.is_empty() || !opened.is_empty() {
        let other = found.other.take();
        beside.iter().chain(&other).for_each(|path| found.passed_over.add(path.display(), PassedOverReason::Beside));
    }
    if !found.images.is_empty() {
        return Ok(Arc::new(Folder::new(&path, found, channels)));
    }
    if opened.is_empty() {
        let walk::Found { other, passed_over, .. } = found;
        return Err(Error::EmptyFolder { path, extensions: IMAGE_EXTENSIONS, other, passed_over });
    }
    hugging_face::check_one_split(&path, opened.iter().map(PathBuf::as_path))?;
    joined(grouped(opened.into_iter().map(Place::Path).collect())?, found.passed_over, channels)
}

/// Opens groups as one source. `passed_over` lies beside them.
fn joined(groups: Vec<Group>, passed_over: PassedOver, channels: usize) -> Result<Arc<dyn Source>> {
    let names: Vec<String> = groups.iter().map(Group::name).collect();
    let mut sources = groups.into_iter().map(|group| group.open(channels)).collect::<Result<Vec<_>>>()?;
    if sources.len() == 1 && passed_over.is_empty() {
        return Ok(sources.remove(0));
    }
    Ok(Arc::new(Concat::new(sources, &names, passed_over)?))
}

/// Groups consecutive shards, Parquet files and images; each folder, list and other file is a group of its own.
fn grouped(places: Vec<Place>) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for place in places {
        let path = place.shown().to_owned();
        match (place.kind()?, groups.last_mut()) {
            (Kind::Zip, _) => groups.push(Group::Zip(place)),
            (Kind::Shard, Some(Group::Shards(places))) => places.push(place),
            (Kind::Shard, _) => groups.push(Group::Shards(vec![place])),
            (Kind::Parquet, Some(Group::Parquet(places))) => places.push(place),
            (Kind::Parquet, _) => groups.push(Group::Parquet(vec![place])),
            // an address has none of these kinds
            (Kind::Folder, _) => groups.push(Group::Folder(path)),
            (Kind::Idx, _) => groups.push(Group::Idx(path)),
            (Kind::List, _) => groups.push(Group::List(path)),
            (Kind::Image, Some(Group::Images(paths))) => paths.push(path),
            (Kind::Image, _) => groups.push(Group::Images(vec![path])),
            (Kind::Special(what), _) => return Err(Error::NotAFile { path, what }),
        }
    }
    Ok(groups)
}

/// Whether a lower-case extension is one of [`IMAGE_EXTENSIONS`].
fn is_image(extension: &str) -> bool {
    IMAGE_EXTENSIONS.contains(&extension)
}

/// Whether a file or folder with this name is ignored.
fn is_ignored(name: &str) -> bool {
    name.starts_with('.') && !matches!(name, "." | "..") || name == "__MACOSX"
}

/// Compares two paths in an archive or a list as the walk through a folder does: part by part, so that what lies in a
/// folder stays together. Without that, the same images would have another order in an archive than in a folder.
fn by_path(first: &str, second: &str) -> std::cmp::Ordering {
    parts(first).cmp(parts(second))
}

/// The parts of a path without those that lead nowhere.
fn parts(path: &str) -> impl Iterator<Item = &OsStr> {
    Path::new(path).iter().filter(|part| *part != ".")
}

/// Reads the picture with `size` bytes from `offset` on.
fn encoded(storage: &dyn Storage, offset: u64, size: u64, name: &str) -> Result<Vec<u8>> {
    check_encoded(size, name)?;
    let bytes = storage.read(offset..offset.saturating_add(size));
    bytes.map_err(|cause| Error::Read { path: PathBuf::from(name), cause })
}

/// Checks the size of an encoded image before it is read: archives may claim any.
fn check_encoded(bytes: u64, name: &str) -> Result<()> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(Error::FileTooLarge { name: name.to_owned(), bytes, limit: MAX_BYTES })
}

/// Reads a whole file; the error contains its path.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    opened(path)?.read_to_end(&mut bytes).map_err(|cause| Error::Read { path: path.to_owned(), cause })?;
    Ok(bytes)
}

/// Opens a file; the error contains its path. A pipe is refused before, because to open it waits for its other end.
fn opened(path: &Path) -> Result<File> {
    if let Some(Kind::Special(what)) = Kind::of(path) {
        return Err(Error::NotAFile { path: path.to_owned(), what });
    }
    File::open(path).map_err(|cause| Error::Read { path: path.to_owned(), cause })
}
