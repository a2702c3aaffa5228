//! Features of a collection in memory, for what needs all of them at once.

use super::FrozenEncoder;
use super::classification::some_readable;
use super::stream::{FeatureBatch, FeatureKind};
use crate::error::Result;
use crate::memory;
use simmim_data::{Skipped, Source};
use simmim_engine::{Alone, Device};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Features of the images of a source that can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectedFeatures {
    /// Width of a row, `D`.
    pub width: usize,
    /// One row per image, `[N, D]`.
    pub values: Vec<f32>,
    /// Number of each image in the source, `[N]`.
    pub samples: Vec<usize>,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
}

impl<D: Device> FrozenEncoder<D> {
    /// Computes one feature vector for each image of a source; `progress` is called with the number of images done.
    /// Returns `None` if `stop` was set.
    ///
    /// # Errors
    /// If the encoder has no such features, no image can be read, a feature is not finite, or the system does not give the
    /// memory.
    ///
    /// # Panics
    /// If the normalization is not known (see [`FrozenEncoder::measure`]), or the features are those of patches.
    pub fn collect(
        &self,
        source: &Arc<dyn Source>,
        kind: FeatureKind,
        workers: usize,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Option<CollectedFeatures>> {
        self.check_kind(kind)?;
        let mut collected = CollectedFeatures::default();
        let take = |batch: FeatureBatch| {
            if !batch.samples.is_empty() {
                let [width] = batch.shape[..] else { panic!("an image has one vector, not {:?}", batch.shape) };
                if collected.width == 0 {
                    let count = source.len();
                    let what = || format!("{count} rows of {width} features");
                    memory::check(what, memory::of_values(count.saturating_mul(width)))?;
                    collected.values.reserve_exact(count * width);
                }
                collected.width = width;
            }
            collected.values.extend(batch.values);
            collected.samples.extend(batch.samples);
            collected.skipped.extend(batch.skipped);
            progress(collected.samples.len() + collected.skipped.len());
            Ok(())
        };
        if self.stream(&mut Alone, source, kind, workers, 0, take, || stop.load(Ordering::Relaxed))? {
            return Ok(None);
        }
        some_readable(collected.samples.len(), &collected.skipped)?;
        Ok(Some(collected))
    }
}
