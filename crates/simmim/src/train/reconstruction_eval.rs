//! Evaluation of a tokenizer: its reconstruction error and how much of its vocabulary is in use.

use super::Event;
use super::annealing::Annealing;
use super::records::Records;
use super::task::{Ended, Evaluation, is_due_every};
use crate::error::Result;
use crate::memory;
use crate::pictures::{Picture, Sheet};
use crate::recipe::{DataRecipe, TokenizerRecipe};
use crate::report::{Shown, tokenizer_page};
use crate::run::Resolved;
use crate::tokenizer::{DiscreteVae, TOKENIZER_FILE};
use crate::weights::{self, RECIPE_KEY};
use simmim_data::{OrderedPass, Skipped, Source, Subset, Transform};
use simmim_engine::{Backend, Images};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Largest number of images that are reconstructed; an evaluation takes time in proportion to it.
const MAX_IMAGES: usize = 256;

/// Number of images in the picture, each next to its reconstruction.
const PICTURES: usize = 12;

/// Pairs of image and reconstruction per row of the picture.
const PAIRS_PER_ROW: usize = 3;

/// How well images are reconstructed from their most likely tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerReport {
    /// Mean absolute error of pixel values from 0 to 1.
    pub l1: f64,
    /// Number of different tokens over all images.
    pub tokens_in_use: usize,
    /// Size of the vocabulary, `K`.
    pub vocabulary: usize,
    /// Perplexity of the token frequencies: the exponential of their entropy, at most the size of the vocabulary.
    pub perplexity: f64,
}

/// The images that are reconstructed, the same at every evaluation.
pub(super) struct ReconstructionEval {
    /// Values from 0 to 1, `[B, C, H, W]`.
    pixels: Vec<f32>,
    skipped: Vec<Skipped>,
    height: usize,
    width: usize,
    batch_size: usize,
}

impl ReconstructionEval {
    /// Checks that there is memory for the images, of which there are `images`, and their reconstructions.
    ///
    /// # Errors
    /// If the system does not give it.
    pub(super) fn check_memory(images: usize, data: &DataRecipe) -> Result<()> {
        let (height, width) = data.image_size.height_and_width();
        let count = images.min(MAX_IMAGES);
        let what = || format!("keeping {count} images of {height} × {width} px and their reconstructions");
        memory::check(what, memory::of_values(2 * data.channels * height * width).saturating_mul(count as u64))
    }

    /// Decodes the images once; unreadable images are left out.
    ///
    /// # Errors
    /// If reading fails for a reason other than an unreadable image.
    pub(super) fn new(
        source: Arc<dyn Source>,
        transform: Transform,
        batch_size: usize,
        workers: usize,
    ) -> Result<Self> {
        let (height, width) = (transform.height, transform.width);
        let mut images = Self { pixels: Vec::new(), skipped: Vec::new(), height, width, batch_size };
        let subset = Arc::new(Subset::spread(source, MAX_IMAGES));
        for batch in OrderedPass::new(subset, transform, batch_size, workers)? {
            let batch = batch?;
            images.pixels.extend(&batch.images);
            images.skipped.extend(batch.skipped);
        }
        Ok(images)
    }

    /// Images that could not be read.
    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether there is no image.
    pub(super) fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Reconstructs the images from their most likely tokens; returns the measures and a picture.
    pub(super) fn reconstruct<B: Backend>(&self, b: &B, vae: &DiscreteVae) -> (TokenizerReport, Sheet) {
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
        let report = TokenizerReport {
            l1: error / self.pixels.len() as f64,
            tokens_in_use: frequencies.iter().filter(|f| **f > 0).count(),
            vocabulary: config.vocabulary,
            perplexity: perplexity(&frequencies),
        };
        let picture = |pixels: &[f32]| Picture { channels: config.channels, height, width, pixels: pixels.to_vec() };
        let count = self.pixels.len() / image_len;
        let shown: Vec<Picture> = (0..PICTURES.min(count))
            .map(|i| i * count / PICTURES.min(count) * image_len)
            .flat_map(|start| [&self.pixels, &reconstructions].map(|all| picture(&all[start..start + image_len])))
            .collect();
        let mut sheet = Sheet::new(["original", "from tokens"].repeat(PAIRS_PER_ROW));
        shown.chunks(2 * PAIRS_PER_ROW).for_each(|row| sheet.push_row("", row));
        (report, sheet)
    }
}

/// Evaluates reconstructions, and writes the picture, the report and the weights of the tokenizer.
pub(super) struct TokenizerEvaluation {
    pub(super) images: ReconstructionEval,
    pub(super) vae: Rc<DiscreteVae>,
    pub(super) resolved: Resolved<TokenizerRecipe>,
    pub(super) annealing: Annealing,
    pub(super) every: u64,
    pub(super) total: u64,
    /// Whether the images are held out, rather than training images.
    pub(super) is_held_out: bool,
}

impl TokenizerEvaluation {
    fn write_page(&self, records: &mut Records, shown: Shown) -> Result<()> {
        let log = records.flushed_log()?;
        let page = tokenizer_page(&log, &self.resolved, records.state().steps, self.total, shown, self.is_held_out);
        Ok(page.write(&records.path().join("report.html"))?)
    }
}

impl<B: Backend> Evaluation<B> for TokenizerEvaluation {
    fn is_due(&self, steps: u64, total: u64) -> bool {
        is_due_every(self.every, steps, total) && !self.images.is_empty()
    }

    fn evaluate(
        &mut self,
        b: &B,
        records: &mut Records,
        observe: &mut dyn FnMut(Event),
        _: &dyn Fn() -> bool,
    ) -> Result<Ended> {
        let steps = records.state().steps;
        let (report, sheet) = self.images.reconstruct(b, &self.vae);
        observe(Event::Reconstructed { steps, report: &report });
        records.log_metrics(
            &[
                ("l1", Some(report.l1)),
                ("tokens_in_use", Some(report.tokens_in_use as f64)),
                ("perplexity", Some(report.perplexity)),
                ("temperature", Some(self.annealing.temperature(steps))),
            ],
            &[("reconstruction/l1", report.l1), ("tokens/perplexity", report.perplexity)],
        )?;
        let png = records.picture("reconstructions", &sheet)?;
        self.write_page(records, Shown { step: steps, png: &png })?;
        let metadata = HashMap::from([(RECIPE_KEY.to_owned(), self.resolved.to_weights_metadata())]);
        weights::save_values_atomically(&records.path().join(TOKENIZER_FILE), b, metadata)?;
        Ok(Ended::Whole)
    }

    fn report(&mut self, records: &mut Records) -> Result<()> {
        match records.last_picture(self.every) {
            Some((step, png)) => self.write_page(records, Shown { step, png: &png }),
            None => Ok(()),
        }
    }
}

/// Perplexity: the exponential of the entropy of the frequencies.
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
