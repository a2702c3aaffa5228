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
use simmim_engine::{Alone, Backend, Collective, OptimizerStep, ParameterId, SendsBf16, Slot, StepSize};

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
    reduce_in_bf16: bool,
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

/// A step whose work is given to the device. Its numbers may not be known yet.
#[derive(Debug)]
pub struct Queued<T> {
    /// Number of ranks that want to stop.
    pub ranks_stopping: usize,
    /// Unreadable images of this batch, over all ranks.
    pub skipped: u64,
    number: u64,
    lr: f64,
    numbers: Numbers<T>,
}

/// Loss and norm of a step.
#[derive(Debug)]
enum Numbers<T> {
    Known {
        loss: f64,
        gradient_norm: f64,
    },
    /// The summed loss of each micro-batch, what their sum is divided by, and the norm.
    OnDevice {
        sums: Vec<T>,
        denominator: f64,
        norm: T,
    },
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
            reduce_in_bf16: train.reduce_in_bf16,
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

    /// Number of values of the parameters that do not train.
    pub(super) fn frozen_values(&self) -> usize {
        let each = self.backend.table().iter().zip(&self.groups);
        each.filter(|(_, group)| group.is_frozen).map(|(parameter, _)| parameter.range.len()).sum()
    }

    /// Whether an exponential moving average of the weights is kept.
    pub fn has_average(&self) -> bool {
        self.average_decay > 0.0
    }

    /// [`Learner::queue`], then [`Learner::read`].
    ///
    /// # Errors
    /// Those of both.
    pub fn step(
        &self,
        collective: &mut dyn Collective,
        batch: &mut Batch,
        number: u64,
        is_stopping: bool,
        done: &mut dyn FnMut(Phase),
    ) -> Result<Stepped> {
        let queued = self.queue(collective, batch, number, is_stopping, done)?;
        self.read(queued)
    }

    /// Does step `number`, counted from 1, on this rank's share of a batch. `is_stopping` is whether this rank wants to
    /// stop. `done` is called after each phase. A rank alone does not wait for a device that computes asynchronously.
    ///
    /// # Errors
    /// If a rank is lost, or the loss or a gradient is not finite, in which case the parameters are unchanged; where nothing
    /// is waited for, [`Learner::read`] says so later, and parameters are unchanged if the norm is not finite.
    pub fn queue(
        &self,
        collective: &mut dyn Collective,
        batch: &mut Batch,
        number: u64,
        is_stopping: bool,
        done: &mut dyn FnMut(Phase),
    ) -> Result<Queued<B::Tensor>> {
        let b = &self.backend;
        b.clear_gradients();
        let inputs = self.task.prepare(batch);
        done(Phase::Prepared);
        let micro_batch = batch.samples.len() / self.accumulation_steps;
        assert_eq!(micro_batch * self.accumulation_steps, batch.samples.len(), "micro-batches are of one size");
        let (mut sums, mut weight, mut is_finite) = (Vec::with_capacity(self.accumulation_steps), 0.0, true);
        for i in 0..self.accumulation_steps {
            let loss = loop {
                b.start(true);
                let loss = self.task.loss(b, batch, &inputs, i * micro_batch..(i + 1) * micro_batch);
                done(Phase::Forward);
                match i + 1 == self.accumulation_steps {
                    false => b.backward(&loss.sum),
                    true if self.reduce_in_bf16 => {
                        is_finite = b.backward_and_reduce(&loss.sum, &mut SendsBf16(collective))?;
                    }
                    true => is_finite = b.backward_and_reduce(&loss.sum, collective)?,
                }
                done(Phase::Backward);
                if !b.must_repeat() {
                    break loss;
                }
            };
            weight += loss.weight;
            sums.push(loss.sum);
        }
        let lr = self.schedule.lr_of_step(number);
        if collective.world() == 1 && b.is_asynchronous() {
            let denominator = self.task.denominator(weight);
            let norm = self.update(collective, number, denominator)?;
            self.update_average(number);
            done(Phase::Stepped);
            return Ok(Queued {
                ranks_stopping: usize::from(is_stopping),
                skipped: batch.skipped.len() as u64,
                number,
                lr,
                numbers: Numbers::OnDevice { sums, denominator, norm },
            });
        }
        // one all-reduce for everything that all ranks need
        let sum: f64 = sums.iter().map(|sum| b.read(sum)[0] as f64).sum();
        let mut totals = vec![sum, weight, f64::from(u8::from(is_stopping)), batch.skipped.len() as f64];
        // and by rank, whether what it added was not finite
        totals.extend(
            (0..collective.world())
                .map(|rank| f64::from(u8::from(rank == collective.rank() && !(is_finite && sum.is_finite())))),
        );
        collective.all_reduce_sum_f64(&mut totals)?;
        let [sum, weight, ranks_stopping, skipped] = *totals.first_chunk().expect("four numbers are sent");
        let diverged: Vec<usize> = (0..collective.world()).filter(|rank| totals[4 + rank] > 0.0).collect();
        let denominator = self.task.denominator(weight);
        let loss = sum / denominator;
        if !loss.is_finite() {
            let what = of_ranks("the loss".into(), &diverged, collective.world());
            return Err(Error::NotFinite { step: number, what, value: loss });
        }
        let gradient_norm = b.read(&self.update(collective, number, denominator)?)[0] as f64;
        if !gradient_norm.is_finite() {
            let what = of_ranks(self.first_nonfinite_gradient(collective)?, &diverged, collective.world());
            return Err(Error::NotFinite { step: number, what, value: gradient_norm });
        }
        self.update_average(number);
        done(Phase::Stepped);
        Ok(Queued {
            ranks_stopping: ranks_stopping as usize,
            skipped: skipped as u64,
            number,
            lr,
            numbers: Numbers::Known { loss, gradient_norm },
        })
    }

    /// The result of a step, for which the device is waited for if it computes asynchronously.
    ///
    /// # Errors
    /// If the loss or the norm of the gradients is not finite.
    pub fn read(&self, queued: Queued<B::Tensor>) -> Result<Stepped> {
        let Queued { ranks_stopping, skipped, number, lr, numbers } = queued;
        let (loss, gradient_norm) = match numbers {
            Numbers::Known { loss, gradient_norm } => (loss, gradient_norm),
            Numbers::OnDevice { sums, denominator, norm } => {
                let b = &self.backend;
                let loss = sums.iter().map(|sum| b.read(sum)[0] as f64).sum::<f64>() / denominator;
                if !loss.is_finite() {
                    return Err(Error::NotFinite { step: number, what: "the loss".into(), value: loss });
                }
                let norm = b.read(&norm)[0] as f64;
                if !norm.is_finite() {
                    // the gradients may be those of a later step, of the same parameters
                    let what = self.first_nonfinite_gradient(&mut Alone)?;
                    return Err(Error::NotFinite { step: number, what, value: norm });
                }
                (loss, norm)
            }
        };
        Ok(Stepped { loss, gradient_norm, lr, ranks_stopping, skipped })
    }

    /// Divides the gradients of the summed loss by `denominator`, clips them and applies them. Returns their norm
    /// before clipping; where it is not finite, nothing changes.
    fn update(&self, collective: &mut dyn Collective, number: u64, denominator: f64) -> Result<B::Tensor> {
        let step_size = |group: &Group| match group.is_frozen {
            true => StepSize { lr: 0.0, weight_decay: 0.0 },
            false => StepSize {
                lr: self.schedule.lr_of_group(number, group.lr_scale) as f32,
                weight_decay: if group.decays { self.weight_decay as f32 } else { 0.0 },
            },
        };
        let step_sizes: Vec<_> = self.groups.iter().map(step_size).collect();
        let step = OptimizerStep {
            number,
            betas: (self.betas.0 as f32, self.betas.1 as f32),
            eps: self.eps as f32,
            gradient_scale: 1.0 / denominator,
            clip_norm: self.clip_norm,
            step_sizes: &step_sizes,
        };
        Ok(self.backend.step_on_ranks(&step, collective)?)
    }

    fn update_average(&self, number: u64) {
        if self.has_average() {
            self.backend.update_average(average_decay(self.average_decay, number) as f32);
        }
    }

    /// The name of the first gradient that is not finite, for the error. Each rank looks at what it keeps of them.
    fn first_nonfinite_gradient(&self, collective: &mut dyn Collective) -> Result<String> {
        let b = &self.backend;
        let is_nonfinite =
            |id: usize| b.read_parameter(Slot::Gradients, ParameterId(id)).iter().any(|g| !g.is_finite());
        let mut own = (0..b.table().iter().len()).filter(|id| is_nonfinite(*id));
        let mut found = vec![0.0; collective.world()];
        found[collective.rank()] = own.next().map_or(f64::INFINITY, |id| id as f64);
        collective.all_reduce_sum_f64(&mut found)?;
        let first = found.into_iter().fold(f64::INFINITY, f64::min);
        let parameter = b.table().iter().nth(first as usize).filter(|_| first.is_finite());
        Ok(parameter.map_or("the gradients' norm".into(), |parameter| format!("the gradient of `{}`", parameter.name)))
    }
}

/// What is not finite, with the ranks that it comes from where there are several.
fn of_ranks(what: String, diverged: &[usize], world: usize) -> String {
    match diverged {
        [] => what,
        [_, ..] if world == 1 => what,
        [rank] => format!("{what} on rank {rank}"),
        ranks if ranks.len() == world => format!("{what} on every rank"),
        ranks => format!("{what} on ranks {}", ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
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
    use simmim_engine::{InProcess, Operations};
    use std::rc::Rc;

    const IMAGES: usize = 4;

    fn learner(recipe: &Recipe) -> Learner<crate::testing::TestBackend, Pretraining> {
        let mut builder = Builder::default();
        let model =
            SimMim::new(recipe, &Colors::unknown(recipe.data.channels), &crate::testing::DEVICE, &mut builder).unwrap();
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

    fn batch(recipe: &Recipe) -> Batch {
        let (height, width) = recipe.data.image_size.height_and_width();
        let len = IMAGES * recipe.data.channels * height * width;
        Batch {
            number: 0,
            epoch: 0,
            images: (0..len).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect(),
            samples: (0..IMAGES).collect(),
            labels: vec![None; IMAGES],
            skipped: Vec::new(),
        }
    }

    /// Trains with the first blocks frozen; neither values, moments nor averages of the frozen parameters move, and the
    /// gradients of all others are those of a model whose blocks all train.
    fn check_frozen(name: &str, edits: &[&str], frozen: &[&str], trained: &[&str]) {
        const COMMON: [&str; 3] = ["train.batch_size=4", "train.average_decay=0.5", "train.weight_decay=0.5"];
        let resolve = |more: &[&str]| {
            let edits: Vec<String> = COMMON.iter().chain(edits).chain(more).map(|edit| (*edit).to_owned()).collect();
            resolve(name, &edits).unwrap()
        };
        let recipe = resolve(&["train.frozen_blocks=2"]);
        let (mut all, mut part) = (learner(&resolve(&[])), learner(&recipe));
        (all.schedule, part.schedule) = (Schedule::constant(1e-3), Schedule::constant(1e-3));
        let b = part.backend();
        let read = |b: &crate::testing::TestBackend, slot, id: usize| b.read_parameter(slot, ParameterId(id));
        let before: Vec<Vec<f32>> = (0..b.table().iter().len()).map(|id| read(b, Slot::Values, id)).collect();
        let mut batch = batch(&recipe);
        let first = part.step(&mut Alone, &mut batch, 1, false, &mut |_| ()).unwrap();
        let of_all = all.step(&mut Alone, &mut batch, 1, false, &mut |_| ()).unwrap();
        assert_eq!(first.loss, of_all.loss);
        let mut squares = 0.0;
        for (id, parameter) in b.table().iter().enumerate() {
            let name = parameter.name.as_str();
            let gradients = read(b, Slot::Gradients, id);
            squares += gradients.iter().map(|g| (*g as f64).powi(2)).sum::<f64>();
            match part.groups[id].is_frozen {
                true => assert!(gradients.iter().all(|g| *g == 0.0), "{name} has a gradient"),
                false => assert_eq!(gradients, read(all.backend(), Slot::Gradients, id), "{name}"),
            }
        }
        let hidden = part.task().model().denominator(part.task().prepare(&mut batch).all().weight());
        let expected = squares.sqrt() / hidden;
        assert!((first.gradient_norm - expected).abs() < 1e-5 * expected, "{} {expected}", first.gradient_norm);
        for number in 2..4 {
            part.step(&mut Alone, &mut batch, number, false, &mut |_| ()).unwrap();
        }
        for (id, (parameter, before)) in b.table().iter().zip(&before).enumerate() {
            let name = parameter.name.as_str();
            if part.groups[id].is_frozen {
                let slots = [Slot::Values, Slot::Average].map(|slot| read(b, slot, id) == *before);
                assert_eq!(slots, [true; 2], "{name} moved");
                assert!(read(b, Slot::SecondMoment, id).iter().all(|v| *v == 0.0), "{name} has a moment");
            } else {
                assert_ne!(&read(b, Slot::Values, id), before, "{name} did not move");
            }
        }
        let is_frozen = |name: &&str| part.groups[b.table().find(name).unwrap_or_else(|| panic!("{name}")).0].is_frozen;
        assert!(frozen.iter().all(is_frozen) && !trained.iter().any(is_frozen));
    }

    #[test]
    fn frozen_blocks_do_not_move_and_the_others_have_their_own_gradients() {
        let tables = ["encoder.mask_token", "encoder.pos_embed", "encoder.rel_pos_bias.relative_position_bias_table"];
        let blocks = ["encoder.patch_embed.proj.weight", "encoder.cls_token", "encoder.blocks.1.mlp.fc2.bias"];
        check_frozen(
            "demo",
            &["encoder.width=16", "encoder.depth=3", "encoder.drop_path=0.3"],
            &[&tables[..], &blocks].concat(),
            &["encoder.blocks.2.norm1.weight", "encoder.norm.bias", "decoder.0.weight"],
        );
        // two blocks are a stage here, and the merging behind it goes with them
        check_frozen(
            "pretrain-swin-cifar",
            &["encoder.width=12", "encoder.depths=[2, 1, 1]", "encoder.absolute_positions=true"],
            &["encoder.absolute_pos_embed", "encoder.patch_embed.norm.bias", "encoder.layers.0.downsample.norm.bias"],
            &["encoder.layers.1.blocks.0.norm1.weight", "encoder.layers.1.downsample.norm.bias", "encoder.norm.bias"],
        );
    }

    #[test]
    fn a_rank_whose_loss_is_not_finite_is_named_by_all() {
        let edits = ["encoder.width=16", "encoder.depth=1", "train.batch_size=4"];
        let recipe = resolve("demo", &edits.map(str::to_owned)).unwrap();
        let of_rank = |mut rank: InProcess| {
            let pixel = if rank.rank() == 1 { f32::NAN } else { 0.5 };
            let mut batch = Batch {
                number: 0,
                epoch: 0,
                images: vec![pixel; 2 * 28 * 28],
                samples: vec![2 * rank.rank(), 2 * rank.rank() + 1],
                labels: vec![None; 2],
                skipped: Vec::new(),
            };
            learner(&recipe).step(&mut rank, &mut batch, 1, false, &mut |_| ()).unwrap_err().to_string()
        };
        let said: Vec<String> = std::thread::scope(|scope| {
            let running: Vec<_> = InProcess::ranks(2).into_iter().map(|rank| scope.spawn(|| of_rank(rank))).collect();
            running.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(said, ["step 1: the loss on rank 1 is NaN"; 2]);
    }

    #[test]
    fn what_is_not_finite_is_said_with_its_ranks() {
        let said = |diverged: &[usize], world| of_ranks("the loss".into(), diverged, world);
        assert_eq!(said(&[0], 1), "the loss");
        assert_eq!(said(&[], 4), "the loss");
        assert_eq!(said(&[2], 4), "the loss on rank 2");
        assert_eq!(said(&[0, 2], 4), "the loss on ranks 0, 2");
        assert_eq!(said(&[0, 1], 2), "the loss on every rank");
    }

    #[test]
    fn the_average_follows_fast_at_first_and_slowly_later() {
        assert_eq!(average_decay(0.9, 1), 2.0 / 11.0);
        assert_eq!(average_decay(0.9, 1000), 0.9);
    }
}
