//! Masked pre-training, from images to a finished run folder.
//!
//! The loop counts optimizer updates and nothing else. What an update does is a function of the
//! recipe, the seed and its number, so a run that was interrupted goes on to the same bits.

use super::validate::Validation;
use super::{Event, Schedule, groups};
use crate::build::{Builder, initial_values};
use crate::checkpoint::{self, State};
use crate::encoder::Pass;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::mask::{Grid, Mask, MaskStrategy, strategy};
use crate::model::SimMim;
use crate::precision::{self, PrecisionChoice};
use crate::recipe::{NormalizationKind, Recipe};
use crate::reconstruct::RECIPE_KEY;
use crate::report::run_page;
use crate::run::{Resolved, RunFolder, RunInfo, read_log, read_resolved};
use serde_json::json;
use simmim_data::rng::rng;
use simmim_data::{
    Augmentation, Batch, Loader, LoaderConfig, Normalisation, Purpose, RandomResizedCrop, Source, Transform,
};
use simmim_engine::{Backend, Cpu, Images, Slot, StepSize, Update};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Log entries a run has if its recipe does not say how often.
const LOG_ENTRIES: u64 = 200;

/// Updates that the shown throughput is an average of.
const SPEED_WINDOW: usize = 20;

/// Images that statistics are measured on.
const MEASURED_IMAGES: usize = 2000;

/// Images whose allowed share of unreadable ones is granted in advance, at most one epoch.
const FIRST_IMAGES: usize = 1000;

/// Images and where they come from, in words.
#[derive(Clone)]
pub struct Input {
    /// The images.
    pub source: Arc<dyn Source>,
    /// What the user called them.
    pub description: String,
}

/// Everything a pre-training run needs to know.
pub struct Options {
    /// The checked recipe.
    pub recipe: Recipe,
    /// The recipe as the user gave it, for the run folder.
    pub given: String,
    /// Training images.
    pub data: Input,
    /// Held-out images.
    pub val: Option<Input>,
    /// The run folder.
    pub out: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// Arithmetic.
    pub precision: PrecisionChoice,
    /// Worker threads of the engine.
    pub threads: usize,
    /// Worker threads of the loader.
    pub workers: usize,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Updates done in all.
    pub updates: u64,
    /// Updates of the whole run.
    pub total_updates: u64,
    /// Last logged loss.
    pub loss: Option<f64>,
    /// Last loss on held-out images.
    pub val_loss: Option<f64>,
    /// Loss of predicting the mean of what is visible, on the held-out images; none for classes.
    pub baseline_loss: Option<f64>,
    /// Throughput of this sitting, without validation and saving.
    pub images_per_second: f64,
    /// Unreadable images.
    pub skipped: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The report page.
    pub report: PathBuf,
}

impl Outcome {
    /// Whether the run got to its end, rather than being interrupted.
    pub fn is_finished(&self) -> bool {
        self.updates == self.total_updates
    }
}

/// Pre-trains, or goes on where the run folder's last checkpoint is; stops soon after `stop` is set,
/// with a checkpoint.
///
/// # Errors
/// If the input cannot be used, the disk fills, or a number stops being finite.
pub fn pretrain(options: &Options, observe: &mut dyn FnMut(Event), stop: &AtomicBool) -> Result<Outcome> {
    let recipe = &options.recipe;
    let images = options.data.source.len();
    let per_epoch = Loader::batches_per_epoch(images, recipe.train.batch_size);
    if per_epoch == 0 {
        return Err(Error::Recipe {
            key: "train.batch_size".into(),
            value: recipe.train.batch_size.to_string(),
            expected: format!("more than the {images} images of `{}`", options.data.description),
            hint: Some(format!("--set train.batch_size={} uses them all at every update", images.max(1))),
        });
    }
    simmim_data::check_readable(options.data.source.as_ref())?;
    if let Some(val) = &options.val {
        simmim_data::check_readable(val.source.as_ref())?;
    }
    let total = recipe.train.max_updates.unwrap_or((recipe.train.epochs * per_epoch as f64).round().max(1.0) as u64);
    let (precision, precision_reason) = precision::choose(options.precision);
    // a run that goes on keeps the statistics it began with
    let normalisation = match read_resolved(&options.out) {
        Ok(resolved) => resolved.run.normalisation(),
        Err(_) => normalisation(recipe, options.data.source.as_ref())?,
    };
    let resolved = Resolved {
        recipe: recipe.clone(),
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
            mean: normalisation.mean.clone(),
            std: normalisation.std.clone(),
        },
    };

    let mut builder = Builder::default();
    let model = SimMim::new(recipe, &resolved.run.colours(), &mut builder)?;
    let (table, inits) = builder.finish();
    let decays = groups::decays(&table, model.encoder(), recipe.train.decay_groups);
    let backend = Cpu::new(table, precision, options.threads);
    let folder = RunFolder::open(&options.out, &options.given, &resolved)?;
    let mut run = Run::new(options, &resolved, model, decays, backend, folder, total, per_epoch)?;
    match checkpoint::newest(&options.out, run.backend.table())? {
        (Some(checkpoint), damaged) => {
            damaged.iter().for_each(|error| observe(Event::Damaged { error }));
            checkpoint.restore(&run.backend);
            run.state = checkpoint.state;
        }
        (None, _) => run.backend.write_slot(Slot::Values, &initial_values(run.backend.table(), &inits, options.seed)),
    }
    run.folder.rewind_log(run.state.updates)?;
    run.events.resume(run.state.updates)?;
    observe(Event::Started {
        updates: run.state.updates,
        total,
        parameters: run.backend.table().len(),
        images,
        precision: precision::name(precision),
        precision_reason,
        threads: options.threads,
    });
    run.train(observe, stop)
}

fn normalisation(recipe: &Recipe, source: &dyn Source) -> Result<Normalisation> {
    match recipe.data.normalization {
        NormalizationKind::Imagenet => Ok(Normalisation::imagenet()),
        NormalizationKind::Measured => Ok(Normalisation::measure(source, MEASURED_IMAGES)?),
    }
}

/// A run under way.
struct Run<'a> {
    options: &'a Options,
    recipe: &'a Recipe,
    resolved: &'a Resolved,
    model: SimMim,
    decays: Vec<bool>,
    backend: Cpu,
    schedule: Schedule,
    mask: Box<dyn MaskStrategy>,
    grid: Grid,
    train_transform: Transform,
    validation: Validation,
    folder: RunFolder,
    events: Events,
    state: State,
    total: u64,
    log_every: u64,
    save_every: u64,
    validate_every: u64,
}

impl<'a> Run<'a> {
    fn new(
        options: &'a Options,
        resolved: &'a Resolved,
        model: SimMim,
        decays: Vec<bool>,
        backend: Cpu,
        folder: RunFolder,
        total: u64,
        per_epoch: u64,
    ) -> Result<Self> {
        let recipe = &options.recipe;
        let (height, width) = recipe.data.image_size.height_and_width();
        let grid = Grid { rows: height / recipe.mask.unit_px, columns: width / recipe.mask.unit_px };
        let mask = strategy(&recipe.mask);
        let transform =
            |augmentation| Transform { height, width, augmentation, normalisation: resolved.run.normalisation() };
        // without held-out images the pictures are of training images, uncropped
        let looked_at = options.val.as_ref().unwrap_or(&options.data);
        let part = recipe.train.batch_size / recipe.train.accumulation_steps;
        let validation = Validation::new(
            Arc::clone(&looked_at.source),
            transform(Augmentation::Centre),
            mask.as_ref(),
            grid,
            options.seed,
            part,
            options.workers,
        )?;
        let save_every = recipe.train.checkpoint_every_updates.unwrap_or(per_epoch);
        Ok(Self {
            options,
            recipe,
            resolved,
            model,
            decays,
            backend,
            schedule: Schedule::new(&recipe.train, total),
            mask,
            grid,
            train_transform: transform(Augmentation::RandomResizedCrop(RandomResizedCrop {
                scale: recipe.data.crop_scale,
                ratio: recipe.data.crop_ratio,
                hflip: recipe.data.flip,
            })),
            validation,
            events: Events::create(folder.path())?,
            folder,
            state: State::default(),
            total,
            log_every: recipe.train.log_every_updates.unwrap_or((total / LOG_ENTRIES).max(1)),
            save_every,
            validate_every: recipe.train.validate_every_updates.unwrap_or(save_every),
        })
    }

    fn train(mut self, observe: &mut dyn FnMut(Event), stop: &AtomicBool) -> Result<Outcome> {
        let config = LoaderConfig {
            batch_size: self.recipe.train.batch_size,
            seed: self.options.seed,
            workers: self.options.workers,
            shuffle: true,
            prefetch: 2,
        };
        let source = Arc::clone(&self.options.data.source);
        let mut loader = Loader::new(source, self.train_transform.clone(), config, self.state.updates)?;
        let mut sitting = Sitting::new(self.state.seconds);
        self.note_unreadable_held_out(observe)?;
        if self.state.updates == 0 {
            self.validate(observe)?;
        }
        while self.state.updates < self.total && !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let batch =
                loader.next().ok_or_else(|| Error::Input { what: "the loader ended early".into(), hint: None })??;
            self.note_skipped(&batch, observe)?;
            let number = self.state.updates + 1;
            let (loss, gradient_norm) = self.update(number, &batch)?;
            loader.recycle(batch.images);
            sitting.count(self.recipe.train.batch_size, started);

            self.state.updates = number;
            self.state.loss_sum += loss;
            self.state.loss_count += 1;
            let lr = self.schedule.lr_of_update(number);
            observe(Event::Updated { updates: number, loss, lr, images_per_second: sitting.recent_speed() });
            let is_last = number == self.total;
            if number.is_multiple_of(self.log_every) || is_last {
                self.log(batch.epoch, lr, gradient_norm, &sitting)?;
            }
            if number.is_multiple_of(self.validate_every) || is_last {
                self.validate(observe)?;
            }
            if number.is_multiple_of(self.save_every) && !is_last {
                self.save(&sitting, observe)?;
            }
        }
        let checkpoint = self.save(&sitting, observe)?; // at the end, or where it was interrupted
        Ok(Outcome {
            updates: self.state.updates,
            total_updates: self.total,
            loss: self.state.last_loss,
            val_loss: self.state.val_loss,
            baseline_loss: self.state.baseline_loss,
            images_per_second: sitting.speed(),
            skipped: self.state.skipped,
            checkpoint,
            report: self.folder.path().join("report.html"),
        })
    }

    /// One optimizer update; returns its loss and the gradients' norm before clipping.
    fn update(&self, number: u64, batch: &Batch) -> Result<(f64, f64)> {
        let draw = |sample: &usize| {
            self.mask.sample(&mut rng(self.options.seed, Purpose::Mask, batch.epoch, *sample as u64), self.grid)
        };
        let masks: Vec<Mask> = batch.samples.iter().map(draw).collect();
        let (channels, height, width) =
            (self.recipe.data.channels, self.train_transform.height, self.train_transform.width);
        let images = Images { pixels: &batch.images, count: masks.len(), channels, height, width };
        // all parts of the update share the whole batch's denominator, so cutting it changes nothing
        let weight_sum = self.model.weight_sum(&self.model.hidden(&masks));
        let part = self.recipe.train.batch_size / self.recipe.train.accumulation_steps;
        let mut loss = 0.0;
        self.backend.clear_gradients();
        for start in (0..masks.len()).step_by(part) {
            let range = start..start + part;
            let generator = |sample: &usize| rng(self.options.seed, Purpose::DropPath, batch.epoch, *sample as u64);
            let mut pass = Pass::train(batch.samples[range.clone()].iter().map(generator).collect());
            let hidden = self.model.hidden(&masks[range.clone()]);
            self.backend.start(true);
            let value = self.model.loss(&self.backend, &images.part(range), &hidden, weight_sum, &mut pass);
            loss += simmim_engine::Operations::read(&self.backend, &value)[0] as f64;
            self.backend.backward(&value);
        }
        let norm = self.backend.gradient_norm();
        self.check_finite(number, loss, norm)?;
        let train = &self.recipe.train;
        // as torch's clip_grad_norm_: the 1e-6 is its own
        let clip = if train.clip_grad > 0.0 { (train.clip_grad / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let lr = self.schedule.lr_of_update(number) as f32;
        let step = |decays: &bool| StepSize { lr, weight_decay: if *decays { train.weight_decay as f32 } else { 0.0 } };
        self.backend.update(&Update {
            number,
            betas: (train.betas.0 as f32, train.betas.1 as f32),
            eps: train.eps as f32,
            gradient_scale: clip as f32,
            steps: &self.decays.iter().map(step).collect::<Vec<_>>(),
        });
        Ok((loss, norm))
    }

    fn check_finite(&self, update: u64, loss: f64, norm: f64) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::NotFinite { update, what: "the loss".into(), value: loss });
        }
        if !norm.is_finite() {
            let gradients = self.backend.read_slot(Slot::Gradients);
            let broken =
                self.backend.table().iter().find(|p| gradients[p.range.clone()].iter().any(|g| !g.is_finite()));
            let what = broken.map_or("the gradients' norm".into(), |p| format!("the gradient of `{}`", p.name));
            return Err(Error::NotFinite { update, what, value: norm });
        }
        Ok(())
    }

    fn note_skipped(&mut self, batch: &Batch, observe: &mut dyn FnMut(Event)) -> Result<()> {
        for skipped in &batch.skipped {
            self.state.skipped += 1;
            observe(Event::Skipped { name: &skipped.name, reason: &skipped.reason });
            self.folder
                .log(&json!({ "update": self.state.updates + 1, "skipped": skipped.name, "reason": skipped.reason }))?;
        }
        let seen = (self.state.updates + 1) * self.recipe.train.batch_size as u64;
        let allowed = self.recipe.data.max_skipped;
        // a few that come early are not yet a share
        let counted = seen + self.options.data.source.len().min(FIRST_IMAGES) as u64;
        match batch.skipped.last() {
            Some(last) if self.state.skipped as f64 > allowed * counted as f64 => Err(Error::TooManySkipped {
                skipped: self.state.skipped,
                seen,
                allowed,
                last: last.name.clone(),
                reason: last.reason.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Names the held-out images that cannot be read; training images are named when their turn comes.
    fn note_unreadable_held_out(&mut self, observe: &mut dyn FnMut(Event)) -> Result<()> {
        if self.options.val.is_none() {
            return Ok(());
        }
        for skipped in self.validation.skipped() {
            observe(Event::Skipped { name: &skipped.name, reason: &skipped.reason });
            if self.state.updates == 0 {
                self.folder.log(&json!({ "update": 0, "skipped": skipped.name, "reason": skipped.reason }))?;
            }
        }
        Ok(())
    }

    fn log(&mut self, epoch: u64, lr: f64, gradient_norm: f64, sitting: &Sitting) -> Result<()> {
        let loss = self.state.loss_sum / self.state.loss_count as f64;
        (self.state.loss_sum, self.state.loss_count, self.state.last_loss) = (0.0, 0, Some(loss));
        let update = self.state.updates;
        let speed = sitting.recent_speed();
        self.folder.log(&json!({
            "update": update,
            "epoch": epoch,
            "loss": loss,
            "lr": lr,
            "gradient_norm": gradient_norm,
            "images_per_second": speed,
            "seconds": sitting.seconds(),
        }))?;
        let scalars =
            [("loss/train", loss), ("lr", lr), ("gradient_norm", gradient_norm), ("images_per_second", speed)];
        for (tag, value) in scalars {
            self.events.scalar(tag, update, value as f32)?;
        }
        Ok(())
    }

    /// Held-out loss, pictures and the report.
    fn validate(&mut self, observe: &mut dyn FnMut(Event)) -> Result<()> {
        if self.validation.is_empty() {
            return Ok(());
        }
        let update = self.state.updates;
        if self.options.val.is_some() {
            let measured = self.validation.measure(&self.backend, &self.model);
            self.state.val_loss = Some(measured.loss);
            let super::validate::Measured { loss, baseline } = measured;
            self.state.baseline_loss = baseline;
            observe(Event::Validated { updates: update, loss, baseline });
            self.folder.log(&json!({ "update": update, "val_loss": loss, "baseline_loss": baseline }))?;
            self.events.scalar("loss/held-out", update, measured.loss as f32)?;
        }
        let sheet = self.validation.pictures(&self.backend, &self.model, &self.resolved.run.normalisation());
        let png = sheet.png_bytes()?;
        let path = self.folder.path().join("pictures").join(format!("update-{update:07}.png"));
        crate::files::write_atomically(&path, &png)?;
        let rendered = sheet.render();
        self.events.image("predictions", update, &png, rendered.height() as usize, rendered.width() as usize)?;
        self.events.flush()?;
        let page = run_page(
            &read_log(self.folder.path())?,
            self.resolved,
            update,
            self.total,
            &png,
            self.options.val.is_some(),
        );
        page.write(&self.folder.path().join("report.html"))?;
        Ok(())
    }

    fn save(&mut self, sitting: &Sitting, observe: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        self.state.seconds = sitting.seconds();
        let metadata = HashMap::from([(RECIPE_KEY.to_owned(), self.resolved.to_toml())]);
        let keep = self.recipe.train.keep_checkpoints;
        let path = checkpoint::save(self.folder.path(), &self.backend, &self.state, &metadata, keep)?;
        observe(Event::Saved { path: &path });
        Ok(path)
    }
}

/// Time and throughput since the process took the run up.
struct Sitting {
    before_s: f64,
    since: Instant,
    images: usize,
    seconds: f64,
    recent: VecDeque<(usize, f64)>,
}

impl Sitting {
    fn new(before_s: f64) -> Self {
        Self { before_s, since: Instant::now(), images: 0, seconds: 0.0, recent: VecDeque::new() }
    }

    fn count(&mut self, images: usize, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        self.images += images;
        self.seconds += seconds;
        if self.recent.len() == SPEED_WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((images, seconds));
    }

    /// Seconds of the run over all sittings.
    fn seconds(&self) -> f64 {
        self.before_s + self.since.elapsed().as_secs_f64()
    }

    /// Images per second of the updates of this sitting.
    fn speed(&self) -> f64 {
        if self.seconds > 0.0 { self.images as f64 / self.seconds } else { 0.0 }
    }

    fn recent_speed(&self) -> f64 {
        let (images, seconds) = self.recent.iter().fold((0, 0.0), |sum, r| (sum.0 + r.0, sum.1 + r.1));
        if seconds > 0.0 { images as f64 / seconds } else { 0.0 }
    }
}
