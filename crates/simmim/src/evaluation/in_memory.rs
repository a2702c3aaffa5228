//! Features of a few images, in memory: for programs that have the images and use the features at once.

use super::features::FrozenEncoder;
use super::stream::{BATCH, FeatureBatch, FeatureKind};
use crate::error::{Error, Result};
use simmim_data::{Skipped, Source};
use simmim_engine::{Alone, Device, Images};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Features of images.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    /// Shape of the features of one image, `[D]` or `[h·w, D]`.
    pub shape: Vec<usize>,
    /// One row per image that could be read, in their order.
    pub values: Vec<f32>,
    /// The images that could not be read.
    pub unreadable: Vec<Skipped>,
}

impl<D: Device> FrozenEncoder<D> {
    /// Features of all images of a source; `None` if `stop` was set on the way.
    ///
    /// # Errors
    /// If there are no such features, reading fails for another reason than an unreadable image, or a feature is not
    /// finite.
    ///
    /// # Panics
    /// If the normalization is not known: see [`FrozenEncoder::measure`].
    pub fn embeddings(
        &self,
        source: &Arc<dyn Source>,
        kind: FeatureKind,
        workers: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Embeddings>> {
        self.check_kind(kind)?;
        let mut found = Embeddings::default();
        let take = |batch: FeatureBatch| {
            if !batch.samples.is_empty() {
                found.shape = batch.shape;
                found.values.extend(batch.values);
            }
            found.unreadable.extend(batch.skipped);
            Ok(())
        };
        self.stream(&mut Alone, source, kind, workers, 0, take, || stop.load(Ordering::Relaxed))?;
        Ok((!stop.load(Ordering::Relaxed)).then_some(found))
    }

    /// Features of images that are prepared already: of the size of the network, and normalized. `None` if `stop` was set
    /// on the way.
    ///
    /// # Errors
    /// If there are no such features, or the images have another size.
    pub fn embeddings_of_prepared(
        &self,
        images: &Images,
        kind: FeatureKind,
        stop: &AtomicBool,
    ) -> Result<Option<Embeddings>> {
        self.check_kind(kind)?;
        let spec = self.spec();
        let (found, expected) = ((images.channels, images.height, images.width), (spec.channels, spec.image_px));
        if found != (expected.0, expected.1.0, expected.1.1) {
            let (channels, (height, width)) = expected;
            return Err(Error::Input {
                what: format!("images are [B, {}, {}, {}]", found.0, found.1, found.2),
                hint: Some(format!("this encoder reads [B, {channels}, {height}, {width}]")),
            });
        }
        let mut all = Embeddings::default();
        for start in (0..images.count).step_by(BATCH) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (shape, values) = self.compute(&images.range(start..images.count.min(start + BATCH)), kind);
            all.shape = shape[1..].to_vec();
            all.values.extend(values);
        }
        Ok(Some(all))
    }
}
