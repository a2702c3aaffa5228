//! One optimizer step: micro-batches, backward, reduction over ranks, checks for finite numbers, clipping, AdamW and
//! EMA.
//!
//! The training loop and the benchmark both use it.

use super::groups::Group;
use super::schedule::Schedule;
use super::task::Task;
use crate::error::{Error, Result};
use crate::recipe::TrainRecipe;
use simmim_data::Batch;
use simmim_engine::{Backend, Collective, OptimizerStep, ParameterId, Slot, StepSize};

/// A phase of a step that has just ended. `Forward` and `Backward` occur once per micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Gradients are cleared, and masks or labels are drawn.
    Prepared,
    /// The loss of a micro-batch is computed.
    Forward,
    /// The gradients of a micro-batch are computed.
    Backward,
    /// The parameters are updated.
    Stepped,
}

/// A model in training: its parameters in a backend, its task, and the settings of the optimizer.
pub struct Learner<B, T> {
    backend: B,
    task: T,
    schedule: Schedule,
    groups: Vec<Group>,
    weight_decay: f64,
    betas: (f64, f64),
    eps: f64,
    clip_norm: Option<f64>,
    accumulation_steps: usize,
    average_decay: f64,
}

/// The result of a step, the same on every rank.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// The loss of the whole batch.
    pub loss: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub lr: f64,
    /// Number of ranks that want to stop.
    pub ranks_stopping: usize,
    /// Unreadable images of this batch, over all ranks.
    pub skipped: u64,
}

impl<B: Backend, T: Task> Learner<B, T> {
    /// A learner; `groups` has the group of each parameter in the order of the backend's table.
    pub fn new(backend: B, task: T, train: &TrainRecipe, schedule: Schedule, groups: Vec<Group>) -> Self {
        Self {
            backend,
            task,
            schedule,
            groups,
            weight_decay: train.weight_decay,
            betas: train.betas,
            eps: train.eps,
            clip_norm: (train.clip_grad > 0.0).then_some(train.clip_grad),
            accumulation_steps: train.accumulation_steps,
            average_decay: train.average_decay,
        }
    }

    /// The backend that holds the parameters.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// Whether an exponential moving average of the weights is kept.
    pub fn has_average(&self) -> bool {
        self.average_decay > 0.0
    }

    /// Does step `number`, counted from 1, on this rank's share of a batch. `is_stopping` is whether this rank wants to
    /// stop. `done` is called after each phase.
    ///
    /// # Errors
    /// If the loss or a gradient is not finite, in which case the parameters are unchanged, or a rank is lost.
    pub fn step(
        &self,
        collective: &mut dyn Collective,
        batch: &mut Batch,
        number: u64,
        is_stopping: bool,
        done: &mut dyn FnMut(Phase),
    ) -> Result<Stepped> {
        let b = &self.backend;
        b.clear_gradients();
        let inputs = self.task.prepare(batch);
        done(Phase::Prepared);
        let micro_batch = batch.samples.len() / self.accumulation_steps;
        assert_eq!(micro_batch * self.accumulation_steps, batch.samples.len(), "micro-batches are of one size");
        let (mut sums, mut weight) = (Vec::with_capacity(self.accumulation_steps), 0.0);
        for i in 0..self.accumulation_steps {
            b.start(true);
            let loss = self.task.loss(b, batch, &inputs, i * micro_batch..(i + 1) * micro_batch);
            done(Phase::Forward);
            match i + 1 == self.accumulation_steps {
                false => b.backward(&loss.sum),
                true => b.backward_and_reduce(&loss.sum, collective)?,
            }
            done(Phase::Backward);
            weight += loss.weight;
            sums.push(loss.sum);
        }
        // one all-reduce for everything that all ranks need
        let sum: f64 = sums.iter().map(|sum| b.read(sum)[0] as f64).sum();
        let mut totals = [sum, weight, f64::from(u8::from(is_stopping)), batch.skipped.len() as f64];
        collective.all_reduce_sum_f64(&mut totals)?;
        let [sum, weight, ranks_stopping, skipped] = totals;
        let denominator = self.task.denominator(weight);
        let loss = sum / denominator;
        if !loss.is_finite() {
            return Err(Error::NotFinite { step: number, what: "the loss".into(), value: loss });
        }
        let gradient_norm = self.update(number, denominator)?;
        done(Phase::Stepped);
        Ok(Stepped {
            loss,
            gradient_norm,
            lr: self.schedule.lr_of_step(number),
            ranks_stopping: ranks_stopping as usize,
            skipped: skipped as u64,
        })
    }

    /// Divides the gradients of the summed loss by `denominator`, clips them and applies them. Returns their norm
    /// before clipping.
    fn update(&self, number: u64, denominator: f64) -> Result<f64> {
        let b = &self.backend;
        let step_size = |group: &Group| StepSize {
            lr: self.schedule.lr_of_group(number, group.lr_scale) as f32,
            weight_decay: if group.decays { self.weight_decay as f32 } else { 0.0 },
        };
        let step_sizes: Vec<_> = self.groups.iter().map(step_size).collect();
        let norm = b.step(&OptimizerStep {
            number,
            betas: (self.betas.0 as f32, self.betas.1 as f32),
            eps: self.eps as f32,
            gradient_scale: 1.0 / denominator,
            clip_norm: self.clip_norm,
            step_sizes: &step_sizes,
        });
        let norm = b.read(&norm)[0] as f64;
        if !norm.is_finite() {
            return Err(Error::NotFinite { step: number, what: self.first_nonfinite_gradient(), value: norm });
        }
        if self.has_average() {
            b.update_average(average_decay(self.average_decay, number) as f32);
        }
        Ok(norm)
    }

    /// The name of the first gradient that is not finite, for the error.
    fn first_nonfinite_gradient(&self) -> String {
        let b = &self.backend;
        let is_nonfinite =
            |id: usize| b.read_parameter(Slot::Gradients, ParameterId(id)).iter().any(|g| !g.is_finite());
        let found = b.table().iter().enumerate().find(|(id, _)| is_nonfinite(*id));
        found.map_or("the gradients' norm".into(), |(_, parameter)| format!("the gradient of `{}`", parameter.name))
    }
}

/// Decay of the EMA at a step. It is smaller at first, so that the initial weights are soon forgotten (TensorFlow,
/// `tf.train.ExponentialMovingAverage`, `num_updates`).
fn average_decay(decay: f64, step: u64) -> f64 {
    decay.min((1.0 + step as f64) / (10.0 + step as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SimMim;
    use crate::recipe::{Recipe, resolve};
    use crate::targets::Colors;
    use crate::train::{Pretraining, groups};
    use crate::weights::{Builder, initialize};
    use simmim_engine::{Alone, Operations};
    use std::rc::Rc;

    const IMAGES: usize = 4;

    fn learner(recipe: &Recipe) -> Learner<crate::testing::TestBackend, Pretraining> {
        let mut builder = Builder::default();
        let model = SimMim::new(recipe, &Colors::unknown(1), &crate::testing::DEVICE, &mut builder).unwrap();
        let (table, inits) = builder.finish();
        let groups = groups::groups(&table, model.encoder(), &recipe.train);
        let backend = crate::testing::open(table);
        initialize(&backend, &inits, 0);
        let task = Pretraining::new(recipe, Rc::new(model), 0);
        Learner::new(backend, task, &recipe.train, Schedule::constant(0.0), groups)
    }

    #[test]
    fn loss_and_gradient_are_means_over_the_hidden_pixels_of_all_micro_batches() {
        let edits = ["encoder.width=16", "encoder.depth=1", "train.batch_size=4", "train.accumulation_steps=2"];
        let recipe = resolve("demo", &edits.map(str::to_owned)).unwrap();
        let mut batch = Batch {
            number: 0,
            epoch: 0,
            images: (0..IMAGES * 28 * 28).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect(),
            samples: (0..IMAGES).collect(),
            labels: vec![None; IMAGES],
            skipped: Vec::new(),
        };
        let stepped = learner(&recipe).step(&mut Alone, &mut batch, 1, false, &mut |_| ()).unwrap();

        // the sum over the whole batch in one pass; 60 % of 49 units of 4 × 4 pixels, rounded up, are hidden
        let whole = learner(&recipe);
        let (b, hidden) = (whole.backend(), (IMAGES * 30 * 16) as f64);
        let inputs = whole.task().prepare(&mut batch);
        b.clear_gradients();
        b.start(true);
        let loss = whole.task().loss(b, &batch, &inputs, 0..IMAGES);
        let sum = b.read(&loss.sum)[0] as f64;
        b.backward(&loss.sum);
        let norm = b.read_slot(Slot::Gradients).iter().map(|g| (*g as f64).powi(2)).sum::<f64>().sqrt();
        assert!((stepped.loss - sum / hidden).abs() < 1e-5 * stepped.loss, "{} {}", stepped.loss, sum / hidden);
        let (found, expected) = (stepped.gradient_norm, norm / hidden);
        assert!((found - expected).abs() < 1e-4 * expected, "{found} {expected}");
    }

    #[test]
    fn the_average_follows_fast_at_first_and_slowly_later() {
        assert_eq!(average_decay(0.9, 1), 2.0 / 11.0);
        assert_eq!(average_decay(0.9, 1000), 0.9);
    }
}
