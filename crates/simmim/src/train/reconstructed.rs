//! Looking at a tokenizer: what images become of their tokens, and how many tokens are in use.

use crate::error::Result;
use crate::picture::{Picture, Sheet};
use crate::tokenizer::DiscreteVae;
use simmim_data::{OrderedPass, Skipped, Source, Subset, Transform};
use simmim_engine::{Backend, Images};
use std::sync::Arc;

/// Images of a source that are looked at; more cost time at every look.
const MOST_IMAGES: usize = 256;

/// Images that are shown, each beside its reconstruction.
const PICTURES: usize = 12;

/// Images beside each other in a picture.
const PAIRS_OF_A_ROW: usize = 3;

/// What came of images that went through their most likely tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstructed {
    /// Mean absolute error of a pixel value, white being 1.
    pub l1: f64,
    /// Different tokens among those of all images.
    pub tokens_in_use: usize,
    /// Tokens there are.
    pub vocabulary: usize,
    /// Exponential of the entropy of their frequencies: how many tokens it would be, were all as frequent.
    pub perplexity: f64,
}

/// The images that are looked at, always the same.
pub(super) struct Looked {
    /// In 0–1, `[B, C, H, W]`.
    pixels: Vec<f32>,
    skipped: Vec<Skipped>,
    height: usize,
    width: usize,
    batch_size: usize,
}

impl Looked {
    /// Decodes them once; unreadable ones are left out.
    ///
    /// # Errors
    /// If reading stops for another reason than single images.
    pub(super) fn new(
        source: Arc<dyn Source>,
        transform: Transform,
        batch_size: usize,
        workers: usize,
    ) -> Result<Self> {
        let (height, width) = (transform.height, transform.width);
        let mut looked = Self { pixels: Vec::new(), skipped: Vec::new(), height, width, batch_size };
        let subset = Arc::new(Subset::spread(source, MOST_IMAGES));
        for batch in OrderedPass::new(subset, transform, batch_size, workers)? {
            let batch = batch?;
            looked.pixels.extend(&batch.images);
            looked.skipped.extend(batch.skipped);
        }
        Ok(looked)
    }

    /// Images that could not be read.
    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether there is no image at all.
    pub(super) fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Measures and shows what they become of their most likely tokens.
    pub(super) fn reconstruct<B: Backend>(&self, b: &B, vae: &DiscreteVae) -> (Reconstructed, Sheet) {
        let (config, height, width) = (vae.config(), self.height, self.width);
        let image_len = config.channels * height * width;
        let grid = (height / config.stride_px(), width / config.stride_px());
        let mut frequencies = vec![0usize; config.vocabulary];
        let mut reconstructions = Vec::with_capacity(self.pixels.len());
        for pixels in self.pixels.chunks(self.batch_size * image_len) {
            let images = Images { pixels, count: pixels.len() / image_len, channels: config.channels, height, width };
            b.start(false);
            let tokens = vae.tokens(b, &images);
            tokens.iter().for_each(|token| frequencies[*token as usize] += 1);
            reconstructions.extend(vae.images(b, &tokens, grid));
        }
        let difference = |(a, b): (&f32, &f32)| (*a as f64 - *b as f64).abs();
        let error: f64 = self.pixels.iter().zip(&reconstructions).map(difference).sum();
        let measured = Reconstructed {
            l1: error / self.pixels.len() as f64,
            tokens_in_use: frequencies.iter().filter(|f| **f > 0).count(),
            vocabulary: config.vocabulary,
            perplexity: perplexity(&frequencies),
        };
        let picture = |pixels: &[f32]| Picture { channels: config.channels, height, width, pixels: pixels.to_vec() };
        let count = self.pixels.len() / image_len;
        let shown: Vec<Picture> = (0..PICTURES.min(count))
            .map(|i| i * count / PICTURES.min(count) * image_len)
            .flat_map(|at| [&self.pixels, &reconstructions].map(|all| picture(&all[at..at + image_len])))
            .collect();
        let mut sheet = Sheet::new(["original", "from tokens"].repeat(PAIRS_OF_A_ROW));
        shown.chunks(2 * PAIRS_OF_A_ROW).for_each(|row| sheet.push_row("", row));
        (measured, sheet)
    }
}

/// Exponential of the entropy of frequencies.
fn perplexity(frequencies: &[usize]) -> f64 {
    let total: usize = frequencies.iter().sum();
    let entropy = |frequency: &usize| {
        let share = *frequency as f64 / total as f64;
        if share > 0.0 { -share * share.ln() } else { 0.0 }
    };
    frequencies.iter().map(entropy).sum::<f64>().exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_perplexity_of_equal_frequencies_is_their_number() {
        assert!((perplexity(&[3, 0, 3, 3]) - 3.0).abs() < 1e-12);
        assert_eq!(perplexity(&[0, 7]), 1.0);
    }
}
