//! Training of a tokenizer: the discrete VAE (arXiv:2102.12092) whose weights `target.tokenizer` loads.

use super::annealing::Annealing;
use super::groups::Group;
use super::reconstruction_eval::{ReconstructionEval, TokenizerEvaluation};
use super::setup::{self, TaskInfo};
use super::task::Task;
use super::trainer::{Parameters, Trainer, validate_every};
use super::{Event, Options, Outcome};
use crate::error::Result;
use crate::model::WeightedSum;
use crate::recipe::TokenizerRecipe;
use crate::run::Collection;
use crate::tokenizer::{DiscreteVae, Relaxation};
use crate::weights::{Builder, initial_values};
use simmim_data::rng::{gumbel, rng};
use simmim_data::{Augmentation, Batch, Purpose};
use simmim_engine::{Collective, Device, Operations};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Trains a tokenizer on `device`, together with the other ranks of `collective`. Resumes from the run folder's newest
/// checkpoint if there is one. Once `stop` is set, it finishes the current step, saves a checkpoint and returns.
///
/// # Errors
/// If the input cannot be used, the disk fills, a number stops being finite, or a rank is lost.
pub fn train_tokenizer<D: Device>(
    device: &D,
    collective: &mut dyn Collective,
    options: &Options<TokenizerRecipe>,
    observe: &mut dyn FnMut(Event),
    stop: &AtomicBool,
) -> Result<Outcome> {
    let recipe = &options.recipe;
    let data = Arc::clone(&options.data.source);
    let mut setup = setup::open(options, device, collective, data, TaskInfo::default(), || Ok(None), observe)?;
    let mut builder = Builder::default();
    let vae = Rc::new(DiscreteVae::new(recipe.config(), &mut builder));
    let (table, inits) = builder.finish();
    let parameters = Parameters {
        groups: table.iter().map(|p| Group { lr_scale: 1.0, decays: p.shape.len() > 1, is_frozen: false }).collect(),
        activation_bytes: vae.config().activation_bytes(recipe.data.image_size.height_and_width()),
        initialize: |table: &_| Ok(initial_values(table, &inits, options.seed)),
        table,
    };
    let annealing = Annealing::new(recipe, setup.total);
    let task = Tokenizing {
        recipe: recipe.clone(),
        seed: options.seed,
        threads: device.threads(),
        vae: Rc::clone(&vae),
        annealing,
    };
    let shown = options.val.as_ref().unwrap_or(&options.data).source.len();
    ReconstructionEval::check_memory(shown, &recipe.data)?;
    let resolved = setup.resolved.clone();
    let normalization = resolved.run.normalization();
    let world = collective.world();
    let mut trainer = Trainer::begin(options, &mut setup, device, collective, parameters, task, observe)?;
    if trainer.is_first_rank() {
        // without held-out images, training images with a center crop
        let source = Arc::clone(&options.val.as_ref().unwrap_or(&options.data).source);
        let transform = recipe.data.transform(Augmentation::Center, normalization.clone());
        let images = ReconstructionEval::new(source, transform, recipe.train.micro_batch(world), options.workers)?;
        if options.val.is_some() {
            let steps = trainer.records_mut().state().steps;
            trainer.records_mut().count_unreadable(Collection::HeldOut, images.skipped(), steps, observe)?;
        }
        trainer.add_evaluation(TokenizerEvaluation {
            images,
            vae,
            resolved,
            annealing,
            every: validate_every(&setup),
            total: setup.total,
            is_held_out: options.val.is_some(),
        });
    }
    let augmentation = Augmentation::RandomResizedCrop(recipe.data.random_resized_crop());
    trainer.run(recipe.data.transform(augmentation, normalization), observe, stop)
}

/// The task of a tokenizer: reconstruct images from relaxed tokens.
struct Tokenizing {
    recipe: TokenizerRecipe,
    seed: u64,
    threads: usize,
    vae: Rc<DiscreteVae>,
    annealing: Annealing,
}

impl Tokenizing {
    /// Gumbel noise `[B, h, w, K]`; that of an image depends only on seed, epoch and image.
    fn noise(&self, epoch: u64, samples: &[usize], tokens: usize) -> Vec<f32> {
        let per_image = tokens * self.vae.config().vocabulary;
        let mut noise = vec![0.0; samples.len() * per_image];
        let seed = self.seed;
        let share = samples.len().div_ceil(self.threads.max(1));
        std::thread::scope(|scope| {
            for (samples, noise) in samples.chunks(share).zip(noise.chunks_mut(share * per_image)) {
                scope.spawn(move || {
                    for (sample, noise) in samples.iter().zip(noise.chunks_exact_mut(per_image)) {
                        let mut rng = rng(seed, Purpose::Relax, epoch, *sample as u64);
                        noise.iter_mut().for_each(|n| *n = gumbel(&mut rng) as f32);
                    }
                });
            }
        });
        noise
    }
}

impl Task for Tokenizing {
    type Inputs = ();

    fn prepare(&self, _: &mut Batch) {}

    fn loss<B: Operations>(&self, b: &B, batch: &Batch, (): &(), range: Range<usize>) -> WeightedSum<B::Tensor> {
        let (height, width) = self.recipe.data.image_size.height_and_width();
        let tokens = height * width / self.vae.config().stride_px().pow(2);
        // drawn per micro-batch: the noise of the whole batch would take more memory than the activations of a
        // micro-batch
        let noise = self.noise(batch.epoch, &batch.samples[range.clone()], tokens);
        let relaxation = Relaxation {
            noise: &noise,
            // batches are numbered from 0: the number of a batch is that of the steps done before it
            temperature: self.annealing.temperature(batch.number) as f32,
            divergence_weight: self.annealing.divergence_weight(batch.number) as f32,
        };
        self.vae.loss(b, &self.recipe.data.images(&batch.images).range(range), &relaxation)
    }
}
