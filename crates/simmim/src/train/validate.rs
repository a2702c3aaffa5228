//! Looking at held-out images: their loss, the baseline's, and pictures of the same few every time.

use crate::error::Result;
use crate::mask::{Grid, MaskStrategy};
use crate::model::SimMim;
use crate::picture::Sheet;
use crate::reconstruct::push_pictures;
use simmim_data::rng::rng;
use simmim_data::{Normalisation, OrderedPass, Purpose, Skipped, Source, Subset, Transform};
use simmim_engine::{Backend, Images};
use std::sync::Arc;

/// Images of a source that are looked at; more cost time at every validation.
const MOST_IMAGES: usize = 512;

/// Images that pictures are made of.
const PICTURES: usize = 8;

/// Masks of validation come from an epoch that training never reaches.
const MASK_EPOCH: u64 = u64::MAX;

/// Held-out images with fixed masks.
pub(super) struct Validation {
    images: Vec<f32>,
    masks: Vec<crate::mask::Mask>,
    skipped: Vec<Skipped>,
    shape: (usize, usize, usize),
    batch_size: usize,
}

/// What came of a validation.
pub(super) struct Measured {
    pub(super) loss: f64,
    pub(super) baseline: Option<f64>,
}

impl Validation {
    /// Decodes the images once; unreadable ones are left out.
    ///
    /// # Errors
    /// If reading stops for another reason than single images.
    pub(super) fn new(
        source: Arc<dyn Source>,
        transform: Transform,
        mask: &dyn MaskStrategy,
        grid: Grid,
        seed: u64,
        batch_size: usize,
        workers: usize,
    ) -> Result<Self> {
        let shape = (transform.normalisation.mean.len(), transform.height, transform.width);
        let subset = Arc::new(Subset::spread(source, MOST_IMAGES));
        let mut all = Self { images: Vec::new(), masks: Vec::new(), skipped: Vec::new(), shape, batch_size };
        for batch in OrderedPass::new(subset, transform, batch_size, workers)? {
            let batch = batch?;
            all.images.extend(&batch.images);
            all.skipped.extend(batch.skipped);
            let draw = |sample: &usize| mask.sample(&mut rng(seed, Purpose::Mask, MASK_EPOCH, *sample as u64), grid);
            all.masks.extend(batch.samples.iter().map(draw));
        }
        Ok(all)
    }

    fn images(&self) -> Images<'_> {
        let (channels, height, width) = self.shape;
        Images { pixels: &self.images, count: self.masks.len(), channels, height, width }
    }

    /// Loss of the model, and of predicting the mean of what is visible.
    pub(super) fn measure<B: Backend>(&self, b: &B, model: &SimMim) -> Measured {
        let weight_sum = model.weight_sum(&model.hidden(&self.masks));
        let (mut loss, mut baseline) = (0.0, Some(0.0));
        for start in (0..self.masks.len()).step_by(self.batch_size) {
            let range = start..(start + self.batch_size).min(self.masks.len());
            let images = self.images().part(range.clone());
            let hidden = model.hidden(&self.masks[range]);
            b.start(false);
            let part = model.loss(b, &images, &hidden, weight_sum, &mut crate::encoder::Pass::evaluate());
            loss += b.read(&part)[0] as f64;
            let part = model.baseline(b, &images, &hidden, weight_sum);
            baseline = baseline.zip(part).map(|(sum, part)| sum + part);
        }
        Measured { loss, baseline }
    }

    /// Pictures of predictions on a few of the images, always the same.
    pub(super) fn pictures<B: Backend>(&self, b: &B, model: &SimMim, normalisation: &Normalisation) -> Sheet {
        let count = PICTURES.min(self.masks.len());
        let mut sheet = crate::reconstruct::sheet();
        for i in 0..count {
            let image = i * self.masks.len() / count;
            let images = self.images().part(image..image + 1);
            push_pictures(
                &mut sheet,
                "",
                b,
                model,
                &images,
                &model.hidden(&self.masks[image..image + 1]),
                normalisation,
            );
        }
        sheet
    }

    /// Images that could not be read.
    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether there is no image at all.
    pub(super) fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }
}
