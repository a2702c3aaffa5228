//! Finds the images below a folder, each of them once, and says what it passes over.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::hugging_face::METADATA_FILES;
use super::is_ignored;
use super::kind::Kind;
use super::names::CLASS_NAMES;
use super::passed_over::{PassedOver, PassedOverReason};
use super::run_folder::{LinksIntoRuns, is_run};
use crate::error::{Error, Result};

/// What lies below a folder, ordered by path.
pub(super) struct Found {
    /// The images at any depth.
    pub(super) images: Vec<PathBuf>,
    /// The name of every sub-folder, and the number of images up to its last one.
    pub(super) folders: Vec<(String, usize)>,
    /// The archives that lie directly in the folder.
    pub(super) archives: Vec<PathBuf>,
    /// A file in the folder that may describe its images.
    pub(super) metadata: Option<PathBuf>,
    /// A file directly in the folder that can be opened if it is named itself.
    pub(super) other: Option<PathBuf>,
    /// What is not read.
    pub(super) passed_over: PassedOver,
}

/// Lists what lies below `root`.
///
/// The folders of runs are passed over, but not `root` itself if it is one or lies in one: who names it means it.
/// A folder that can be reached on several ways is read once, by its own path if this lies below `root`.
pub(super) fn walk(root: &Path) -> Result<Found> {
    let real = real(root)?;
    let read = HashSet::from([real.clone()]);
    let links = LinksIntoRuns::default();
    let mut walk = Walk { root: real.clone(), read, links, images: Vec::new(), passed_over: PassedOver::new() };
    let (mut folders, mut archives, mut metadata, mut other, mut class_names) =
        (Vec::new(), Vec::new(), None, None, None);
    for entry in entries(root)? {
        match entry.kind {
            _ if entry.leads_nowhere => walk.take(entry),
            Some(Kind::Folder) => {
                let before = (walk.images.len(), walk.passed_over.count_of(&PassedOverReason::Run));
                let is_read = walk.enter(&entry, &real)?;
                // a folder around runs is no class, because it is not there before the first of them
                let is_of_runs = walk.passed_over.count_of(&PassedOverReason::Run) > before.1;
                if is_read && (walk.images.len() > before.0 || !is_of_runs) {
                    folders.push((name(&entry.path), walk.images.len()));
                }
            }
            Some(Kind::Shard | Kind::Zip | Kind::Parquet) => archives.push(entry.path),
            Some(Kind::List) if METADATA_FILES.contains(&name(&entry.path).as_str()) && metadata.is_none() => {
                metadata = Some(entry.path);
            }
            Some(Kind::Idx) if other.is_none() => other = Some(entry.path),
            None if name(&entry.path) == CLASS_NAMES => class_names = Some(entry),
            Some(_) | None => walk.take(entry),
        }
    }
    // it belongs to shards and IDX files
    class_names.filter(|_| !walk.images.is_empty()).into_iter().for_each(|entry| walk.take(entry));
    Ok(Found { images: walk.images, folders, archives, metadata, other, passed_over: walk.passed_over })
}

struct Walk {
    /// The folder in which the walk began. This and all other paths here are without links.
    root: PathBuf,
    /// The folders that have been read.
    read: HashSet<PathBuf>,
    links: LinksIntoRuns,
    images: Vec<PathBuf>,
    passed_over: PassedOver,
}

impl Walk {
    /// Adds what lies in a folder and its sub-folders; returns whether the folder is read. It was found in the folder
    /// with the path `parent`.
    fn enter(&mut self, folder: &Entry, parent: &Path) -> Result<bool> {
        let path = if folder.is_link { real(&folder.path)? } else { parent.join(name_of(&folder.path)) };
        if let Some(reason) = self.reason_against(&path, parent, folder.is_link) {
            self.pass_over(&folder.path, reason);
            return Ok(false);
        }
        self.read.insert(path.clone());
        for entry in entries(&folder.path)? {
            if entry.kind == Some(Kind::Folder) {
                self.enter(&entry, &path)?;
            } else {
                self.take(entry);
            }
        }
        Ok(true)
    }

    /// Adds an image, or passes over what is none.
    fn take(&mut self, entry: Entry) {
        let reason = match entry.kind {
            _ if entry.is_hidden => PassedOverReason::Hidden,
            Some(Kind::Image) if !(entry.is_link && self.links.contain(&entry.path, &self.root)) => {
                self.images.push(entry.path);
                return;
            }
            Some(Kind::Image) => PassedOverReason::Run,
            _ if entry.leads_nowhere => PassedOverReason::Nowhere,
            Some(Kind::Shard | Kind::Zip | Kind::Parquet | Kind::Idx) => PassedOverReason::Beside,
            Some(Kind::List) => PassedOverReason::of_extension(&extension(&entry.path)),
            Some(Kind::Special(what)) => PassedOverReason::NotAFile(what),
            Some(Kind::Folder) => unreachable!("folders are entered"),
            None => PassedOverReason::of_extension(&extension(&entry.path)),
        };
        self.pass_over(&entry.path, reason);
    }

    fn pass_over(&mut self, path: &Path, reason: PassedOverReason) {
        self.passed_over.add(path.display(), reason);
    }

    /// Why the folder `path`, which was found in `parent`, is not read.
    fn reason_against(&self, path: &Path, parent: &Path, is_link: bool) -> Option<PassedOverReason> {
        if is_link && parent.starts_with(path) {
            Some(PassedOverReason::Loop)
        } else if is_run(path) || (is_link && self.is_in_run(path)) {
            Some(PassedOverReason::Run)
        } else if self.read.contains(path) || (is_link && self.is_read_without_links(path)) {
            Some(PassedOverReason::Repeated)
        } else {
            None
        }
    }

    /// Whether a folder lies in the folder of a run; not if the walk began in the same run.
    fn is_in_run(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|folder| !self.root.starts_with(folder) && is_run(folder))
    }

    /// Whether the walk comes to a folder without following a link.
    fn is_read_without_links(&self, path: &Path) -> bool {
        let below = path.strip_prefix(&self.root);
        below.is_ok_and(|below| below.iter().all(|part| !is_ignored(&part.to_string_lossy())))
    }
}

/// A file or folder in a folder.
struct Entry {
    path: PathBuf,
    kind: Option<Kind>,
    is_link: bool,
    /// Whether its name says that it is not meant to be seen. What it is is then unknown.
    is_hidden: bool,
    /// Whether it is a link to nothing.
    leads_nowhere: bool,
}

/// Lists the files and folders directly in `folder`, ordered by name.
fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let failed = |cause| Error::Read { path: folder.to_owned(), cause };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_ignored(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            entries.push(Entry { path, kind: None, is_link: false, is_hidden: true, leads_nowhere: false });
            continue;
        }
        let (path, file_type) = (entry.path(), entry.file_type().map_err(failed)?);
        let is_link = file_type.is_symlink();
        let target = if is_link { fs::metadata(&path).ok().map(|target| target.file_type()) } else { Some(file_type) };
        let kind = Kind::of_type(&path, target);
        entries.push(Entry { path, kind, is_link, is_hidden: false, leads_nowhere: target.is_none() });
    }
    entries.sort_by(|first, second| first.path.cmp(&second.path));
    Ok(entries)
}

/// Returns the path without links.
fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|cause| Error::Read { path: path.to_owned(), cause })
}

fn name_of(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}

fn name(path: &Path) -> String {
    name_of(path).to_string_lossy().into_owned()
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().into_owned()
}
