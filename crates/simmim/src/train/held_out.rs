//! Evaluation of pre-training: the held-out loss of the model and of a baseline, and pictures of predictions.

use super::pretrain::mask_grid;
use super::records::Records;
use super::task::{Ended, Evaluation, is_due_every};
use super::{Event, Options};
use crate::encoders::ForwardContext;
use crate::error::Result;
use crate::masks::{Mask, strategy};
use crate::memory;
use crate::model::{BatchMask, SimMim};
use crate::pictures::{Sheet, prediction_sheet, push_pictures};
use crate::recipe::DataRecipe;
use crate::report::{Shown, run_page};
use crate::run::Resolved;
use simmim_data::rng::rng;
use simmim_data::{Augmentation, OrderedPass, Purpose, Skipped, Subset};
use simmim_engine::Backend;
use std::rc::Rc;
use std::sync::Arc;

/// Largest number of images that are evaluated; a validation takes time in proportion to it.
const MAX_IMAGES: usize = 512;

/// Number of images in the picture of predictions.
const PICTURES: usize = 8;

/// Original, masked, prediction and pasted prediction.
const PICTURES_PER_IMAGE: usize = 4;

/// Epoch from which the masks of validation are drawn; training never reaches it, so they differ from its masks.
const MASK_EPOCH: u64 = u64::MAX;

/// Held-out images with fixed masks. Without held-out images, these are training images with a center crop.
pub(super) struct HeldOut {
    pixels: Vec<f32>,
    masks: Vec<Mask>,
    batch_mask: BatchMask,
    skipped: Vec<Skipped>,
    data: DataRecipe,
    batch_size: usize,
}

/// Loss of the model and of a baseline.
pub(super) struct HeldOutLoss {
    pub(super) loss: f64,
    /// Loss of predicting the mean of the visible pixels; none where the target is classes.
    pub(super) baseline: Option<f64>,
}

impl HeldOut {
    /// Checks that there is memory for the images and the pictures of predictions.
    ///
    /// # Errors
    /// If the system does not give it.
    pub(super) fn check_memory(options: &Options) -> Result<()> {
        let data = &options.recipe.data;
        let (height, width) = data.image_size.height_and_width();
        let images = options.val.as_ref().unwrap_or(&options.data).source.len().min(MAX_IMAGES);
        let what = || format!("keeping {images} images of {height} × {width} px and drawing predictions");
        let kept = (images + PICTURES_PER_IMAGE * PICTURES) as u64;
        memory::check(what, memory::of_values(data.channels * height * width).saturating_mul(kept))
    }

    /// Decodes the images once; unreadable images are left out. One of `world` ranks evaluates as many at a time as it trains on.
    ///
    /// # Errors
    /// If reading fails for a reason other than an unreadable image.
    pub(super) fn new(options: &Options, resolved: &Resolved, model: &SimMim, world: usize) -> Result<Self> {
        let recipe = &resolved.recipe;
        let source = Arc::clone(&options.val.as_ref().unwrap_or(&options.data).source);
        let subset = Arc::new(Subset::spread(source, MAX_IMAGES));
        let transform = recipe.data.transform(Augmentation::Center, resolved.run.normalization());
        let (strategy, grid) = (strategy(&recipe.mask), mask_grid(recipe));
        let batch_size = recipe.train.micro_batch(world);
        let (mut pixels, mut masks, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for batch in OrderedPass::new(subset, transform, batch_size, options.workers)? {
            let batch = batch?;
            pixels.extend(&batch.images);
            skipped.extend(batch.skipped);
            let draw = |sample: &usize| {
                strategy.sample(&mut rng(options.seed, Purpose::Mask, MASK_EPOCH, *sample as u64), grid)
            };
            masks.extend(batch.samples.iter().map(draw));
        }
        let batch_mask = model.batch_mask(&masks);
        Ok(Self { pixels, masks, batch_mask, skipped, data: recipe.data.clone(), batch_size })
    }

    /// Loss of the model and of the baseline over all held-out images.
    pub(super) fn loss<B: Backend>(&self, b: &B, model: &SimMim) -> HeldOutLoss {
        let denominator = model.denominator(self.batch_mask.all().weight());
        let (mut sum, mut baseline) = (0.0, Some(0.0));
        for start in (0..self.masks.len()).step_by(self.batch_size) {
            let range = start..(start + self.batch_size).min(self.masks.len());
            let images = self.data.images(&self.pixels).range(range.clone());
            let mask = self.batch_mask.range(range);
            b.start(false);
            let loss = model.loss(b, &images, &mask, &mut ForwardContext::evaluate());
            sum += b.read(&loss.sum)[0] as f64;
            baseline = baseline.zip(model.baseline(b, &images, &mask)).map(|(sum, part)| sum + part);
        }
        HeldOutLoss { loss: sum / denominator, baseline: baseline.map(|sum| sum / denominator) }
    }

    /// Pictures of predictions on [`PICTURES`] images, the same at every call.
    fn pictures<B: Backend>(&self, b: &B, model: &SimMim, resolved: &Resolved) -> Sheet {
        let count = PICTURES.min(self.masks.len());
        let mut sheet = prediction_sheet();
        let normalization = resolved.run.normalization();
        for i in 0..count {
            let image = i * self.masks.len() / count;
            let images = self.data.images(&self.pixels).range(image..image + 1);
            push_pictures(&mut sheet, "", b, model, &images, &self.masks[image], &normalization);
        }
        sheet
    }

    /// Images that could not be read.
    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

/// Evaluates the held-out loss, and writes pictures and the report.
pub(super) struct HeldOutEvaluation {
    pub(super) held_out: HeldOut,
    pub(super) model: Rc<SimMim>,
    pub(super) resolved: Resolved,
    pub(super) every: u64,
    pub(super) total: u64,
    /// Whether the images are held out, rather than training images.
    pub(super) is_held_out: bool,
}

impl HeldOutEvaluation {
    fn write_page(&self, records: &mut Records, shown: Shown) -> Result<()> {
        let log = records.flushed_log()?;
        let page = run_page(&log, &self.resolved, records.state().steps, self.total, shown, self.is_held_out);
        Ok(page.write(&records.path().join("report.html"))?)
    }
}

impl<B: Backend> Evaluation<B> for HeldOutEvaluation {
    fn is_due(&self, steps: u64, total: u64) -> bool {
        is_due_every(self.every, steps, total) && !self.held_out.masks.is_empty()
    }

    fn evaluate(
        &mut self,
        b: &B,
        records: &mut Records,
        observe: &mut dyn FnMut(Event),
        _: &dyn Fn() -> bool,
    ) -> Result<Ended> {
        let steps = records.state().steps;
        if self.is_held_out {
            let HeldOutLoss { loss, baseline } = self.held_out.loss(b, &self.model);
            observe(Event::Validated { steps, loss, baseline });
            records
                .log_metrics(&[("val_loss", Some(loss)), ("baseline_loss", baseline)], &[("loss/held-out", loss)])?;
        }
        let sheet = self.held_out.pictures(b, &self.model, &self.resolved);
        let png = records.picture("predictions", &sheet)?;
        self.write_page(records, Shown { step: steps, png: &png })?;
        Ok(Ended::Whole)
    }

    fn report(&mut self, records: &mut Records) -> Result<()> {
        match records.last_picture(self.every) {
            Some((step, png)) => self.write_page(records, Shown { step, png: &png }),
            None => Ok(()),
        }
    }
}
