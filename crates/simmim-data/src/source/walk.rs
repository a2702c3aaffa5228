//! Finds the images below a folder, each of them once, and says what it passes over.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::is_ignored;
use super::kind::Kind;
use super::passed_over::{PassedOver, PassedOverReason};
use super::run_folder::{LinksIntoRuns, is_run};
use crate::error::{Error, Result};

/// What lies below a folder, ordered by path.
pub(super) struct Found {
    /// The images at any depth.
    pub(super) images: Vec<PathBuf>,
    /// The name of every sub-folder, and the number of images up to its last one.
    pub(super) folders: Vec<(String, usize)>,
    /// The shards that lie directly in the folder.
    pub(super) shards: Vec<PathBuf>,
    /// A file directly in the folder that can be opened if it is named itself.
    pub(super) other: Option<PathBuf>,
    /// What is not read.
    pub(super) passed_over: Vec<PassedOver>,
}

/// Lists what lies below `root`.
///
/// The folders of runs are passed over, but not `root` itself if it is one or lies in one: who names it means it.
/// A folder that can be reached on several ways is read once, by its own path if this lies below `root`.
pub(super) fn walk(root: &Path) -> Result<Found> {
    let real = real(root)?;
    let read = HashSet::from([real.clone()]);
    let links = LinksIntoRuns::default();
    let mut walk = Walk { root: real.clone(), read, links, images: Vec::new(), passed_over: Vec::new() };
    let (mut folders, mut shards, mut other) = (Vec::new(), Vec::new(), None);
    for entry in entries(root)? {
        match entry.kind {
            Some(Kind::Folder) => {
                let (images, passed_over) = (walk.images.len(), walk.passed_over.len());
                let is_read = walk.enter(&entry, &real)?;
                // a folder around runs is no class, because it is not there before the first of them
                let is_of_runs = || walk.passed_over[passed_over..].iter().any(|p| p.reason == PassedOverReason::Run);
                if is_read && (walk.images.len() > images || !is_of_runs()) {
                    folders.push((name(&entry.path), walk.images.len()));
                }
            }
            Some(Kind::Image) => walk.add(entry),
            Some(Kind::Shard) => shards.push(entry.path),
            Some(Kind::Idx) => other = other.or(Some(entry.path)),
            Some(Kind::Special(what)) => walk.pass_over(entry.path, PassedOverReason::NotAFile(what)),
            None if entry.leads_nowhere => walk.pass_over(entry.path, PassedOverReason::Nowhere),
            None => {}
        }
    }
    Ok(Found { images: walk.images, folders, shards, other, passed_over: walk.passed_over })
}

struct Walk {
    /// The folder in which the walk began. This and all other paths here are without links.
    root: PathBuf,
    /// The folders that have been read.
    read: HashSet<PathBuf>,
    links: LinksIntoRuns,
    images: Vec<PathBuf>,
    passed_over: Vec<PassedOver>,
}

impl Walk {
    /// Adds what lies in a folder and its sub-folders; returns whether the folder is read. It was found in the folder
    /// with the path `parent`.
    fn enter(&mut self, folder: &Entry, parent: &Path) -> Result<bool> {
        let path = if folder.is_link { real(&folder.path)? } else { parent.join(name_of(&folder.path)) };
        if let Some(reason) = self.reason_against(&path, parent, folder.is_link) {
            self.pass_over(folder.path.clone(), reason);
            return Ok(false);
        }
        self.read.insert(path.clone());
        for entry in entries(&folder.path)? {
            match entry.kind {
                Some(Kind::Folder) => {
                    self.enter(&entry, &path)?;
                }
                Some(Kind::Image) => self.add(entry),
                Some(Kind::Special(what)) => self.pass_over(entry.path, PassedOverReason::NotAFile(what)),
                None if entry.leads_nowhere => self.pass_over(entry.path, PassedOverReason::Nowhere),
                Some(Kind::Shard | Kind::Idx) | None => {}
            }
        }
        Ok(true)
    }

    /// Adds an image, unless it is a link into the folder of a run.
    fn add(&mut self, image: Entry) {
        match image.is_link && self.links.contain(&image.path, &self.root) {
            true => self.pass_over(image.path, PassedOverReason::Run),
            false => self.images.push(image.path),
        }
    }

    fn pass_over(&mut self, path: PathBuf, reason: PassedOverReason) {
        self.passed_over.push(PassedOver { path, reason });
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
    /// Whether it is a link to nothing.
    leads_nowhere: bool,
}

/// Lists the files and folders directly in `folder`, without ignored ones, ordered by name.
fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let failed = |cause| Error::Read { path: folder.to_owned(), cause };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_ignored(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let (path, file_type) = (entry.path(), entry.file_type().map_err(failed)?);
        let is_link = file_type.is_symlink();
        let target = if is_link { fs::metadata(&path).ok().map(|target| target.file_type()) } else { Some(file_type) };
        let kind = Kind::of_type(&path, target);
        entries.push(Entry { path, kind, is_link, leads_nowhere: target.is_none() });
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
