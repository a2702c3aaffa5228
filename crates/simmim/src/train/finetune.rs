//! Fine-tuning of a classifier, from a pre-trained encoder or from scratch.

use super::groups::groups;
use super::records::Records;
use super::setup::{self, TaskInfo};
use super::start::{say_start, start_from};
use super::task::{Ended, Evaluation, Task, is_due_every};
use super::trainer::{Parameters, Trainer, validate_every};
use super::{Event, Input, Options, Outcome};
use crate::classifier::Classifier;
use crate::encoders::{Encode, ForwardContext, activation_bytes};
use crate::error::Result;
use crate::evaluation::{ClassificationReport, checked_classes, class_weights, classify_unless_stopped, relabeled};
use crate::model::WeightedSum;
use crate::ranges::wrong;
use crate::recipe::FinetuneRecipe;
use crate::report::finetune_page;
use crate::run::{Collection, Resolved};
use crate::weights::{self, Builder, InitFrom, RECIPE_KEY, initial_values};
use simmim_data::rng::rng;
use simmim_data::{Batch, Mix, Purpose, Source, Subset, soft_targets};
use simmim_engine::{Backend, Collective, Device, Operations, ParameterTable, SoftLabels};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// File with the weights of the highest top-1 accuracy on the held-out images, or of the highest mean average precision where an
/// image may have several labels.
pub const BEST_FILE: &str = "best.safetensors";

/// Fine-tunes on `device`, together with the other ranks of `collective`. Resumes from the run folder's newest
/// checkpoint if there is one. Once `stop` is set, it finishes the current step, saves a checkpoint and returns.
///
/// # Errors
/// If the input or the weights cannot be used, the disk fills, a number stops being finite, or a rank is lost.
pub fn finetune<D: Device>(
    device: &D,
    collective: &mut dyn Collective,
    options: &Options<FinetuneRecipe>,
    init_from: &InitFrom,
    observe: &mut dyn FnMut(Event),
    stop: &AtomicBool,
) -> Result<Outcome> {
    let recipe = &options.recipe;
    let world = collective.world();
    let share = recipe.train.batch_size / world;
    if recipe.augment.mixes() && !share.is_multiple_of(2) {
        let expected = format!("images are mixed in pairs: each of {world} ranks needs an even number");
        let hint = "or switch mixing off by `--set augment.mix_probability=0.0`".into();
        return Err(wrong("train.batch_size", recipe.train.batch_size, expected, Some(hint)));
    }
    let Input { source, description } = &options.data;
    let classes = checked_classes(source.as_ref(), description, recipe.labels.per_image)?;
    let held_out = match &options.val {
        Some(val) => Some(relabeled(Arc::clone(&val.source), &val.description, &classes, recipe.labels.per_image)?),
        None => None,
    };
    let data: Arc<dyn Source> = match recipe.labels.fraction < 1.0 {
        true => Arc::new(Subset::balanced(Arc::clone(source), recipe.labels.fraction, options.seed)),
        false => Arc::clone(source),
    };
    let task_info = TaskInfo { from: init_from.description(), classes: classes.clone() };
    let mut setup = setup::open(options, device, collective, data, task_info, || Ok(None), observe)?;

    let mut builder = Builder::default();
    let model = Rc::new(Classifier::new(recipe, classes.len(), &mut builder)?);
    let (table, inits) = builder.finish();
    let (mut transferred, normalization) = (None, setup.resolved.run.normalization());
    let initialize = |table: &ParameterTable| {
        let mut values = initial_values(table, &inits, options.seed);
        transferred =
            start_from(init_from, &recipe.encoder, &classes, model.encoder(), table, &normalization, &mut values)?;
        Ok(values)
    };
    let blocks = model.encoder().block_activations();
    let parameters = Parameters {
        groups: groups(&table, model.encoder(), &recipe.train),
        activation_bytes: activation_bytes(
            &blocks[recipe.train.frozen_blocks..],
            setup.precision,
            recipe.train.recompute_blocks,
        ),
        initialize,
        table,
    };
    let resolved = setup.resolved.clone();
    let task = Finetuning::new(options, Arc::clone(&setup.data), Rc::clone(&model));
    let mut trainer = Trainer::begin(options, &mut setup, device, collective, parameters, task, observe)?;
    say_start(&trainer, transferred.as_ref(), observe);
    trainer.add_evaluation(AccuracyEvaluation {
        resolved: resolved.clone(),
        model,
        workers: options.workers,
        batch_size: recipe.train.micro_batch(world),
        held_out,
        last: None,
        every: validate_every(&setup),
        total: setup.total,
    });
    trainer.run(recipe.train_transform(resolved.run.normalization()), observe, stop)
}

/// The task of fine-tuning: classification with cross-entropy.
struct Finetuning {
    recipe: FinetuneRecipe,
    seed: u64,
    source: Arc<dyn Source>,
    model: Rc<Classifier>,
    /// Weight of each class in the loss.
    class_weights: Vec<f32>,
}

impl Finetuning {
    fn new(options: &Options<FinetuneRecipe>, source: Arc<dyn Source>, model: Rc<Classifier>) -> Self {
        let labels = options.recipe.labels;
        let class_weights = class_weights(source.as_ref(), labels.class_weights, labels.per_image);
        Self { recipe: options.recipe.clone(), seed: options.seed, source, model, class_weights }
    }
}

impl Task for Finetuning {
    type Inputs = Vec<f32>;

    /// Soft labels of a batch. Mixup and CutMix mix the images in place and the labels in the same proportions.
    ///
    /// # Shapes
    /// `[B, K]`.
    fn prepare(&self, batch: &mut Batch) -> Vec<f32> {
        let (recipe, classes) = (&self.recipe, self.model.classes());
        let smoothed = |sample: &usize| {
            // an image with several labels gets the element-wise maximum of their targets, and one with none the least
            let labels = self.source.labels(*sample);
            let each = soft_targets(&labels, classes, recipe.labels.smoothing);
            let join = |mut all: Vec<f32>, one: &[f32]| {
                all.iter_mut().zip(one).for_each(|(all, one)| *all = all.max(*one));
                all
            };
            let least = (recipe.labels.smoothing / classes as f64) as f32;
            each.chunks_exact(classes).fold(vec![least; classes], join)
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
            let mut rng = rng(self.seed, Purpose::Mix, batch.epoch, batch.number);
            let mixture = mix.draw(height, width, &mut rng);
            mixture.mix_images(&mut batch.images, [recipe.data.channels, height, width]);
            mixture.mix_targets(&mut targets, classes);
        }
        targets
    }

    fn loss<B: Operations>(
        &self,
        b: &B,
        batch: &Batch,
        inputs: &Vec<f32>,
        range: Range<usize>,
    ) -> WeightedSum<B::Tensor> {
        let mut context = ForwardContext::of_samples(self.seed, batch.epoch, &batch.samples[range.clone()])
            .recomputing_blocks(self.recipe.train.recompute_blocks)
            .freezing_blocks(self.recipe.train.frozen_blocks);
        let classes = self.model.classes();
        let images = self.recipe.data.images(&batch.images).range(range.clone());
        let labels = SoftLabels {
            labels: self.recipe.labels.per_image.loss(),
            target: &inputs[range.start * classes..range.end * classes],
            weight: &self.class_weights.repeat(range.len()),
        };
        self.model.loss(b, &images, &labels, &mut context)
    }
}

/// Evaluates accuracy on held-out images, keeps the best weights, and writes the report.
struct AccuracyEvaluation {
    resolved: Resolved<FinetuneRecipe>,
    model: Rc<Classifier>,
    workers: usize,
    /// Images that are classified at a time.
    batch_size: usize,
    held_out: Option<Arc<dyn Source>>,
    /// The last evaluation of the held-out images by this process.
    last: Option<ClassificationReport>,
    every: u64,
    total: u64,
}

impl AccuracyEvaluation {
    /// The report on these images; `None` if the run stops before.
    fn classify<B: Backend>(
        &self,
        b: &B,
        source: &Arc<dyn Source>,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<ClassificationReport>> {
        let recipe = &self.resolved.recipe;
        let transform = recipe.evaluation_transform(self.resolved.run.normalization());
        let labels = recipe.labels.per_image.loss();
        let (source, batch) = (Arc::clone(source), self.batch_size);
        classify_unless_stopped((b, &self.model), source, transform, labels, batch, self.workers, is_stopping)
    }

    fn write_page(&self, records: &mut Records) -> Result<()> {
        let log = records.flushed_log()?;
        let page = finetune_page(&log, &self.resolved, records.state(), self.total, self.last.as_ref());
        Ok(page.write(&records.path().join("report.html"))?)
    }

    /// Keeps the weights with the highest accuracy; where an image may have several labels, with the highest mean average
    /// precision.
    fn keep_best<B: Backend>(&self, b: &B, records: &mut Records, done: &ClassificationReport) -> Result<()> {
        let top1 = done.accuracy.top1();
        let (name, score) = match done.mean_average_precision {
            Some(mean) => ("best_mean_average_precision", mean),
            None => ("best_top1", top1),
        };
        if records.metric(name).is_some_and(|best| best >= score) {
            return Ok(());
        }
        records.set_metric("best_top1", top1);
        records.set_metric(name, score);
        records.set_metric("best_step", records.state().steps as f64);
        let metadata = HashMap::from([(RECIPE_KEY.to_owned(), self.resolved.to_weights_metadata())]);
        weights::save_values_atomically(&records.path().join(BEST_FILE), b, metadata)
    }
}

impl<B: Backend> Evaluation<B> for AccuracyEvaluation {
    fn is_due(&self, steps: u64, total: u64) -> bool {
        is_due_every(self.every, steps, total)
    }

    fn evaluate(
        &mut self,
        b: &B,
        records: &mut Records,
        observe: &mut dyn FnMut(Event),
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Ended> {
        let steps = records.state().steps;
        // before the first step the head is untrained
        if let Some(source) = self.held_out.as_ref().filter(|_| steps > 0) {
            let Some(done) = self.classify(b, source, is_stopping)? else { return Ok(Ended::Early) };
            records.count_unreadable(Collection::HeldOut, &done.skipped, steps, observe)?;
            let (loss, top1, top5) = (done.loss, done.accuracy.top1(), done.accuracy.top5());
            let mean_average_precision = done.mean_average_precision;
            observe(Event::Classified { steps, loss, top1, top5, mean_average_precision });
            let mut scalars = vec![("loss/held-out", loss), ("top1", top1), ("top5", top5)];
            scalars.extend(mean_average_precision.map(|mean| ("mean_average_precision", mean)));
            records.log_metrics(
                &[
                    ("val_loss", Some(loss)),
                    ("top1", Some(top1)),
                    ("top5", Some(top5)),
                    ("mean_average_precision", mean_average_precision),
                ],
                &scalars,
            )?;
            self.keep_best(b, records, &done)?;
            self.last = Some(done);
        }
        self.write_page(records)?;
        Ok(Ended::Whole)
    }

    fn report(&mut self, records: &mut Records) -> Result<()> {
        // a process that has not classified yet has less to say than the one before it
        if self.last.is_none() && self.held_out.is_some() { Ok(()) } else { self.write_page(records) }
    }
}
