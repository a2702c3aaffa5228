//! Fine-tuning: a classifier learns from labels, beginning with a pre-trained encoder or from scratch.

use super::trainer::{Finished, Group, Records, Start, Task, Trainer, start};
use super::{Event, Input, Options, groups};
use crate::build::{Builder, initial_values};
use crate::classifier::Classifier;
use crate::encoder::Pass;
use crate::error::Result;
use crate::evaluation::{self, Evaluation};
use crate::found::Found;
use crate::labels::{checked_classes, class_weights, relabelled};
use crate::recipe::FinetuneRecipe;
use crate::report::finetune_page;
use crate::run::read_log;
use crate::transfer::{Pretrained, transfer};
use crate::weights::{self, RECIPE_KEY};
use serde_json::json;
use simmim_data::rng::rng;
use simmim_data::{Batch, Mix, Purpose, Source, Subset, soft_targets};
use simmim_engine::{Backend, Cpu, Images, Labels, Operations, ParameterTable, Slot, SoftLabels};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// File with the weights that did best on the held-out images.
pub const BEST_FILE: &str = "best.safetensors";

/// Where the encoder's first values come from.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// Drawn anew.
    Scratch,
    /// A run folder, a checkpoint folder or a weights file.
    Weights(PathBuf),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Finetuned {
    /// Updates done in all.
    pub updates: u64,
    /// Updates of the whole run.
    pub total_updates: u64,
    /// Last logged loss.
    pub loss: Option<f64>,
    /// Last loss on held-out images.
    pub val_loss: Option<f64>,
    /// Held-out images whose class had the highest score at the last look, in percent.
    pub top1: Option<f64>,
    /// Those whose class was among the five highest.
    pub top5: Option<f64>,
    /// The best top-1 of all looks.
    pub best_top1: Option<f64>,
    /// The update of that look.
    pub best_update: Option<u64>,
    /// Held-out images.
    pub images: usize,
    /// Throughput of this sitting, without evaluation and saving.
    pub images_per_second: f64,
    /// Unreadable images.
    pub skipped: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The weights that did best.
    pub best: PathBuf,
    /// The report page.
    pub report: PathBuf,
}

impl Finetuned {
    /// Whether the run got to its end, rather than being interrupted.
    pub fn is_finished(&self) -> bool {
        self.updates == self.total_updates
    }
}

/// Fine-tunes, or goes on where the run folder's last checkpoint is; stops soon after `stop` is set,
/// with a checkpoint.
///
/// # Errors
/// If the input or the weights cannot be used, the disk fills, or a number stops being finite.
pub fn finetune(
    options: &Options<FinetuneRecipe>,
    beginning: &Beginning,
    observe: &mut dyn FnMut(Event),
    stop: &AtomicBool,
) -> Result<Finetuned> {
    let recipe = &options.recipe;
    let Input { source, description } = &options.data;
    let classes = checked_classes(source.as_ref(), description, recipe.labels.per_image)?;
    let held_out = match &options.val {
        Some(val) => Some(relabelled(Arc::clone(&val.source), &val.description, &classes, recipe.labels.per_image)?),
        None => None,
    };
    let data: Arc<dyn Source> = match recipe.labels.fraction < 1.0 {
        true => Arc::new(Subset::balanced(Arc::clone(source), recipe.labels.fraction, options.seed)),
        false => Arc::clone(source),
    };
    let mut start = start(options, data)?;
    start.resolved.run.classes = classes.clone();
    start.resolved.run.from = match beginning {
        Beginning::Scratch => None,
        Beginning::Weights(path) => Some(path.display().to_string()),
    };

    let mut builder = Builder::default();
    let image_px = recipe.data.image_size.height_and_width();
    let model = Classifier::new(&recipe.encoder, image_px, recipe.data.channels, classes.len(), &mut builder);
    let (table, inits) = builder.finish();
    let decays = groups::decays(&table, model.encoder(), recipe.train.decay_groups);
    let scales = groups::lr_scales(&table, model.encoder(), recipe.train.layer_decay);
    let groups = decays.into_iter().zip(scales).map(|(decays, lr_scale)| Group { lr_scale, decays }).collect();
    let mut transferred = None;
    let first_values = |table: &ParameterTable| {
        let mut values = initial_values(table, &inits, options.seed);
        if let Beginning::Weights(path) = beginning {
            let found = Found::at(path)?;
            let done = transfer(&Pretrained::new(found, &classes), model.encoder(), table, &mut values)?;
            transferred = Some(done);
        }
        Ok(values)
    };
    let trainer = Trainer::open(options, &start, table, groups, first_values, observe)?;
    if let Some(transfer) = &transferred {
        observe(Event::Transferred { transfer });
    }
    let mut task = Finetuning::new(options, &start, model, held_out);
    let Finished { state, total, images_per_second, checkpoint, report } =
        trainer.run(&mut task, evaluation::train_transform(&start.resolved), observe, stop)?;
    Ok(Finetuned {
        updates: state.updates,
        total_updates: total,
        loss: state.last_loss,
        val_loss: state.val_loss,
        top1: state.top1,
        top5: state.top5,
        best_top1: state.best_top1,
        best_update: state.best_update,
        images: task.held_out.as_ref().map_or(0, |source| source.len()),
        images_per_second,
        skipped: state.skipped,
        checkpoint,
        best: options.out.join(BEST_FILE),
        report,
    })
}

/// Labelled images, and how well the classes of held-out ones are told.
struct Finetuning<'a> {
    options: &'a Options<FinetuneRecipe>,
    start: &'a Start<FinetuneRecipe>,
    model: Classifier,
    held_out: Option<Arc<dyn Source>>,
    /// Weight of each class in the loss.
    class_weights: Vec<f32>,
    are_unreadable_noted: bool,
}

impl<'a> Finetuning<'a> {
    fn new(
        options: &'a Options<FinetuneRecipe>,
        start: &'a Start<FinetuneRecipe>,
        model: Classifier,
        held_out: Option<Arc<dyn Source>>,
    ) -> Self {
        let labels = options.recipe.labels;
        let class_weights = class_weights(start.data.as_ref(), labels.class_weights, labels.per_image);
        Self { options, start, model, held_out, class_weights, are_unreadable_noted: false }
    }

    /// Soft labels of a batch, mixed as its images are.
    ///
    /// # Shapes
    /// `[B, K]`.
    fn targets(&self, batch: &mut Batch) -> Vec<f32> {
        let (recipe, classes) = (&self.options.recipe, self.model.classes());
        let smoothed = |sample: &usize| {
            // the targets of each of its labels, joined
            let labels = self.start.data.labels(*sample);
            let each = soft_targets(&labels, classes, recipe.labels.smoothing);
            let join = |mut all: Vec<f32>, one: &[f32]| {
                all.iter_mut().zip(one).for_each(|(all, one)| *all = all.max(*one));
                all
            };
            each.chunks_exact(classes).fold(vec![0.0; classes], join)
        };
        let mut targets: Vec<f32> = batch.samples.iter().flat_map(smoothed).collect();
        let augment = &recipe.augment;
        if augment.mixes() {
            let mix = Mix {
                probability: augment.mix_probability,
                mixup_alpha: augment.mixup,
                cutmix_alpha: augment.cutmix,
                switch_probability: augment.cutmix_probability,
            };
            let (height, width) = recipe.data.image_size.height_and_width();
            let mut rng = rng(self.options.seed, Purpose::Mix, batch.epoch, batch.number);
            let mixture = mix.draw(height, width, &mut rng);
            mixture.mix_images(&mut batch.images, [recipe.data.channels, height, width]);
            mixture.mix_targets(&mut targets, classes);
        }
        targets
    }

    fn keep_best(&self, b: &Cpu, records: &mut Records, top1: f64) -> Result<()> {
        if records.state.best_top1.is_some_and(|best| best >= top1) {
            return Ok(());
        }
        records.state.best_top1 = Some(top1);
        records.state.best_update = Some(records.state.updates);
        let path = records.folder.path().join(BEST_FILE);
        let metadata = HashMap::from([(RECIPE_KEY.to_owned(), self.start.resolved.to_toml())]);
        weights::save_atomically(&path, b.table(), &b.read_slot(Slot::Values), metadata)
    }
}

impl Task for Finetuning<'_> {
    fn gradients(&self, b: &Cpu, batch: &mut Batch) -> f64 {
        let recipe = &self.options.recipe;
        let targets = self.targets(batch);
        let classes = self.model.classes();
        let labels = recipe.labels.per_image.loss();
        let (height, width) = recipe.data.image_size.height_and_width();
        let count = batch.samples.len();
        let images = Images { pixels: &batch.images, count, channels: recipe.data.channels, height, width };
        // all parts of the update share the whole batch's denominator, so cutting it changes nothing
        let denominator = match labels {
            Labels::One => count as f64,
            Labels::Many => (count * classes) as f64,
        };
        let part = recipe.train.batch_size / recipe.train.accumulation_steps;
        let weight = self.class_weights.repeat(part);
        let mut loss = 0.0;
        for start in (0..count).step_by(part) {
            let range = start..start + part;
            let mut pass = Pass::of_samples(self.options.seed, batch.epoch, &batch.samples[range.clone()])
                .recomputing_blocks(self.options.recipe.train.recompute_blocks);
            let target = &targets[start * classes..][..part * classes];
            b.start(true);
            let soft = SoftLabels { labels, target, weight: &weight, denominator };
            let value = self.model.loss(b, &images.part(range), &soft, &mut pass);
            loss += b.read(&value)[0] as f64;
            b.backward(&value);
        }
        loss
    }

    /// Accuracy on the held-out images, the best weights, and the report.
    fn validate(&mut self, b: &Cpu, records: &mut Records, observe: &mut dyn FnMut(Event)) -> Result<()> {
        let resolved = &self.start.resolved;
        let updates = records.state.updates;
        let mut last: Option<Evaluation> = None;
        // before the first update the head knows nothing
        if let Some(source) = self.held_out.as_ref().filter(|_| updates > 0) {
            let done = evaluation::evaluate(
                b,
                &self.model,
                Arc::clone(source),
                evaluation::transform(resolved),
                self.options.recipe.labels.per_image.loss(),
                self.options.recipe.train.batch_size / self.options.recipe.train.accumulation_steps,
                self.options.workers,
            )?;
            if !self.are_unreadable_noted {
                let is_logged = records.state.top1.is_some();
                records.note_unreadable(&done.skipped, is_logged, observe)?;
                self.are_unreadable_noted = true;
            }
            let (loss, top1, top5) = (done.loss, done.accuracy.top1(), done.accuracy.top5());
            (records.state.val_loss, records.state.top1, records.state.top5) = (Some(loss), Some(top1), Some(top5));
            observe(Event::Evaluated { updates, loss, top1, top5 });
            let entry = json!({ "update": updates, "val_loss": loss, "top1": top1, "top5": top5 });
            records.note(&entry, &[("loss/held-out", loss), ("top1", top1), ("top5", top5)])?;
            self.keep_best(b, records, top1)?;
            last = Some(done);
        }
        records.events.flush()?;
        let folder = records.folder.path();
        let page = finetune_page(&read_log(folder)?, resolved, &records.state, self.start.total, last.as_ref());
        Ok(page.write(&folder.join("report.html"))?)
    }
}
