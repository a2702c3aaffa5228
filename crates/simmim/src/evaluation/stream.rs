//! Features of images, batch by batch: what k-NN, probes and `embed` all compute.

use crate::encoders::{Encode, Encoder, ForwardContext, VisibleTokens};
use crate::error::{Error, Result};
use crate::memory;
use crate::weights::first_not_finite;
use simmim_data::{Batch, OrderedPass, Skipped, Source, Transform};
use simmim_engine::{Backend, Images};
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

/// Computes features of the images of a source in its order, from image `first` on, and passes them to `take`, which returns
/// whether to go on.
///
/// # Errors
/// If reading fails for another reason than an unreadable image, a feature is not finite, or those of `take`.
///
/// # Panics
/// If `first` is neither the first image of a batch nor behind the last one.
pub(super) fn stream<B: Backend>(
    b: &B,
    encoder: &Encoder,
    source: &Arc<dyn Source>,
    transform: Transform,
    kind: FeatureKind,
    workers: usize,
    first: usize,
    mut take: impl FnMut(FeatureBatch) -> Result<bool>,
) -> Result<()> {
    let (channels, height, width) = (transform.normalization.mean.len(), transform.height, transform.width);
    let what = || format!("{BATCH} images of {height} × {width} px");
    let images = memory::of_values(BATCH * channels * height * width);
    memory::check(what, images.saturating_mul(workers as u64 + 2))?;
    for batch in OrderedPass::from(first, Arc::clone(source), transform, BATCH, workers)? {
        let Batch { samples, labels, skipped, images: pixels, .. } = batch?;
        let mut features = FeatureBatch { samples, labels, skipped, shape: Vec::new(), values: Vec::new() };
        if !features.samples.is_empty() {
            let images = Images { pixels: &pixels, count: features.samples.len(), channels, height, width };
            b.start(false);
            let computed = compute(b, encoder, &images, kind);
            features.shape = b.shape(&computed)[1..].to_vec();
            features.values = b.read(&computed);
        }
        if let Some((index, value)) = first_not_finite(&features.values) {
            let of_image: usize = features.shape.iter().product();
            return Err(Error::OutputNotFinite {
                what: format!("feature {}", index % of_image),
                image: source.name(features.samples[index / of_image]),
                value: value.into(),
            });
        }
        if !take(features)? {
            break;
        }
    }
    Ok(())
}

/// Features of images, `[B, D]` or `[B, h·w, D]`.
pub(super) fn compute<B: Backend>(b: &B, encoder: &Encoder, images: &Images, kind: FeatureKind) -> B::Tensor {
    let mut context = ForwardContext::evaluate();
    let tokens = encoder.embed(b, images); // [B, N, D]
    let patches = |tokens: B::Tensor, context: &mut ForwardContext| match kind.block {
        None => encoder.encode(b, tokens, VisibleTokens::All, context),
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
