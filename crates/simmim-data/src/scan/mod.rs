//! A summary of a source: how many images it has, of which classes, sizes and kinds, which of them are broken, and which
//! are there twice.

mod duplicates;
mod fingerprint;
mod histogram;
mod near;
mod thumbnail;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use self::duplicates::{DuplicateGroup, Duplicates};
pub use self::histogram::{Bin, histogram_of_shapes, histogram_of_sides};
pub use self::near::{Groups, MAX_BITS, MAX_PERCENT};
pub(crate) use self::thumbnail::size_of_thumbnail;
pub use self::thumbnail::thumbnail;

use self::fingerprint::Fingerprint;
use crate::encoded::Encoded;
use crate::error::Result;
use crate::image::Stored;
use crate::loader::Skipped;
use crate::normalize::{Moments, Normalization};
use crate::source::{PassedOver, Source};
use crate::workers::InOrder;

/// A summary of a source.
#[derive(Clone, Debug, PartialEq)]
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
    /// The number of images of each height and width, in pixels.
    pub shapes: BTreeMap<[usize; 2], usize>,
    /// The number of images that are stored in each way.
    pub stored: BTreeMap<Stored, usize>,
    /// The images whose files have several frames or pages, of which the first is read.
    pub several_frames: SeveralFrames,
    /// The mean and the standard deviation of all images, measured as [`Normalization::measure`] does; `None` if no image
    /// can be read.
    pub normalization: Option<Normalization>,
    /// Images that are there more than once.
    pub duplicates: Duplicates,
}

/// Images whose files have several frames or pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeveralFrames {
    /// The indices of these images.
    pub images: Vec<usize>,
    /// How many frames they have in all beside the first ones; these are not read.
    pub others: usize,
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

/// The number of looks that a thread may be ahead, so that one large image does not hold up the others. A look has a
/// kilobyte.
const AHEAD: usize = 32;

/// Decodes every sample of `source` by `workers` threads, which change no result; with 0 in the thread of the caller.
///
/// `progress` is called after each sample with the number of samples done so far. Of an image a
/// kilobyte is kept.
///
/// # Errors
///
/// [`Error::NoThread`](crate::Error::NoThread) if the system does not start a thread, or
/// [`Error::WorkerPanicked`](crate::Error::WorkerPanicked).
pub fn scan(source: &Arc<dyn Source>, workers: usize, progress: &mut dyn FnMut(usize)) -> Result<Scan> {
    let mut scan = Scan {
        count: source.len(),
        classes: source.classes().iter().map(|name| (name.clone(), 0)).collect(),
        unlabeled: 0,
        unreadable: Vec::new(),
        passed_over: source.passed_over().clone(),
        sizes: None,
        shapes: BTreeMap::new(),
        stored: BTreeMap::new(),
        several_frames: SeveralFrames::default(),
        normalization: None,
        duplicates: Duplicates::default(),
    };
    let mut moments = Moments::default();
    let mut fingerprints = Vec::new();
    let shared = Arc::clone(source);
    let make = move |number: u64, _: &AtomicBool| {
        let index = number as usize;
        (index < shared.len()).then(|| Ok(Look::at(&*shared, index)))
    };
    for (index, look) in InOrder::new(Arc::new(make), 0, workers, workers * AHEAD)?.enumerate() {
        source.labels(index).into_iter().for_each(|label| scan.classes[label].1 += 1);
        scan.unlabeled += usize::from(!source.is_labeled(index));
        match look? {
            Ok(look) => {
                scan.sizes = Some(scan.sizes.map_or(look.sizes, |sizes| sizes.and(look.sizes)));
                *scan.shapes.entry([look.sizes.min_height, look.sizes.min_width]).or_default() += 1;
                *scan.stored.entry(look.stored).or_default() += 1;
                if look.frames > 1 {
                    scan.several_frames.images.push(index);
                    scan.several_frames.others = scan.several_frames.others.saturating_add(look.frames - 1);
                }
                moments.add(&look.moments);
                fingerprints.push((index, look.fingerprint));
            }
            Err(skipped) => scan.unreadable.push(skipped),
        }
        progress(index + 1);
    }
    scan.normalization = moments.normalization();
    scan.duplicates = Duplicates::among(&fingerprints, &**source);
    Ok(scan)
}

/// What is kept of an image.
struct Look {
    sizes: Sizes,
    stored: Stored,
    frames: usize,
    moments: Moments,
    fingerprint: Fingerprint,
}

impl Look {
    /// Decodes sample `index`.
    fn at(source: &dyn Source, index: usize) -> std::result::Result<Self, Skipped> {
        let decoded = source.encoded(index).and_then(Encoded::decode_stored);
        let (image, stored, frames) = decoded.map_err(|error| Skipped::new(source, index, &error))?;
        Ok(Self {
            sizes: Sizes::of(&image),
            stored,
            frames,
            moments: Moments::of(&image),
            fingerprint: Fingerprint::of(&image),
        })
    }
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
