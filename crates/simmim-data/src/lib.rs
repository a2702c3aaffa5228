//! Image sources, decoding, augmentation and a reproducible loader.
//!
//! From a folder, tar shards or IDX files to batches of normalised `[B, C, H, W]` pixels:
//! [`open`] finds the samples, a [`Transform`] makes an image a network's input, and a [`Loader`]
//! delivers batches that are the same bits for any number of workers. Nothing here knows of
//! tensors, devices, masks or models.

pub mod decode;
pub mod error;
pub mod image;
pub mod loader;
pub mod mix;
pub mod normalise;
pub mod ordered;
mod readable;
pub mod rng;
pub mod scan;
pub mod source;
pub mod transform;
mod workers;

pub use decode::decode;
pub use error::{Error, Result};
pub use image::{Image, Pixels};
pub use loader::{Batch, Loader, LoaderConfig, Skipped};
pub use mix::{Mix, Mixture, soft_targets};
pub use normalise::Normalisation;
pub use ordered::OrderedPass;
pub use readable::check_readable;
pub use rng::{Purpose, Rng};
pub use scan::{Scan, Sizes, scan};
pub use source::{Relabelled, Sample, Source, Subset, idx_from_bytes, open};
pub use transform::{
    Augmentation, CentreCrop, ColourJitter, Distortion, Filter, FineTuning, Interpolation, RandAugment, RandomErasing,
    RandomResizedCrop, Region, Transform,
};
