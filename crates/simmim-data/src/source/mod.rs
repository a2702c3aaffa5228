//! The sources that samples come from, and how a data specification is opened.

mod concat;
mod folder;
mod idx;
mod missing;
mod names;
mod relabeled;
mod shards;
mod spec;
mod subset;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::idx::idx_from_bytes;
pub use relabeled::Relabeled;
pub use subset::Subset;

use self::concat::Concat;
use self::folder::Folder;
use self::idx::Idx;
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
}

/// The file extensions of images, in lower case.
pub const IMAGE_EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "npy"];

/// Opens the data that `spec` names; its images are decoded to `channels` channels.
///
/// `spec` is a list of paths separated by commas. A path may contain ranges `{00000..00004}`, choices `{a,b}` and the
/// wildcards `*`, `?` and `[…]`. Each path is one of:
///
/// - **a folder of images** at any depth, ordered by path. It is labeled if every image lies directly in a sub-folder
///   of the folder: the sub-folders, ordered by name, are the classes. Otherwise it is unlabeled.
/// - **a folder without images but with `.tar` files**, which are opened as shards.
/// - **a `.tar` shard** with WebDataset names: members whose names agree up to the first dot are one sample. The member
///   `jpg`, `jpeg`, `png` or `npy` is its image. The member `cls` holds its class number, or several class numbers
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
/// # Errors
///
/// An [`Error`] if `spec` is not a list of paths, a path does not exist or has no images, a file is broken, or the
/// classes of the paths disagree.
pub fn open(spec: &str, channels: usize) -> Result<Arc<dyn Source>> {
    let mut sources: Vec<Arc<dyn Source>> = Vec::new();
    let mut names = Vec::new();
    for group in grouped(spec::paths(spec)?)? {
        names.push(group.name());
        sources.push(group.open(channels)?);
    }
    if sources.len() == 1 {
        return Ok(sources.remove(0));
    }
    Ok(Arc::new(Concat::new(sources, &names)?))
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
            Self::Folder(path) => match Folder::open(&path, channels)? {
                Some(folder) => Arc::new(folder),
                None => Arc::new(Shards::open(&folder::shards(&path)?, channels)?),
            },
            Self::Shards(paths) => Arc::new(Shards::open(&paths, channels)?),
            Self::Images(paths) => Arc::new(Folder::of_images(paths, channels)),
            Self::Idx(path) => Arc::new(Idx::open(&path, channels)?),
        })
    }
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
            (None, _) => return Err(Error::UnknownKind { path }),
        }
    }
    Ok(groups)
}

/// What a path is: a folder, or a kind of file that is told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    Shard,
    Image,
    Idx,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if path.is_dir() {
            Some(Self::Folder)
        } else if extension == "tar" {
            Some(Self::Shard)
        } else if is_image(&extension) {
            Some(Self::Image)
        } else if name.ends_with("idx3-ubyte") || name.ends_with("idx3-ubyte.gz") {
            Some(Self::Idx)
        } else {
            None
        }
    }
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
    std::fs::read(path).map_err(|cause| Error::Read { path: path.to_owned(), cause })
}
