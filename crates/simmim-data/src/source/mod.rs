//! Where samples come from.

mod concat;
mod folder;
mod idx;
mod missing;
mod names;
mod relabelled;
mod shards;
mod spec;
mod subset;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::idx::idx_from_bytes;
pub use relabelled::Relabelled;
pub use subset::Subset;

use self::concat::Concat;
use self::folder::Folder;
use self::idx::Idx;
use self::shards::Shards;
use crate::error::{Error, Result};
use crate::image::Image;

/// One image with what is known about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The decoded image.
    pub image: Image,
    /// Its class.
    pub label: Option<usize>,
    /// Where it comes from, for people.
    pub name: String,
}

/// A list of samples that any thread may read at any place.
pub trait Source: Send + Sync {
    /// Returns how many samples there are.
    fn len(&self) -> usize;

    /// Returns whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the names of the classes by class number; empty when unlabelled.
    fn classes(&self) -> &[String];

    /// Returns where sample `index` comes from, for people.
    fn name(&self, index: usize) -> String;

    /// Reads and decodes sample `index`.
    ///
    /// # Errors
    ///
    /// Whatever makes this one sample unreadable.
    fn get(&self, index: usize) -> Result<Sample>;

    /// Returns the class of sample `index` without decoding it, the first if it is of several.
    fn label(&self, index: usize) -> Option<usize>;

    /// Returns all classes of sample `index` without decoding it.
    fn labels(&self, index: usize) -> Vec<usize> {
        self.label(index).into_iter().collect()
    }
}

/// The extensions that count as images, in lower case.
pub const IMAGE_EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "npy"];

/// Opens what `spec` names; its images are decoded to `channels` channels.
///
/// `spec` is a comma list of paths; a path may hold ranges `{00000..00004}`, choices `{a,b}` and
/// the wildcards `*`, `?`, `[…]`. A path is one of:
///
/// - **a folder of images**, found at any depth and ordered by path. It is labelled if every image
///   lies in a sub-folder of the folder, no deeper and no higher: the sub-folders, ordered by
///   name, are the classes. Otherwise it is unlabelled.
/// - **a folder without images but with `.tar` files**, which are opened as its shards.
/// - **a `.tar` shard** with WebDataset names: members that agree up to the first dot are one
///   sample; `jpg`, `jpeg`, `png` or `npy` is its image and `cls` its class number, or several with
///   spaces or commas between them. A `classes.json` beside the shards names the classes.
/// - **IDX images**, `*-images-idx3-ubyte` or `.gz`, with `*-labels-idx1-ubyte` beside them or not.
/// - **an image**, unlabelled.
///
/// Extensions may be in upper or lower case. Hidden files and `__MACOSX` are ignored; a wildcard
/// also passes over what is none of the above. If several paths are named, their samples follow
/// each other; they are labelled if all of them are.
///
/// # Errors
///
/// The user's error for a path that does not exist, a list that cannot be read, nothing found, a
/// broken container, or classes that disagree.
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

/// Neighbouring paths that are opened as one source.
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

/// What a path is, by whether it is a folder and by its name.
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

/// Whether a file or folder name is passed over.
fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX"
}

/// Reads a whole file; the error names it.
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| Error::Read { path: path.to_owned(), cause })
}
