//! One update, in two halves: what the training loop runs and the benchmark times.

use crate::encoder::{Encode, Pass};
use crate::error::{Error, Result};
use crate::mask::{Grid, Mask, MaskStrategy, strategy};
use crate::model::SimMim;
use crate::recipe::{Recipe, TrainRecipe};
use simmim_data::rng::rng;
use simmim_data::{Batch, Purpose};
use simmim_engine::{Backend, Cpu, Images, Operations, Slot, StepSize, Update};

/// What is done when a part of an update ends; forward and backward come once for each part of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Masks are drawn.
    Prepared,
    /// The loss is known.
    Forward,
    /// Its gradients are.
    Backward,
    /// Their norm is.
    Norm,
    /// The parameters are changed.
    Updated,
}

/// The first half of masked pre-training: a model, and what is hidden from it.
pub struct Masked {
    pub(super) model: SimMim,
    pub(super) mask: Box<dyn MaskStrategy>,
    pub(super) grid: Grid,
    seed: u64,
    /// Images of a part; the parts of an update are computed one after the other.
    part: usize,
    recomputes_blocks: bool,
}

impl Masked {
    /// Images masked as in `recipe`, for its `model`.
    pub fn new(recipe: &Recipe, model: SimMim, seed: u64) -> Self {
        let (height, width) = recipe.data.image_size.height_and_width();
        Self {
            model,
            mask: strategy(&recipe.mask),
            grid: Grid { rows: height / recipe.mask.unit_px, columns: width / recipe.mask.unit_px },
            seed,
            part: recipe.train.batch_size / recipe.train.accumulation_steps,
            recomputes_blocks: recipe.train.recompute_blocks,
        }
    }

    /// The model.
    pub fn model(&self) -> &SimMim {
        &self.model
    }

    /// The masks of a batch.
    pub fn masks(&self, batch: &Batch) -> Vec<Mask> {
        let draw = |sample: &usize| {
            self.mask.sample(&mut rng(self.seed, Purpose::Mask, batch.epoch, *sample as u64), self.grid)
        };
        batch.samples.iter().map(draw).collect()
    }

    /// Adds the gradients of a batch to the backend's and tells `done` of each phase; returns the loss.
    pub fn gradients(&self, b: &Cpu, batch: &Batch, done: &mut dyn FnMut(Phase)) -> f64 {
        let spec = self.model.encoder().spec();
        let masks = self.masks(batch);
        let (height, width) = spec.image_px;
        let images = Images { pixels: &batch.images, count: masks.len(), channels: spec.channels, height, width };
        // all parts of the update share the whole batch's denominator, so cutting it changes nothing
        let weight_sum = self.model.weight_sum(&self.model.hidden(&masks));
        let mut loss = 0.0;
        done(Phase::Prepared);
        for start in (0..masks.len()).step_by(self.part) {
            let range = start..start + self.part;
            let mut pass = Pass::of_samples(self.seed, batch.epoch, &batch.samples[range.clone()])
                .recomputing_blocks(self.recomputes_blocks);
            let hidden = self.model.hidden(&masks[range.clone()]);
            b.start(true);
            let value = self.model.loss(b, &images.part(range), &hidden, weight_sum, &mut pass);
            loss += b.read(&value)[0] as f64;
            done(Phase::Forward);
            b.backward(&value);
            done(Phase::Backward);
        }
        loss
    }
}

/// The second half, whatever is learnt: clips the gradients of `loss` and changes the parameters, `steps` in the
/// table's order; tells `done` of each phase, and returns the gradients' norm before clipping.
///
/// # Errors
/// If the loss or a gradient is not finite.
pub fn apply(
    b: &Cpu,
    train: &TrainRecipe,
    number: u64,
    loss: f64,
    steps: &[StepSize],
    done: &mut dyn FnMut(Phase),
) -> Result<f64> {
    let norm = b.gradient_norm();
    check_finite(b, number, loss, norm)?;
    done(Phase::Norm);
    // as torch's clip_grad_norm_: the 1e-6 is its own
    let clip = if train.clip_grad > 0.0 { (train.clip_grad / (norm + 1e-6)).min(1.0) } else { 1.0 };
    b.update(&Update {
        number,
        betas: (train.betas.0 as f32, train.betas.1 as f32),
        eps: train.eps as f32,
        gradient_scale: clip as f32,
        steps,
    });
    done(Phase::Updated);
    Ok(norm)
}

fn check_finite(b: &Cpu, update: u64, loss: f64, norm: f64) -> Result<()> {
    if !loss.is_finite() {
        return Err(Error::NotFinite { update, what: "the loss".into(), value: loss });
    }
    if !norm.is_finite() {
        let gradients = b.read_slot(Slot::Gradients);
        let broken = b.table().iter().find(|p| gradients[p.range.clone()].iter().any(|g| !g.is_finite()));
        let what = broken.map_or("the gradients' norm".into(), |p| format!("the gradient of `{}`", p.name));
        return Err(Error::NotFinite { update, what, value: norm });
    }
    Ok(())
}
