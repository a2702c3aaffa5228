//! Masked pre-training (arXiv:2111.09886): set-up of a run, and its task.

use super::groups::groups;
use super::held_out::{HeldOut, HeldOutEvaluation};
use super::monitor::Monitor;
use super::setup::{self, TaskInfo};
use super::start::{say_start, start_from};
use super::task::Task;
use super::trainer::{Parameters, Trainer, validate_every};
use super::{Event, Options, Outcome};
use crate::encoders::{Encode, ForwardContext, activation_bytes};
use crate::error::Result;
use crate::inspect;
use crate::masks::{Grid, Mask, MaskStrategy, strategy};
use crate::model::{BatchMask, SimMim, WeightedSum};
use crate::recipe::{DataRecipe, Recipe};
use crate::run::Collection;
use crate::targets::Palette;
use crate::weights::{Builder, InitFrom, initial_values};
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Batch, Purpose};
use simmim_engine::{Collective, Device, Operations, ParameterTable};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Pre-trains on `device`, together with the other ranks of `collective`, from new weights or those of any encoder: its head
/// and mask token are taken over too if they are there and fit. Resumes from the run folder's newest
/// checkpoint if there is one. Once `stop` is set, it finishes the current step, saves a checkpoint and returns.
///
/// # Errors
/// If the input or the weights cannot be used, the disk fills, a number stops being finite, or a rank is lost.
pub fn pretrain<D: Device>(
    device: &D,
    collective: &mut dyn Collective,
    options: &Options,
    init_from: &InitFrom,
    observe: &mut dyn FnMut(Event),
    stop: &AtomicBool,
) -> Result<Outcome> {
    let recipe = &options.recipe;
    let source = &options.data.source;
    let palette = || Palette::for_recipe(recipe, source.as_ref(), options.seed);
    let data = Arc::clone(source);
    let task_info = TaskInfo { from: init_from.description(), ..TaskInfo::default() };
    let mut setup = setup::open(options, device, collective, data, task_info, palette, observe)?;

    let mut builder = Builder::default();
    let mut located = recipe.clone();
    located.target.tokenizer = setup.tokenizer.as_ref().map(|file| file.display().to_string());
    let model = Rc::new(SimMim::new(&located, &setup.resolved.run.colors(), device, &mut builder)?);
    let (table, inits) = builder.finish();
    let head = inspect::head(recipe, &model, &table);
    let (mut transferred, normalization) = (None, setup.resolved.run.normalization());
    let initialize = |table: &ParameterTable| {
        let mut values = initial_values(table, &inits, options.seed);
        transferred = start_from(init_from, &recipe.encoder, &[], model.encoder(), table, &normalization, &mut values)?;
        Ok(values)
    };
    let parameters = Parameters {
        groups: groups(&table, model.encoder(), &recipe.train),
        activation_bytes: activation_bytes(
            &model.encoder().block_activations()[recipe.train.frozen_blocks..],
            setup.precision,
            recipe.train.recompute_blocks,
        ),
        initialize,
        table,
    };
    let task = Pretraining::new(recipe, Rc::clone(&model), options.seed);
    let monitor = match &recipe.monitor {
        Some(monitor) if collective.is_first() => {
            let monitor = Monitor::new(monitor, &setup, Rc::clone(&model), device, options.workers)?;
            if let Some(overlap) = monitor.overlap() {
                let collections = [Collection::MonitorVal, Collection::MonitorTrain];
                observe(Event::Overlapping { collections, overlap: &overlap });
            }
            Some(monitor)
        }
        Some(_) | None => None,
    };
    if let Some(monitor) = &monitor {
        monitor.passed_over().into_iter().for_each(|(_, passed_over)| observe(Event::PassedOver { passed_over }));
    }
    HeldOut::check_memory(options)?;
    let resolved = setup.resolved.clone();
    let world = collective.world();
    let mut trainer = Trainer::begin(options, &mut setup, device, collective, parameters, task, observe)?;
    say_start(&trainer, transferred.as_ref(), observe);
    observe(Event::Head { head: &head });
    if let Some(monitor) = monitor {
        for (collection, passed_over) in monitor.passed_over() {
            trainer.records_mut().log_passed_over(collection, passed_over)?;
        }
        trainer.add_evaluation(monitor);
    }
    if trainer.is_first_rank() {
        let held_out = HeldOut::new(options, &resolved, &model, world)?;
        if options.val.is_some() {
            let steps = trainer.records_mut().state().steps;
            trainer.records_mut().count_unreadable(Collection::HeldOut, held_out.skipped(), steps, observe)?;
        }
        let (every, total, is_held_out) = (validate_every(&setup), setup.total, options.val.is_some());
        trainer.add_evaluation(HeldOutEvaluation {
            held_out,
            model,
            resolved: resolved.clone(),
            every,
            total,
            is_held_out,
        });
    }
    let augmentation = Augmentation::RandomResizedCrop(recipe.data.random_resized_crop());
    trainer.run(recipe.data.transform(augmentation, resolved.run.normalization()), observe, stop)
}

/// The task of masked pre-training: predict the hidden patches.
pub struct Pretraining {
    model: Rc<SimMim>,
    mask: Box<dyn MaskStrategy>,
    grid: Grid,
    data: DataRecipe,
    seed: u64,
    recompute_blocks: bool,
    frozen_blocks: usize,
}

impl Pretraining {
    /// The task of a recipe and its model; `seed` draws the masks.
    pub fn new(recipe: &Recipe, model: Rc<SimMim>, seed: u64) -> Self {
        Self {
            model,
            mask: strategy(&recipe.mask),
            grid: mask_grid(recipe),
            data: recipe.data.clone(),
            seed,
            recompute_blocks: recipe.train.recompute_blocks,
            frozen_blocks: recipe.train.frozen_blocks,
        }
    }

    /// The model.
    pub fn model(&self) -> &SimMim {
        &self.model
    }

    /// Draws the masks of a batch.
    fn masks(&self, batch: &Batch) -> Vec<Mask> {
        let draw = |sample: &usize| {
            self.mask.sample(&mut rng(self.seed, Purpose::Mask, batch.epoch, *sample as u64), self.grid)
        };
        batch.samples.iter().map(draw).collect()
    }
}

/// The grid of mask units of an image.
pub(super) fn mask_grid(recipe: &Recipe) -> Grid {
    let (height, width) = recipe.data.image_size.height_and_width();
    Grid { rows: height / recipe.mask.unit_px, columns: width / recipe.mask.unit_px }
}

impl Task for Pretraining {
    type Inputs = BatchMask;

    fn prepare(&self, batch: &mut Batch) -> BatchMask {
        self.model.batch_mask(&self.masks(batch))
    }

    fn loss<B: Operations>(
        &self,
        b: &B,
        batch: &Batch,
        inputs: &BatchMask,
        range: Range<usize>,
    ) -> WeightedSum<B::Tensor> {
        let mut context = ForwardContext::of_samples(self.seed, batch.epoch, &batch.samples[range.clone()])
            .recomputing_blocks(self.recompute_blocks)
            .freezing_blocks(self.frozen_blocks);
        let images = self.data.images(&batch.images).range(range.clone());
        self.model.loss(b, &images, &inputs.range(range), &mut context)
    }

    fn denominator(&self, weight: f64) -> f64 {
        self.model.denominator(weight)
    }
}
