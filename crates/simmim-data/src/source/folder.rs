//! Images in files: a folder, with or without sub-folders for the classes, or any list.

use std::path::{Path, PathBuf};

use super::Source;
use super::passed_over::PassedOver;
use super::walk::Found;
use crate::encoded::Encoded;
use crate::error::{Error, Result};

pub(super) struct Folder {
    images: Vec<PathBuf>,
    /// Those of every image, if they are known; empty if the folder is unlabeled.
    labels: Vec<Option<Vec<usize>>>,
    classes: Vec<String>,
    channels: usize,
    why_unlabeled: Option<WhyUnlabeled>,
    passed_over: PassedOver,
}

/// Why images are unlabeled that might have labels.
enum WhyUnlabeled {
    /// Class folders were looked for in `folder`, and `image` does not lie directly in one although others do.
    Stray { folder: PathBuf, image: PathBuf },
    /// A list has other labels for an image of this line in another line.
    Disagreement { list: PathBuf, line: u64, what: String },
}

impl Folder {
    /// Makes a source of the images that were found in `root`.
    ///
    /// The sub-folders are classes if every image lies directly in one of them. Sub-folders without images are classes
    /// too, so that the numbers of the others do not depend on whether a class is empty.
    pub(super) fn new(root: &Path, found: Found, channels: usize) -> Self {
        let depth = |path: &Path| path.components().count();
        let class_depth = depth(root) + 2;
        let Found { images, folders, passed_over, .. } = found;
        let stray = images.iter().find(|image| depth(image) != class_depth);
        let (mut labels, mut classes) = (Vec::new(), Vec::new());
        if stray.is_none() {
            for (class, (name, end)) in folders.into_iter().enumerate() {
                labels.resize(end, Some(vec![class]));
                classes.push(name);
            }
        }
        let has_folders = images.iter().any(|image| depth(image) >= class_depth);
        let stray = stray.filter(|_| has_folders);
        let why_unlabeled = stray.map(|image| WhyUnlabeled::Stray { folder: root.to_owned(), image: image.clone() });
        Self { images, labels, classes, channels, why_unlabeled, passed_over }
    }

    /// Makes an unlabeled source of `images`.
    pub(super) fn of_images(images: Vec<PathBuf>, channels: usize) -> Self {
        Self::of_labeled(images, Vec::new(), Vec::new(), channels, PassedOver::new())
    }

    /// Makes a source of `images` with these labels; without classes it is unlabeled.
    pub(super) fn of_labeled(
        images: Vec<PathBuf>,
        labels: Vec<Option<Vec<usize>>>,
        classes: Vec<String>,
        channels: usize,
        passed_over: PassedOver,
    ) -> Self {
        Self { images, labels, classes, channels, why_unlabeled: None, passed_over }
    }

    /// Makes an unlabeled source of the `images` of a list whose labels disagree in a line.
    pub(super) fn of_disagreeing(
        images: Vec<PathBuf>,
        (list, line, what): (PathBuf, u64, String),
        channels: usize,
        passed_over: PassedOver,
    ) -> Self {
        let why_unlabeled = Some(WhyUnlabeled::Disagreement { list, line, what });
        Self { why_unlabeled, ..Self::of_labeled(images, Vec::new(), Vec::new(), channels, passed_over) }
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

    fn encoded(&self, index: usize) -> Result<Encoded> {
        Ok(Encoded::at(self.images[index].clone(), self.channels, self.name(index)))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index)?.as_ref()?.first().copied()
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.labels.get(index).cloned().flatten().unwrap_or_default()
    }

    fn is_labeled(&self, index: usize) -> bool {
        self.labels.get(index).is_some_and(Option::is_some)
    }

    fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    fn why_unlabeled(&self) -> Option<Error> {
        Some(match self.why_unlabeled.as_ref()? {
            WhyUnlabeled::Stray { folder, image } => {
                Error::NotInClassFolder { image: image.clone(), folder: folder.clone() }
            }
            WhyUnlabeled::Disagreement { list, line, what } => {
                Error::BadList { path: list.clone(), line: *line, what: what.clone() }
            }
        })
    }
}
