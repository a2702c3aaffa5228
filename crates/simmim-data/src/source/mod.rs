//! The sources that samples come from, and how a data specification is opened.

mod concat;
mod folder;
mod idx;
mod kind;
mod missing;
mod names;
mod passed_over;
mod relabeled;
mod run_folder;
mod shards;
mod spec;
mod subset;
mod walk;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::idx::idx_from_bytes;
pub use self::passed_over::{PassedOver, PassedOverReason};
pub use relabeled::Relabeled;
pub use subset::Subset;

use self::concat::Concat;
use self::folder::Folder;
use self::idx::Idx;
use self::kind::Kind;
use self::shards::Shards;
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

    /// Reads and decodes sample `index`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if this sample cannot be read.
    fn get(&self, index: usize) -> Result<Sample>;

    /// Returns the class of sample `index` without decoding it; the first one if it has several.
    fn label(&self, index: usize) -> Option<usize>;

    /// Returns all classes of sample `index` without decoding it.
    fn labels(&self, index: usize) -> Vec<usize> {
        self.label(index).into_iter().collect()
    }

    /// Returns what lies among the data and is not read.
    fn passed_over(&self) -> &[PassedOver] {
        &[]
    }

    /// Returns what keeps the source from being labeled, if it is an image that does not lie where others do.
    fn why_unlabeled(&self) -> Option<Error> {
        None
    }
}

/// The file extensions of images, in lower case.
pub const IMAGE_EXTENSIONS: &[&str] =
    &["jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "gif", "bmp", "npy"];

/// Opens the data that `spec` names; its images are decoded to `channels` channels.
///
/// `spec` is a list of paths separated by commas. A path may contain ranges `{00000..00004}`, choices `{a,b}` and the
/// wildcards `*`, `?` and `[…]`. Each path is one of:
///
/// - **a folder of images** at any depth, ordered by path. It is labeled if every image lies directly in a sub-folder
///   of the folder: the sub-folders, ordered by name, are the classes. Otherwise it is unlabeled.
/// - **a folder without images but with `.tar` files**, which are opened as shards.
/// - **a `.tar` shard** with WebDataset names: members whose names agree up to the first dot are one sample. The member
///   with one of the [`IMAGE_EXTENSIONS`] is its image. The member `cls` holds its class number, or several class numbers
///   separated by spaces or commas. The file `classes.json` in the folder of the shards, if there is one, names the
///   classes.
/// - **IDX images**, `*-images-idx3-ubyte`, labeled if `*-labels-idx1-ubyte` lies in the same folder. Both may be
///   compressed, with `.gz` at the end of the name.
/// - **an image**, unlabeled.
///
/// Extensions may be in upper or lower case. Hidden files and `__MACOSX` are ignored, and a wildcard also skips files
/// that are none of the above. The samples of several paths are joined in the order of the list; they are labeled if
/// all of the paths are.
///
/// Below a folder and among the matches of a wildcard, some things are passed over and named by
/// [`Source::passed_over`]: the folder of a run of this program, which is recognized by its content; links to folders
/// whose images are read anyway, links to files in the folder of a run, and links to nothing; pipes, sockets and devices.
/// A link to nothing that has the name of an image counts as an unreadable image.
///
/// A path whose name contains commas or braces is given alone; in a list, `?` stands for each of them.
///
/// # Errors
///
/// An [`Error`] if `spec` is not a list of paths, a path does not exist or has no images, a file is broken, or the
/// classes of the paths disagree.
pub fn open(spec: &str, channels: usize) -> Result<Arc<dyn Source>> {
    let mut sources: Vec<Arc<dyn Source>> = Vec::new();
    let mut names = Vec::new();
    let spec::Paths { paths, passed_over } = spec::paths(spec)?;
    for group in grouped(paths)? {
        names.push(group.name());
        sources.push(group.open(channels)?);
    }
    if sources.len() == 1 && passed_over.is_empty() {
        return Ok(sources.remove(0));
    }
    Ok(Arc::new(Concat::new(sources, &names, passed_over)?))
}

/// Consecutive paths of the list that are opened as one source.
enum Group {
    Folder(PathBuf),
    Shards(Vec<PathBuf>),
    Images(Vec<PathBuf>),
    Idx(PathBuf),
}

impl Group {
    fn name(&self) -> String {
        match self {
            Self::Folder(path) | Self::Idx(path) => path.display().to_string(),
            Self::Shards(paths) | Self::Images(paths) => {
                paths.first().map(|path| path.display().to_string()).unwrap_or_default()
            }
        }
    }

    fn open(self, channels: usize) -> Result<Arc<dyn Source>> {
        Ok(match self {
            Self::Folder(path) => folder(path, channels)?,
            Self::Shards(paths) => Arc::new(Shards::open(&paths, channels, Vec::new())?),
            Self::Images(paths) => Arc::new(Folder::of_images(paths, channels)),
            Self::Idx(path) => Arc::new(Idx::open(&path, channels)?),
        })
    }
}

/// Opens the images in a folder, or else the shards.
fn folder(path: PathBuf, channels: usize) -> Result<Arc<dyn Source>> {
    let found = walk::walk(&path)?;
    if !found.images.is_empty() {
        return Ok(Arc::new(Folder::new(&path, found, channels)));
    }
    if !found.shards.is_empty() {
        return Ok(Arc::new(Shards::open(&found.shards, channels, found.passed_over)?));
    }
    let passed_over = found.passed_over.into_iter().next();
    Err(Error::EmptyFolder { path, extensions: IMAGE_EXTENSIONS, other: found.other, passed_over })
}

/// Groups consecutive shards, and consecutive images; each folder and each IDX file is a group of its own.
fn grouped(paths: Vec<PathBuf>) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for path in paths {
        match (Kind::of(&path), groups.last_mut()) {
            (Some(Kind::Folder), _) => groups.push(Group::Folder(path)),
            (Some(Kind::Idx), _) => groups.push(Group::Idx(path)),
            (Some(Kind::Shard), Some(Group::Shards(paths))) => paths.push(path),
            (Some(Kind::Shard), _) => groups.push(Group::Shards(vec![path])),
            (Some(Kind::Image), Some(Group::Images(paths))) => paths.push(path),
            (Some(Kind::Image), _) => groups.push(Group::Images(vec![path])),
            (Some(Kind::Special(what)), _) => return Err(Error::NotAFile { path, what }),
            (None, _) => return Err(Error::UnknownKind { path }),
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
    name.starts_with('.') || name == "__MACOSX"
}

/// Reads a whole file; the error contains its path.
fn read(path: &Path) -> Result<Vec<u8>> {
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
