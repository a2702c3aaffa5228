//! A summary of a source: how many images it has, of which classes and sizes, and which of them are broken.

use crate::loader::Skipped;
use crate::source::{PassedOver, Source};

/// A summary of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The number of samples, including unreadable ones.
    pub count: usize,
    /// The name of each class with the number of its samples; empty if the source is unlabeled.
    pub classes: Vec<(String, usize)>,
    /// The number of samples without a class.
    pub unlabeled: usize,
    /// The samples that cannot be read.
    pub unreadable: Vec<Skipped>,
    /// What lies among the data and is no sample.
    pub passed_over: PassedOver,
    /// The range of image sizes; `None` if no image can be read.
    pub sizes: Option<Sizes>,
}

/// The range of image sizes, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The smallest height.
    pub min_height: usize,
    /// The largest height.
    pub max_height: usize,
    /// The smallest width.
    pub min_width: usize,
    /// The largest width.
    pub max_width: usize,
    /// The number of channels that the images are decoded to.
    pub channels: usize,
}

/// Decodes every sample of `source`; `progress` is called after each one with the number of samples done so far.
#[must_use]
pub fn scan(source: &dyn Source, progress: &dyn Fn(usize)) -> Scan {
    let mut scan = Scan {
        count: source.len(),
        classes: source.classes().iter().map(|name| (name.clone(), 0)).collect(),
        unlabeled: 0,
        unreadable: Vec::new(),
        passed_over: source.passed_over().clone(),
        sizes: None,
    };
    for index in 0..source.len() {
        match source.label(index) {
            Some(label) => scan.classes[label].1 += 1,
            None => scan.unlabeled += 1,
        }
        match source.get(index) {
            Ok(sample) => {
                let one = Sizes::of(&sample.image);
                scan.sizes = Some(scan.sizes.map_or(one, |sizes| sizes.and(one)));
            }
            Err(error) => scan.unreadable.push(Skipped::new(source, index, &error)),
        }
        progress(index + 1);
    }
    scan
}

impl Sizes {
    fn of(image: &crate::image::Image) -> Self {
        Self {
            min_height: image.height,
            max_height: image.height,
            min_width: image.width,
            max_width: image.width,
            channels: image.channels,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            min_height: self.min_height.min(other.min_height),
            max_height: self.max_height.max(other.max_height),
            min_width: self.min_width.min(other.min_width),
            max_width: self.max_width.max(other.max_width),
            channels: self.channels,
        }
    }
}
