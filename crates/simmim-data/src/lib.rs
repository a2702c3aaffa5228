//! Image sources, decoding, augmentation and a reproducible loader.
//!
//! This crate turns a folder, tar shards or IDX files into batches of normalized `[B, C, H, W]` pixels. [`open`] lists
//! the samples of a data set, a [`Transform`] turns a decoded image into the input of a network, and a [`Loader`]
//! delivers shuffled batches. A seed gives the same batches, bit for bit, for any number of workers and ranks. The
//! crate knows nothing of tensors, devices, masks or models.
//!
//! # Example
//!
//! Three photographs, cropped and mirrored at random, in batches of two:
//!
//! ```
//! use simmim_data::{Augmentation, Loader, LoaderConfig, Normalization, RandomResizedCrop, Transform, open};
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images");
//! let source = open(folder, 3)?; // decoded to three channels
//! let transform = Transform {
//!     height: 64,
//!     width: 48,
//!     augmentation: Augmentation::RandomResizedCrop(RandomResizedCrop::default()),
//!     normalization: Normalization::imagenet(),
//! };
//! let config = LoaderConfig { batch_size: 2, rank: 0, world: 1, seed: 0, workers: 2, shuffle: true, prefetch: 2 };
//! let mut loader = Loader::new(source, transform, config, 0)?;
//!
//! let batch = loader.next().expect("a loader never ends without an error")?;
//! assert_eq!(batch.images.len(), 2 * 3 * 64 * 48);
//! assert_eq!(batch.samples.len(), 2);
//! loader.recycle(batch.images); // optional: the next batches reuse the memory
//! # Ok::<(), simmim_data::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod decode;
mod encode;
mod encoded;
pub mod error;
mod hint;
pub mod image;
pub mod loader;
pub mod mix;
pub mod normalize;
pub mod ordered;
mod readable;
pub mod rng;
pub mod scan;
pub mod source;
pub mod transform;
mod workers;

pub use decode::{Decoding, Window, decode, npy_header};
pub use encode::encode_jpeg;
pub use encoded::Encoded;
pub use error::{Error, Result};
pub use image::{Depth, Image, Pixels, Stored};
pub use loader::{Batch, Loader, LoaderConfig, Skipped};
pub use mix::{Mix, Mixture, soft_targets};
pub use normalize::Normalization;
pub use ordered::OrderedPass;
pub use readable::{check_classes_readable, check_readable};
pub use rng::{Purpose, Rng};
pub use scan::{Bin, DuplicateGroup, Duplicates, Scan, SeveralFrames, Sizes, scan, thumbnail};
#[cfg(feature = "parquet")]
pub use source::check_parquet;
pub use source::{
    Overlap, PassedOver, PassedOverGroup, PassedOverReason, Relabeled, Sample, Source, Subset, Tiled, Tiling,
    idx_from_bytes, is_address, open, overlap, without_secrets,
};
pub use transform::{
    Augmentation, CenterCrop, ColorJitter, Distortion, Filter, FineTuning, Interpolation, RandAugment, RandomErasing,
    RandomResizedCrop, Region, Transform,
};
