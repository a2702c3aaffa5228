//! The training loop around a learner: batches, evaluations, log, checkpoints, stopping and resuming.
//!
//! Its only counter is the number of optimizer steps. A step is a function of the recipe, the seed and its number, so a
//! resumed run ends with the same bits as an uninterrupted one.

use super::divided::{Start, Writer, answer, distribute};
use super::groups::Group;
use super::learner::{Learner, Stepped};
use super::records::Records;
use super::setup::Setup;
use super::task::{Ended, Evaluation, Task};
use super::throughput::Throughput;
use super::{Event, Options, Outcome, Schedule};
use crate::error::{Error, Result};
use crate::memory::{self, Foreseen};
use crate::precision;
use crate::recipe::{RecipeKind, Shard};
use crate::run::Collection;
use crate::run::checkpoint::{self, State};
use crate::weights::RECIPE_KEY;
use serde_json::json;
use simmim_data::{Batch, Loader, LoaderConfig, Skipped, Source, Transform};
use simmim_engine::{Activity, Backend, Collective, Device, ParameterId, ParameterTable, Slot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Number of log entries of a run whose recipe does not set `train.log_every_steps`.
const LOG_ENTRIES: u64 = 200;

/// Batches that are made ahead.
const PREFETCH: usize = 2;

/// Steps at most whose loss a device that computes asynchronously is not asked for. Each question is a gap in its work, and a
/// loss that is not finite should not be found out hours later.
const MOST_UNREAD: usize = 32;

/// So many images count as seen before the first step, at most all, when the share of unreadable ones is computed: a few
/// unreadable images at the start must not stop a run.
const FIRST_IMAGES: u64 = 1000;

/// The parameters of a model before training.
pub(super) struct Parameters<F> {
    pub(super) table: ParameterTable,
    /// Group of each parameter, in the order of the table.
    pub(super) groups: Vec<Group>,
    /// Bytes of what the forward pass of one image keeps for the backward pass.
    pub(super) activation_bytes: usize,
    /// Initializes or loads the values `[len]` of the table; called only if the run has no checkpoint.
    pub(super) initialize: F,
}

/// A run in progress.
pub(super) struct Trainer<'a, B: Backend, T> {
    learner: Learner<B, T>,
    evaluations: Vec<Box<dyn Evaluation<B> + 'a>>,
    records: Records,
    collective: &'a mut dyn Collective,
    data: Arc<dyn Source>,
    loader: LoaderConfig,
    metadata: HashMap<String, String>,
    max_skipped: f64,
    keep_checkpoints: usize,
    total: u64,
    log_every: u64,
    save_every: u64,
    /// Whether each rank keeps only its part of moments and average.
    is_divided: bool,
}

/// Steps between validations: `train.validate_every_steps`, or those between checkpoints.
pub(super) fn validate_every<R: RecipeKind>(setup: &Setup<R>) -> u64 {
    let train = setup.resolved.recipe.train();
    train.validate_every_steps.unwrap_or(save_every(setup))
}

fn save_every<R: RecipeKind>(setup: &Setup<R>) -> u64 {
    setup.resolved.recipe.train().checkpoint_every_steps.unwrap_or(setup.per_epoch)
}

impl<'a, B: Backend, T: Task> Trainer<'a, B, T> {
    /// Begins a run, or resumes it from its newest checkpoint.
    ///
    /// # Errors
    /// If the folder holds another run, none of its checkpoints is intact, or the initial weights cannot be loaded.
    pub(super) fn begin<R: RecipeKind, D: Device<Backend = B>>(
        options: &Options<R>,
        setup: &mut Setup<R>,
        device: &D,
        collective: &'a mut dyn Collective,
        parameters: Parameters<impl FnOnce(&ParameterTable) -> Result<Vec<f32>>>,
        task: T,
        observe: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let (train, run) = (options.recipe.train(), &setup.resolved.run);
        check_memory(options, setup, device, collective.world(), &parameters)?;
        let Parameters { table, groups, activation_bytes: _, initialize } = parameters;
        let backend = device.open(table, setup.precision);
        let (rank, world) = (collective.rank(), collective.world());
        backend.shard(train.shard.sharding(), rank, world);
        let (mut state, mut opened, mut start) = (State::default(), None, None);
        if let Some(locked) = setup.folder.take() {
            // before anything is written, because the weights to start from may not fit the model
            let initial_values = match checkpoint::list(&options.out)?.is_empty() {
                true => Some(initialize(backend.table())?),
                false => None,
            };
            opened = Some(locked.begin(&options.given, &setup.resolved, setup.tokenizer.as_deref())?);
            match (checkpoint::newest(&options.out, backend.table())?, initial_values) {
                ((Some(checkpoint), damaged), _) => {
                    damaged.iter().for_each(|error| observe(Event::Damaged { error }));
                    state = checkpoint.state.clone();
                    start = Some(Start::Checkpoint(Box::new(checkpoint)));
                }
                ((None, _), Some(values)) => start = Some(Start::Values(values)),
                ((None, _), None) => unreachable!("checkpoints do not vanish from a locked folder"),
            }
        }
        let has_average = train.average_decay > 0.0;
        distribute(collective, &backend, start, &mut state, has_average)?;
        observe(Event::Started {
            steps: state.steps,
            total: setup.total,
            parameters: backend.table().len(),
            images: run.images,
            device: &run.device,
            precision: &run.precision,
            precision_reason: &run.precision_reason,
            threads: run.threads,
        });
        let schedule = Schedule::new(train, setup.total);
        let mut records = Records::new(&options.out, opened, state)?;
        records.log_passed_over(Collection::Training, options.data.source.passed_over())?;
        if let Some(val) = &options.val {
            records.log_passed_over(Collection::HeldOut, val.source.passed_over())?;
        }
        Ok(Self {
            learner: Learner::new(backend, task, train, schedule, groups),
            evaluations: Vec::new(),
            records,
            data: Arc::clone(&setup.data),
            loader: LoaderConfig {
                batch_size: train.batch_size,
                rank: collective.rank(),
                world: collective.world(),
                seed: options.seed,
                workers: options.workers,
                shuffle: true,
                prefetch: PREFETCH,
            },
            metadata: HashMap::from([(RECIPE_KEY.to_owned(), setup.resolved.to_weights_metadata())]),
            max_skipped: options.recipe.data().max_skipped,
            keep_checkpoints: train.keep_checkpoints,
            total: setup.total,
            log_every: train.log_every_steps.unwrap_or((setup.total / LOG_ENTRIES).max(1)),
            save_every: save_every(setup),
            is_divided: train.shard != Shard::None && world > 1,
            collective,
        })
    }

    /// Adds an evaluation. Evaluations run on the first rank, in the order in which they were added.
    pub(super) fn add_evaluation(&mut self, evaluation: impl Evaluation<B> + 'a) {
        self.evaluations.push(Box::new(evaluation));
    }

    /// The records of the run.
    pub(super) fn records_mut(&mut self) -> &mut Records {
        &mut self.records
    }

    /// Number of values that do not train, and of all.
    pub(super) fn frozen_parameters(&self) -> (usize, usize) {
        (self.learner.frozen_values(), self.learner.backend().table().len())
    }

    /// Whether this is the rank that evaluates and writes files.
    pub(super) fn is_first_rank(&self) -> bool {
        self.collective.is_first()
    }

    /// Trains to the end, or until `stop` is set; saves a checkpoint in both cases.
    ///
    /// # Errors
    /// If the input cannot be used, the disk fills, a number stops being finite, or a rank is lost.
    pub(super) fn run(
        mut self,
        transform: Transform,
        observe: &mut dyn FnMut(Event),
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let mut loader = Loader::new(Arc::clone(&self.data), transform, self.loader, self.records.state().steps)?;
        let mut throughput = Throughput::new(self.records.state().seconds);
        if self.records.state().steps == 0 || self.records.state().evaluations_done.is_some() {
            self.evaluate(observe, stop)?;
        }
        let mut is_stopping = self.any_rank(stop.load(Ordering::Relaxed))?;
        let (mut unread, mut unread_since) = (Vec::new(), None);
        while self.records.state().steps < self.total && !is_stopping {
            self.collective.announce(Activity::Step(self.records.state().steps + 1));
            let started = Instant::now();
            let mut batch = loader.next().expect("a loader has no end")?;
            let waited_s = started.elapsed().as_secs_f64();
            let number = self.records.state().steps + 1;
            let wants_to_stop = stop.load(Ordering::Relaxed);
            let queued = self.learner.queue(self.collective, &mut batch, number, wants_to_stop, &mut |_| ())?;
            is_stopping = queued.ranks_stopping > 0;
            self.count_skipped(&batch, queued.skipped, observe)?;
            unread.push((number, queued));
            let is_last = number == self.total;
            let is_logged = number.is_multiple_of(self.log_every) || is_last;
            let is_saved = number.is_multiple_of(self.save_every) || is_last || is_stopping;
            let is_evaluated = self.evaluations.iter().any(|evaluation| evaluation.is_due(number, self.total));
            let is_asked = is_logged || is_saved || is_evaluated || unread.len() == MOST_UNREAD;
            let (began, waited) = *unread_since.insert(match unread_since {
                Some((began, waited)) => (began, waited + waited_s),
                None => (started, waited_s),
            });
            let mut read = Vec::new();
            if is_asked || !self.learner.backend().is_asynchronous() {
                for (number, queued) in unread.drain(..) {
                    read.push((number, self.learner.read(queued)?));
                }
                throughput.count(read.len() * self.loader.batch_size, began, waited);
                unread_since = None;
            }
            let state = self.records.state_mut();
            state.steps = number;
            state.seconds = throughput.seconds();
            for (steps, Stepped { loss, lr, .. }) in &read {
                state.loss_sum += loss;
                state.loss_count += 1;
                let images_per_second = throughput.recent_speed();
                observe(Event::Stepped { steps: *steps, loss: *loss, lr: *lr, images_per_second });
            }
            if let Some((_, stepped)) = read.last().filter(|_| is_logged) {
                self.log(batch.epoch, stepped, &throughput)?;
            }
            loader.recycle(batch.images);
            self.evaluate(observe, stop)?;
            is_stopping |= self.records.state().evaluations_done.is_some();
            if number.is_multiple_of(self.save_every) && !is_last && !is_stopping {
                self.save(&throughput, observe)?;
            }
        }
        let checkpoint = self.save(&throughput, observe)?; // at the end, or where it was interrupted
        if self.records.state().steps < self.total && self.collective.is_first() {
            self.evaluations.iter_mut().try_for_each(|evaluation| evaluation.report(&mut self.records))?;
        }
        self.collective.barrier()?; // no rank reports success before the first one has saved
        self.records.sum_up_unreadable(observe);
        if self.collective.world() > 1 {
            let slots = [Slot::Values, Slot::Gradients, Slot::FirstMoment, Slot::SecondMoment, Slot::Average];
            observe(Event::Kept { slots: &slots.map(|slot| (slot, self.learner.backend().kept_bytes(slot))) });
        }
        let state = self.records.state();
        Ok(Outcome {
            steps: state.steps,
            total_steps: self.total,
            loss: state.last_loss,
            metrics: state.metrics.clone(),
            images_per_second: throughput.speed(),
            skipped: state.unreadable.count(Collection::Training),
            replaced: state.replaced,
            skipped_val: state.unreadable.count(Collection::HeldOut),
            checkpoint,
            report: self.records.path().join("report.html"),
        })
    }

    /// Whether the flag is set on any rank.
    fn any_rank(&mut self, is_set: bool) -> Result<bool> {
        let mut count = [f64::from(u8::from(is_set))];
        self.collective.all_reduce_sum_f64(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// Counts the unreadable images of a batch, of which there are `replaced` on all ranks together.
    fn count_skipped(&mut self, batch: &Batch, replaced: u64, observe: &mut dyn FnMut(Event)) -> Result<()> {
        if replaced == 0 {
            return Ok(());
        }
        let skipped = of_all_ranks(self.collective, &batch.skipped)?;
        let step = self.records.state().steps + 1;
        self.records.count_unreadable(Collection::Training, &skipped, step, observe)?;
        let state = self.records.state_mut();
        state.replaced += replaced;
        let (unreadable, images) = (state.unreadable.count(Collection::Training), self.data.len() as u64);
        let seen = (step * self.loader.batch_size as u64).min(images);
        // a few unreadable images at the start are not yet a share
        let counted = (seen + FIRST_IMAGES).min(images);
        if unreadable as f64 <= self.max_skipped * counted as f64 {
            return Ok(());
        }
        let Skipped { name: last, reason, .. } = skipped.into_iter().last().expect("a rank has an unreadable image");
        Err(Error::TooManySkipped { skipped: unreadable, seen, allowed: self.max_skipped, last, reason })
    }

    fn log(&mut self, epoch: u64, stepped: &Stepped, throughput: &Throughput) -> Result<()> {
        let state = self.records.state_mut();
        let loss = state.loss_sum / state.loss_count as f64;
        (state.loss_sum, state.loss_count, state.last_loss) = (0.0, 0, Some(loss));
        let Stepped { lr, gradient_norm, .. } = *stepped;
        let (speed, seconds) = (throughput.recent_speed(), throughput.seconds());
        let (skipped, replaced) = (state.unreadable.count(Collection::Training), state.replaced);
        let mut numbers = vec![
            ("epoch", json!(epoch)),
            ("loss", json!(loss)),
            ("lr", json!(lr)),
            ("gradient_norm", json!(gradient_norm)),
            ("images_per_second", json!(speed)),
            ("waiting_for_data", json!(throughput.recent_waiting())),
            ("seconds", json!(seconds)),
        ];
        if replaced > 0 {
            numbers.extend([("skipped_images", json!(skipped)), ("replaced_draws", json!(replaced))]);
        }
        let scalars =
            [("loss/train", loss), ("lr", lr), ("gradient_norm", gradient_norm), ("images_per_second", speed)];
        self.records.log_numbers(&numbers, &scalars)
    }

    /// Runs the evaluations that are due, with the EMA of the weights if there is one.
    ///
    /// Where the other ranks do not go on meanwhile, `stop` ends them early, but not the last ones of a run, whose results are what
    /// it was made for. The state then says which are left for the process that goes on.
    fn evaluate(&mut self, observe: &mut dyn FnMut(Event), stop: &AtomicBool) -> Result<()> {
        let (steps, has_average) = (self.records.state().steps, self.learner.has_average());
        let is_first = self.collective.is_first();
        let done_before = self.records.state_mut().evaluations_done.take().unwrap_or(0);
        let mut is_due = is_first && self.evaluations.iter().any(|e| e.is_due(steps, self.total));
        // of an average that is divided, the first rank needs the parts of all
        let gathers = self.is_divided && has_average;
        if gathers {
            is_due = self.any_rank(is_due)?;
        }
        if !is_due {
            return Ok(());
        }
        if is_first {
            self.collective.announce(Activity::Alone(steps));
        }
        if gathers {
            self.gather_average()?;
        }
        if is_first {
            let backend = self.learner.backend();
            if has_average && !gathers {
                backend.swap_average();
            }
            let may_stop = self.collective.world() == 1 && steps < self.total;
            let is_stopping = || may_stop && stop.load(Ordering::Relaxed);
            let due = self.evaluations.iter_mut().filter(|e| e.is_due(steps, self.total));
            let done = due.enumerate().skip(done_before).try_for_each(|(number, evaluation)| {
                if self.records.state().evaluations_done.is_none()
                    && evaluation.evaluate(backend, &mut self.records, observe, &is_stopping)? == Ended::Early
                {
                    self.records.state_mut().evaluations_done = Some(number);
                }
                Ok::<_, Error>(())
            });
            if has_average && !gathers {
                backend.swap_average();
            }
            done.map_err(|error| error.at_step(steps))?;
        }
        if gathers { self.give_weights_back() } else { Ok(()) }
    }

    /// Replaces the weights of the first rank by the average, of which each rank keeps a part.
    fn gather_average(&mut self) -> Result<()> {
        let backend = self.learner.backend();
        for id in (0..backend.table().iter().len()).map(ParameterId) {
            let average = backend.gather_parameter(Slot::Average, id, self.collective)?;
            if self.collective.is_first() {
                backend.write_parameter(Slot::Values, id, &average);
            }
        }
        Ok(())
    }

    /// Gives the first rank the weights back, which all others have.
    fn give_weights_back(&mut self) -> Result<()> {
        let backend = self.learner.backend();
        for id in (0..backend.table().iter().len()).map(ParameterId) {
            let mut values = backend.read_parameter(Slot::Values, id);
            self.collective.broadcast(&mut values, 1)?;
            if self.collective.is_first() {
                backend.write_parameter(Slot::Values, id, &values);
            }
        }
        Ok(())
    }

    /// Checks that all ranks have the weights of the first one. They make the same steps from the same gradients, so that
    /// others mean a broken machine, or kinds of processors that round differently.
    ///
    /// # Errors
    /// If a rank has other weights; it is named.
    fn check_same_weights(&mut self) -> Result<()> {
        if self.collective.world() == 1 {
            return Ok(());
        }
        let backend = self.learner.backend();
        let mut sums = vec![0.0; self.collective.world()];
        sums[self.collective.rank()] = f64::from((0..backend.table().iter().len()).fold(0, |sum, id| {
            let values = backend.read_parameter(Slot::Values, ParameterId(id));
            values.iter().fold(sum, |sum, value| crc32c::crc32c_append(sum, &value.to_le_bytes()))
        }));
        self.collective.all_reduce_sum_f64(&mut sums)?;
        match sums.iter().position(|sum| *sum != sums[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::RankDiffers { rank, step: self.records.state().steps }),
        }
    }

    fn save(&mut self, throughput: &Throughput, observe: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        self.check_same_weights()?;
        self.records.state_mut().seconds = throughput.seconds();
        self.records.flush()?;
        let (run, state) = (self.records.path(), self.records.state());
        let backend = self.learner.backend();
        if !self.collective.is_first() {
            if self.is_divided {
                answer(self.collective, backend, run, state.steps)?;
            }
            return Ok(checkpoint::path(run, state.steps));
        }
        self.collective.announce(Activity::Alone(state.steps));
        let collective = RefCell::new(&mut *self.collective);
        let writer = Writer { collective, backend, run, steps: state.steps, is_divided: self.is_divided };
        let write = |path: &Path, slots: &[(&str, Slot)], metadata| writer.write(path, slots, metadata);
        let (table, has_average, keep) = (backend.table(), self.learner.has_average(), self.keep_checkpoints);
        let path = checkpoint::save(run, table, &write, has_average, state, &self.metadata, keep)
            .map_err(|error| error.at_step(state.steps))?;
        writer.finish()?;
        observe(Event::Saved { path: &path });
        Ok(path)
    }
}

/// Checks that there is memory for parameters, the activations of a micro-batch, and the images of this rank's batches.
fn check_memory<R: RecipeKind, F>(
    options: &Options<R>,
    setup: &Setup<R>,
    device: &impl Device,
    world: usize,
    parameters: &Parameters<F>,
) -> Result<()> {
    let (train, data) = (options.recipe.train(), options.recipe.data());
    let (height, width) = data.image_size.height_and_width();
    let share = train.batch_size / world;
    let values = memory::of_values(data.channels * height * width).saturating_mul(share as u64);
    // those made ahead, one that is being made, and one in use
    let images = values.saturating_mul((PREFETCH.max(options.workers) + 2) as u64);
    let micro_batch = (share / train.accumulation_steps) as u64;
    let activations = micro_batch.saturating_mul(parameters.activation_bytes as u64);
    let model = memory::of_training(parameters.table.len(), train, world);
    let what = || {
        let count = parameters.table.len();
        format!(
            "training {count} parameters with {share} images of {height} × {width} px and {} workers in {}",
            options.workers,
            precision::name(setup.precision)
        )
    };
    memory::check_on(device, what, &Foreseen { on_host: images, values: model, activations })
}

/// The unreadable images of all ranks, in the order of ranks.
fn of_all_ranks(collective: &mut dyn Collective, own: &[Skipped]) -> Result<Vec<Skipped>> {
    let mut all = Vec::new();
    for root in 0..collective.world() {
        let of_rank: Vec<_> = own.iter().map(|Skipped { index, name, reason }| (index, name, reason)).collect();
        let mut text = serde_json::to_vec(&of_rank).expect("names are text");
        collective.broadcast_bytes(&mut text, root)?;
        let of_rank: Vec<(usize, String, String)> = serde_json::from_slice(&text).expect("a rank sends its images");
        all.extend(of_rank.into_iter().map(|(index, name, reason)| Skipped { index, name, reason }));
    }
    Ok(all)
}
