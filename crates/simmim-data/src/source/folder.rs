//! A folder of images, with or without sub-folders for the classes.

use std::fs;
use std::path::{Path, PathBuf};

use super::{IMAGE_EXTENSIONS, Kind, Sample, Source, is_ignored, read};
use crate::decode::decode;
use crate::error::{Error, Result};

pub(super) struct Folder {
    images: Vec<PathBuf>,
    /// One for every image; empty if the folder is unlabeled.
    labels: Vec<usize>,
    classes: Vec<String>,
    channels: usize,
}

impl Folder {
    /// Lists the images in `root`; `None` if there are none.
    ///
    /// The sub-folders are classes if every image lies directly in one of them. Sub-folders without images are classes
    /// too, so that the numbers of the others do not depend on whether a class is empty.
    pub(super) fn open(root: &Path, channels: usize) -> Result<Option<Self>> {
        let top = entries(root)?;
        let mut images: Vec<PathBuf> = Vec::new();
        let mut labels = Vec::new();
        let mut classes = Vec::new();
        let mut is_labeled = true;
        for path in &top {
            match Kind::of(path) {
                Some(Kind::Folder) => {
                    add_images(path, &mut images)?;
                    labels.resize(images.len(), classes.len());
                    classes.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
                }
                Some(Kind::Image) => {
                    images.push(path.clone());
                    is_labeled = false;
                }
                Some(Kind::Shard | Kind::Idx) | None => {}
            }
        }
        let depth = root.components().count() + 2;
        if !is_labeled || images.iter().any(|image| image.components().count() != depth) {
            labels.clear();
            classes.clear();
        }
        Ok((!images.is_empty()).then_some(Self { images, labels, classes, channels }))
    }

    /// Makes an unlabeled source of `images`.
    pub(super) fn of_images(images: Vec<PathBuf>, channels: usize) -> Self {
        Self { images, labels: Vec::new(), classes: Vec::new(), channels }
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        self.images[index].display().to_string()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let name = self.name(index);
        let image = decode(&read(&self.images[index])?, &name, self.channels)?;
        Ok(Sample { image, label: self.label(index), name })
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).copied()
    }
}

/// Lists the shards that lie directly in `root`, a folder without images.
///
/// # Errors
///
/// [`Error::EmptyFolder`] if there are none.
pub(super) fn shards(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut shards, mut other) = (Vec::new(), None);
    for path in entries(root)? {
        match Kind::of(&path) {
            Some(Kind::Shard) => shards.push(path),
            Some(Kind::Idx) => other = other.or(Some(path)),
            Some(Kind::Folder | Kind::Image) | None => {}
        }
    }
    if shards.is_empty() {
        return Err(Error::EmptyFolder { path: root.to_owned(), extensions: IMAGE_EXTENSIONS, other });
    }
    Ok(shards)
}

/// Adds the images in `folder` and its sub-folders, ordered by path.
fn add_images(folder: &Path, images: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        match Kind::of(&path) {
            Some(Kind::Folder) if !is_loop(&path) => add_images(&path, images)?,
            Some(Kind::Image) => images.push(path),
            Some(Kind::Folder | Kind::Shard | Kind::Idx) | None => {}
        }
    }
    Ok(())
}

/// Whether a folder is a symbolic link to a folder that contains it.
fn is_loop(path: &Path) -> bool {
    path.is_symlink()
        && match (path.canonicalize(), path.parent().map(Path::canonicalize)) {
            (Ok(target), Some(Ok(parent))) => parent.starts_with(target),
            _ => true,
        }
}

/// Lists the files and folders directly in `folder`, without ignored ones, ordered by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |cause| Error::Read { path: folder.to_owned(), cause };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !is_ignored(&path.file_name().unwrap_or_default().to_string_lossy()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
