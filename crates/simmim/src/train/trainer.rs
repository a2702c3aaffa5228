//! The loop around a model, whatever it learns: updates, log, checkpoints, going on where a run stopped.
//!
//! The loop counts optimizer updates and nothing else. What an update does is a function of the
//! recipe, the seed and its number, so a run that was interrupted goes on to the same bits.

use super::average::Average;
use super::sitting::Sitting;
use super::step::apply;
use super::{Event, Options, Schedule};
use crate::checkpoint::{self, State};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::precision;
use crate::recipe::{DataRecipe, NormalizationKind, RecipeKind, TrainRecipe};
use crate::run::{Resolved, RunFolder, RunInfo, read_resolved};
use crate::weights::RECIPE_KEY;
use serde_json::{Value, json};
use simmim_data::{Batch, Loader, LoaderConfig, Normalisation, Skipped, Source, Transform};
use simmim_engine::{Backend, Cpu, ParameterTable, Precision, Slot, StepSize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Log entries a run has if its recipe does not say how often.
const LOG_ENTRIES: u64 = 200;

/// Images that statistics are measured on.
const MEASURED_IMAGES: usize = 2000;

/// Images whose allowed share of unreadable ones is granted in advance, at most one epoch.
const FIRST_IMAGES: usize = 1000;

/// What a run learns, and how it looks at held-out images.
pub(super) trait Task {
    /// Adds the gradients of a batch to the backend's; returns the loss.
    fn gradients(&self, b: &Cpu, batch: &mut Batch) -> f64;

    /// Looks at the held-out images, and writes down what it sees.
    ///
    /// # Errors
    /// If images or files cannot be read or written.
    fn validate(&mut self, b: &Cpu, records: &mut Records, observe: &mut dyn FnMut(Event)) -> Result<()>;
}

/// What a run settles before its first update.
pub(super) struct Start<R> {
    pub(super) resolved: Resolved<R>,
    pub(super) data: Arc<dyn Source>,
    pub(super) precision: Precision,
    pub(super) total: u64,
    per_epoch: u64,
}

/// Settles a run of `options` on the images `data`.
///
/// # Errors
/// If the images do not fill a batch or cannot be read.
pub(super) fn start<R: RecipeKind>(options: &Options<R>, data: Arc<dyn Source>) -> Result<Start<R>> {
    let train = options.recipe.train();
    let images = data.len();
    let per_epoch = Loader::batches_per_epoch(images, train.batch_size);
    if per_epoch == 0 {
        return Err(Error::Recipe {
            key: "train.batch_size".into(),
            value: train.batch_size.to_string(),
            expected: format!("more than the {images} images of `{}`", options.data.description),
            hint: Some(format!("--set train.batch_size={} uses them all at every update", images.max(1))),
        });
    }
    simmim_data::check_readable(data.as_ref())?;
    if let Some(val) = &options.val {
        simmim_data::check_readable(val.source.as_ref())?;
    }
    let total = train.max_updates.unwrap_or((train.epochs * per_epoch as f64).round().max(1.0) as u64);
    let (precision, precision_reason) = precision::choose(options.precision);
    // a run that goes on keeps the statistics it began with
    let normalisation = match read_resolved::<R>(&options.out) {
        Ok(resolved) => resolved.run.normalisation(),
        Err(_) => normalisation(options.recipe.data(), data.as_ref())?,
    };
    let resolved = Resolved {
        recipe: options.recipe.clone(),
        run: RunInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            device: "cpu".into(),
            precision: precision::name(precision).into(),
            precision_reason: precision_reason.into(),
            threads: options.threads,
            seed: options.seed,
            data: options.data.description.clone(),
            images,
            val: options.val.as_ref().map(|v| v.description.clone()),
            from: None,
            classes: Vec::new(),
            mean: normalisation.mean.clone(),
            std: normalisation.std.clone(),
            palette: Vec::new(),
        },
    };
    Ok(Start { resolved, data, precision, total, per_epoch })
}

fn normalisation(recipe: &DataRecipe, source: &dyn Source) -> Result<Normalisation> {
    match recipe.normalization {
        NormalizationKind::Imagenet => Ok(Normalisation::imagenet()),
        NormalizationKind::None => Ok(Normalisation::none(recipe.channels)),
        NormalizationKind::Measured => Ok(Normalisation::measure(source, MEASURED_IMAGES)?),
    }
}

/// Learning rate and decay of one parameter beside the schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) lr_scale: f64,
    pub(super) decays: bool,
}

/// Where a run writes down what happens, and where it stands.
pub(super) struct Records {
    pub(super) folder: RunFolder,
    pub(super) events: Events,
    pub(super) state: State,
}

impl Records {
    /// Appends to the log and, number by number, to the event file.
    ///
    /// # Errors
    /// If writing fails.
    pub(super) fn note(&mut self, entry: &Value, scalars: &[(&str, f64)]) -> Result<()> {
        self.folder.log(entry)?;
        for (tag, value) in scalars {
            self.events.scalar(tag, self.state.updates, *value as f32)?;
        }
        Ok(())
    }

    /// Names held-out images that cannot be read, in the log if that was not done before; training images are named when their turn comes.
    ///
    /// # Errors
    /// If writing fails.
    pub(super) fn note_unreadable(
        &mut self,
        skipped: &[Skipped],
        is_logged: bool,
        observe: &mut dyn FnMut(Event),
    ) -> Result<()> {
        for skipped in skipped {
            observe(Event::Skipped { name: &skipped.name, reason: &skipped.reason });
            if !is_logged {
                self.folder
                    .log(&json!({ "update": self.state.updates, "skipped": skipped.name, "reason": skipped.reason }))?;
            }
        }
        Ok(())
    }
}

/// A run under way.
pub(super) struct Trainer<'a> {
    train: &'a TrainRecipe,
    max_skipped: f64,
    pub(super) backend: Cpu,
    groups: Vec<Group>,
    schedule: Schedule,
    average: Option<Average>,
    pub(super) records: Records,
    metadata: HashMap<String, String>,
    data: Arc<dyn Source>,
    loader: LoaderConfig,
    total: u64,
    log_every: u64,
    save_every: u64,
    validate_every: u64,
}

/// What came of a run.
pub(super) struct Finished {
    pub(super) state: State,
    pub(super) total: u64,
    pub(super) images_per_second: f64,
    pub(super) checkpoint: PathBuf,
    pub(super) report: PathBuf,
}

impl<'a> Trainer<'a> {
    /// Opens the run folder, and takes up its newest checkpoint or begins with `first_values`.
    ///
    /// # Errors
    /// If the folder holds another run, or no checkpoint of it is sound.
    pub(super) fn open<R: RecipeKind>(
        options: &'a Options<R>,
        start: &Start<R>,
        table: ParameterTable,
        groups: Vec<Group>,
        first_values: impl FnOnce(&ParameterTable) -> Result<Vec<f32>>,
        observe: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let train = options.recipe.train();
        // before the folder is made: what they are taken from may not fit
        let first_values = match checkpoint::list(&options.out)?.is_empty() {
            true => Some(first_values(&table)?),
            false => None,
        };
        let backend = Cpu::new(table, start.precision, options.threads);
        let folder = RunFolder::open(&options.out, &options.given, &start.resolved)?;
        let events = Events::create(folder.path())?;
        let mut records = Records { folder, events, state: State::default() };
        let mut average = None;
        match (checkpoint::newest(&options.out, backend.table())?, first_values) {
            ((Some(checkpoint), damaged), _) => {
                damaged.iter().for_each(|error| observe(Event::Damaged { error }));
                checkpoint.restore(&backend);
                average = checkpoint.average;
                records.state = checkpoint.state;
            }
            ((None, _), Some(values)) => backend.write_slot(Slot::Values, &values),
            ((None, _), None) => unreachable!("checkpoints do not vanish while the folder is opened"),
        }
        records.folder.rewind_log(records.state.updates)?;
        records.events.resume(records.state.updates)?;
        let average = (train.average_decay > 0.0).then(|| {
            let values = average.unwrap_or_else(|| backend.read_slot(Slot::Values));
            Average::new(train.average_decay, values)
        });
        let run = &start.resolved.run;
        observe(Event::Started {
            updates: records.state.updates,
            total: start.total,
            parameters: backend.table().len(),
            images: run.images,
            precision: &run.precision,
            precision_reason: &run.precision_reason,
            threads: run.threads,
        });
        let save_every = train.checkpoint_every_updates.unwrap_or(start.per_epoch);
        Ok(Self {
            train,
            max_skipped: options.recipe.data().max_skipped,
            backend,
            groups,
            schedule: Schedule::new(train, start.total),
            average,
            records,
            metadata: HashMap::from([(RECIPE_KEY.to_owned(), start.resolved.to_toml())]),
            data: Arc::clone(&start.data),
            loader: LoaderConfig {
                batch_size: train.batch_size,
                seed: options.seed,
                workers: options.workers,
                shuffle: true,
                prefetch: 2,
            },
            total: start.total,
            log_every: train.log_every_updates.unwrap_or((start.total / LOG_ENTRIES).max(1)),
            save_every,
            validate_every: train.validate_every_updates.unwrap_or(save_every),
        })
    }

    /// Trains to the end, or until `stop` is set; either way a checkpoint is left.
    ///
    /// # Errors
    /// If the input cannot be used, the disk fills, or a number stops being finite.
    pub(super) fn run(
        mut self,
        task: &mut impl Task,
        transform: Transform,
        observe: &mut dyn FnMut(Event),
        stop: &AtomicBool,
    ) -> Result<Finished> {
        let mut loader = Loader::new(Arc::clone(&self.data), transform, self.loader, self.records.state.updates)?;
        let mut sitting = Sitting::new(self.records.state.seconds);
        if self.records.state.updates == 0 {
            self.validate(task, observe)?;
        }
        while self.records.state.updates < self.total && !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let mut batch =
                loader.next().ok_or_else(|| Error::Input { what: "the loader ended early".into(), hint: None })??;
            self.note_skipped(&batch, observe)?;
            let number = self.records.state.updates + 1;
            self.backend.clear_gradients();
            let loss = task.gradients(&self.backend, &mut batch);
            let gradient_norm = self.update(number, loss)?;
            loader.recycle(batch.images);
            sitting.count(self.train.batch_size, started);

            let state = &mut self.records.state;
            state.updates = number;
            state.loss_sum += loss;
            state.loss_count += 1;
            let lr = self.schedule.lr_of_update(number);
            observe(Event::Updated { updates: number, loss, lr, images_per_second: sitting.recent_speed() });
            let is_last = number == self.total;
            if number.is_multiple_of(self.log_every) || is_last {
                self.log(batch.epoch, lr, gradient_norm, &sitting)?;
            }
            if number.is_multiple_of(self.validate_every) || is_last {
                self.validate(task, observe)?;
            }
            if number.is_multiple_of(self.save_every) && !is_last {
                self.save(&sitting, observe)?;
            }
        }
        let checkpoint = self.save(&sitting, observe)?; // at the end, or where it was interrupted
        Ok(Finished {
            total: self.total,
            images_per_second: sitting.speed(),
            checkpoint,
            report: self.records.folder.path().join("report.html"),
            state: self.records.state,
        })
    }

    /// One optimizer update from the gradients of a loss; returns their norm before clipping.
    fn update(&mut self, number: u64, loss: f64) -> Result<f64> {
        let step = |group: &Group| StepSize {
            lr: self.schedule.lr_of_group(number, group.lr_scale) as f32,
            weight_decay: if group.decays { self.train.weight_decay as f32 } else { 0.0 },
        };
        let steps: Vec<_> = self.groups.iter().map(step).collect();
        let norm = apply(&self.backend, self.train, number, loss, &steps, &mut |_| ())?;
        if let Some(average) = &mut self.average {
            average.take(number, &self.backend.read_slot(Slot::Values));
        }
        Ok(norm)
    }

    fn note_skipped(&mut self, batch: &Batch, observe: &mut dyn FnMut(Event)) -> Result<()> {
        let Records { state, folder, .. } = &mut self.records;
        for skipped in &batch.skipped {
            state.skipped += 1;
            observe(Event::Skipped { name: &skipped.name, reason: &skipped.reason });
            folder.log(&json!({ "update": state.updates + 1, "skipped": skipped.name, "reason": skipped.reason }))?;
        }
        let seen = (state.updates + 1) * self.train.batch_size as u64;
        // a few that come early are not yet a share
        let counted = seen + self.data.len().min(FIRST_IMAGES) as u64;
        match batch.skipped.last() {
            Some(last) if state.skipped as f64 > self.max_skipped * counted as f64 => Err(Error::TooManySkipped {
                skipped: state.skipped,
                seen,
                allowed: self.max_skipped,
                last: last.name.clone(),
                reason: last.reason.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn log(&mut self, epoch: u64, lr: f64, gradient_norm: f64, sitting: &Sitting) -> Result<()> {
        let state = &mut self.records.state;
        let loss = state.loss_sum / state.loss_count as f64;
        (state.loss_sum, state.loss_count, state.last_loss) = (0.0, 0, Some(loss));
        let speed = sitting.recent_speed();
        let entry = json!({
            "update": state.updates,
            "epoch": epoch,
            "loss": loss,
            "lr": lr,
            "gradient_norm": gradient_norm,
            "images_per_second": speed,
            "seconds": sitting.seconds(),
        });
        let scalars =
            [("loss/train", loss), ("lr", lr), ("gradient_norm", gradient_norm), ("images_per_second", speed)];
        self.records.note(&entry, &scalars)
    }

    /// Looks at the held-out images, with the mean of the weights where there is one.
    fn validate(&mut self, task: &mut impl Task, observe: &mut dyn FnMut(Event)) -> Result<()> {
        let Some(average) = &self.average else {
            return task.validate(&self.backend, &mut self.records, observe);
        };
        let own = self.backend.read_slot(Slot::Values);
        self.backend.write_slot(Slot::Values, average.values());
        let done = task.validate(&self.backend, &mut self.records, observe);
        self.backend.write_slot(Slot::Values, &own);
        done
    }

    fn save(&mut self, sitting: &Sitting, observe: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        self.records.state.seconds = sitting.seconds();
        let (folder, keep) = (self.records.folder.path(), self.train.keep_checkpoints);
        let average = self.average.as_ref().map(Average::values);
        let path = checkpoint::save(folder, &self.backend, average, &self.records.state, &self.metadata, keep)?;
        observe(Event::Saved { path: &path });
        Ok(path)
    }
}
