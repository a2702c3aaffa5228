//! Features of images, batch by batch: what k-NN, probes and `embed` all compute.

use super::shares::{Pass, each_batch};
use crate::encoders::{Encode, Encoder, ForwardContext, NeededFeatures, VisibleTokens};
use crate::error::{Error, Result};
use crate::memory;
use crate::weights::first_not_finite;
use simmim_data::{Batch, Skipped, Source, Transform};
use simmim_engine::{Backend, Collective, Images};
use std::sync::Arc;

/// Images per batch.
pub(super) const BATCH: usize = 64;

/// What is computed of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureKind {
    /// Which tokens it is made of.
    pub tokens: FeatureTokens,
    /// The block whose output is used, counted from 1; `None`: the output of the encoder after its last norm.
    pub block: Option<usize>,
}

/// Which tokens the features of an image are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureTokens {
    /// The mean of the patch tokens, `[D]`; that of a fine-tuned ViT behind its last norm, which is over the mean.
    Mean,
    /// The class token, `[D]`.
    Class,
    /// Every patch token, `[h·w, D]`.
    Patches,
}

/// Features of some images.
pub(super) struct FeatureBatch {
    /// Numbers of the images in the source.
    pub(super) samples: Vec<usize>,
    /// Their classes.
    pub(super) labels: Vec<Option<usize>>,
    /// The images that could not be read.
    pub(super) skipped: Vec<Skipped>,
    /// Shape of the features of one image; empty if there is none.
    pub(super) shape: Vec<usize>,
    /// `[B, D]` or `[B, h·w, D]`.
    pub(super) values: Vec<f32>,
}

/// Computes features of the images of a source, from image `first` on, on all ranks, and passes them to `take` on the first
/// one, in the order of the source. Returns whether it ended early because `is_stopping` was true on a rank.
///
/// # Errors
/// If reading fails for another reason than an unreadable image, a feature is not finite, those of `take`, or if a rank is
/// lost.
///
/// # Panics
/// If `first` is neither the first image of a batch nor behind the last one.
pub(super) fn stream<B: Backend>(
    (b, encoder): (&B, &Encoder),
    collective: &mut dyn Collective,
    source: &Arc<dyn Source>,
    transform: Transform,
    kind: FeatureKind,
    workers: usize,
    first: usize,
    take: impl FnMut(FeatureBatch) -> Result<()>,
    is_stopping: impl Fn() -> bool,
) -> Result<bool> {
    let (channels, height, width) = (transform.normalization.mean.len(), transform.height, transform.width);
    let what = || format!("{BATCH} images of {height} × {width} px");
    let images = memory::of_values(BATCH * channels * height * width);
    memory::check(what, images.saturating_mul(workers as u64 + 2))?;
    let compute = |batch: Batch| {
        let Batch { samples, labels, skipped, images: pixels, .. } = batch;
        let mut features = FeatureBatch { samples, labels, skipped, shape: Vec::new(), values: Vec::new() };
        if !features.samples.is_empty() {
            let images = Images { pixels: &pixels, count: features.samples.len(), channels, height, width };
            b.start(false);
            let computed = compute(b, encoder, &images, kind);
            features.shape = b.shape(&computed)[1..].to_vec();
            features.values = b.read(&computed);
        }
        match first_not_finite(&features.values) {
            None => Ok(features),
            Some((index, value)) => {
                let of_image: usize = features.shape.iter().product();
                Err(Error::OutputNotFinite {
                    what: format!("feature {}", index % of_image),
                    image: source.name(features.samples[index / of_image]),
                    value: value.into(),
                })
            }
        }
    };
    let pass = Pass { source: Arc::clone(source), transform, batch: BATCH, workers, first };
    each_batch(pass, collective, compute, take, is_stopping)
}

/// Features of images, `[B, D]` or `[B, h·w, D]`.
pub(super) fn compute<B: Backend>(b: &B, encoder: &Encoder, images: &Images, kind: FeatureKind) -> B::Tensor {
    let mut context = ForwardContext::evaluate();
    let tokens = encoder.embed(b, images); // [B, N, D]
    let patches = |tokens: B::Tensor, context: &mut ForwardContext| match kind.block {
        None => encoder.encode(b, tokens, VisibleTokens::All, NeededFeatures::All, context),
        Some(block) => {
            let map = encoder.features(b, tokens, &[block], context).remove(0);
            let [images, h, w, width] = b.shape(&map)[..] else { panic!("a map is [B, h, w, D]") };
            b.reshape(&map, &[images, h * w, width])
        }
    };
    match (kind.tokens, kind.block) {
        (FeatureTokens::Class, block) => encoder.class_token(b, tokens, block, &mut context), // [B, D]
        (FeatureTokens::Patches, _) => patches(tokens, &mut context),                         // [B, h·w, D]
        (FeatureTokens::Mean, None) => encoder.pool(b, &patches(tokens, &mut context)),       // [B, D]
        (FeatureTokens::Mean, Some(_)) => b.mean_tokens(&patches(tokens, &mut context)),      // [B, D]
    }
}
