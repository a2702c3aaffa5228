//! What is in a source: how many images, of which classes and sizes, and which are broken.

use crate::loader::Skipped;
use crate::source::Source;

/// What is in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// How many samples there are, unreadable ones included.
    pub count: usize,
    /// The classes with the number of their samples; empty when unlabelled.
    pub classes: Vec<(String, usize)>,
    /// How many samples have no class.
    pub unlabelled: usize,
    /// The samples that cannot be read.
    pub unreadable: Vec<Skipped>,
    /// The extent of the images; `None` if none can be read.
    pub sizes: Option<Sizes>,
}

/// The extent of some images, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The least height.
    pub min_height: usize,
    /// The greatest height.
    pub max_height: usize,
    /// The least width.
    pub min_width: usize,
    /// The greatest width.
    pub max_width: usize,
    /// The number of channels they are decoded to.
    pub channels: usize,
}

/// Decodes every sample of `source`; `progress` is told after each how many are done.
#[must_use]
pub fn scan(source: &dyn Source, progress: &dyn Fn(usize)) -> Scan {
    let mut scan = Scan {
        count: source.len(),
        classes: source.classes().iter().map(|name| (name.clone(), 0)).collect(),
        unlabelled: 0,
        unreadable: Vec::new(),
        sizes: None,
    };
    for index in 0..source.len() {
        match source.label(index) {
            Some(label) => scan.classes[label].1 += 1,
            None => scan.unlabelled += 1,
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
