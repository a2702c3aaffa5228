//! Training of a tokenizer, from images to a weights file that `target.tokenizer` takes (arXiv:2102.12092).

use super::reconstructed::{Looked, Reconstructed};
use super::trainer::{Finished, Group, Records, Task, Trainer, start};
use super::{Annealing, Event, Options};
use crate::build::{Builder, initial_values};
use crate::error::Result;
use crate::files::write_atomically;
use crate::recipe::TokenizerRecipe;
use crate::report::tokenizer_page;
use crate::run::{Resolved, read_log};
use crate::tokenizer::{DiscreteVae, Relaxation, TOKENIZER_FILE};
use crate::weights::{self, RECIPE_KEY};
use serde_json::json;
use simmim_data::rng::{gumbel, rng};
use simmim_data::{Augmentation, Batch, Purpose, RandomResizedCrop, Transform};
use simmim_engine::{Backend, Cpu, Images, Operations, Slot};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct TokenizerOutcome {
    /// Updates done in all.
    pub updates: u64,
    /// Updates of the whole run.
    pub total_updates: u64,
    /// Last logged loss.
    pub loss: Option<f64>,
    /// The last reconstructions of this sitting, measured.
    pub reconstructed: Option<Reconstructed>,
    /// Throughput of this sitting, without measuring and saving.
    pub images_per_second: f64,
    /// Unreadable images.
    pub skipped: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The tokenizer as it was last looked at.
    pub tokenizer: PathBuf,
    /// The report page.
    pub report: PathBuf,
}

impl TokenizerOutcome {
    /// Whether the run got to its end, rather than being interrupted.
    pub fn is_finished(&self) -> bool {
        self.updates == self.total_updates
    }
}

/// Trains a tokenizer, or goes on where the run folder's last checkpoint is; stops soon after `stop` is set,
/// with a checkpoint.
///
/// # Errors
/// If the input cannot be used, the disk fills, or a number stops being finite.
pub fn train_tokenizer(
    options: &Options<TokenizerRecipe>,
    observe: &mut dyn FnMut(Event),
    stop: &AtomicBool,
) -> Result<TokenizerOutcome> {
    let recipe = &options.recipe;
    let start = start(options, Arc::clone(&options.data.source))?;
    let mut builder = Builder::default();
    let vae = DiscreteVae::new(recipe.config(), &mut builder);
    let (table, inits) = builder.finish();
    let groups = table.iter().map(|p| Group { lr_scale: 1.0, decays: p.shape.len() > 1 }).collect();
    let first_values = |table: &_| Ok(initial_values(table, &inits, options.seed));
    let mut trainer = Trainer::open(options, &start, table, groups, first_values, observe)?;
    let (height, width) = recipe.data.image_size.height_and_width();
    let transform =
        |augmentation| Transform { height, width, augmentation, normalisation: start.resolved.run.normalisation() };
    // without held-out images those of training, uncropped
    let looked_at = Arc::clone(&options.val.as_ref().unwrap_or(&options.data).source);
    let looked = Looked::new(looked_at, transform(Augmentation::Centre), recipe.train.batch_size, options.workers)?;
    if options.val.is_some() {
        let is_logged = trainer.records.state.updates > 0;
        trainer.records.note_unreadable(looked.skipped(), is_logged, observe)?;
    }
    let mut task = Tokenizing {
        options,
        resolved: &start.resolved,
        vae,
        annealing: Annealing::new(recipe, start.total),
        looked,
        reconstructed: None,
        total: start.total,
    };
    let crop =
        RandomResizedCrop { scale: recipe.data.crop_scale, ratio: recipe.data.crop_ratio, hflip: recipe.data.flip };
    let transform = transform(Augmentation::RandomResizedCrop(crop));
    let Finished { state, total, images_per_second, checkpoint, report } =
        trainer.run(&mut task, transform, observe, stop)?;
    Ok(TokenizerOutcome {
        updates: state.updates,
        total_updates: total,
        loss: state.last_loss,
        reconstructed: task.reconstructed,
        images_per_second,
        skipped: state.skipped,
        checkpoint,
        tokenizer: options.out.join(TOKENIZER_FILE),
        report,
    })
}

/// Images through relaxed tokens, and pictures of what becomes of them.
struct Tokenizing<'a> {
    options: &'a Options<TokenizerRecipe>,
    resolved: &'a Resolved<TokenizerRecipe>,
    vae: DiscreteVae,
    annealing: Annealing,
    looked: Looked,
    reconstructed: Option<Reconstructed>,
    total: u64,
}

impl Tokenizing<'_> {
    /// Gumbel noise of some images, `[B, h, w, K]`: that of an image depends on seed, epoch and image alone.
    fn noise(&self, epoch: u64, samples: &[usize], tokens: usize) -> Vec<f32> {
        let per_image = tokens * self.vae.config().vocabulary;
        let mut noise = vec![0.0; samples.len() * per_image];
        let seed = self.options.seed;
        let share = samples.len().div_ceil(self.options.threads.max(1));
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

impl Task for Tokenizing<'_> {
    fn gradients(&self, b: &Cpu, batch: &mut Batch) -> f64 {
        let recipe = &self.options.recipe;
        let (height, width) = recipe.data.image_size.height_and_width();
        let (count, channels) = (batch.samples.len(), recipe.data.channels);
        let images = Images { pixels: &batch.images, count, channels, height, width };
        let tokens = height * width / self.vae.config().stride_px().pow(2);
        // batches are numbered from 0, as many as updates are done
        let temperature = self.annealing.temperature(batch.number) as f32;
        let divergence_weight = self.annealing.divergence_weight(batch.number) as f32;
        let part = count / recipe.train.accumulation_steps;
        let mut loss = 0.0;
        for start in (0..count).step_by(part) {
            let range = start..start + part;
            let noise = self.noise(batch.epoch, &batch.samples[range.clone()], tokens);
            let relaxation =
                Relaxation { noise: &noise, temperature, divergence_weight, denominator: batch.images.len() as f64 };
            b.start(true);
            let value = self.vae.loss(b, &images.part(range), &relaxation);
            loss += b.read(&value)[0] as f64;
            b.backward(&value);
        }
        loss
    }

    /// Reconstructions, measured and shown, the report, and the tokenizer as it is.
    fn validate(&mut self, b: &Cpu, records: &mut Records, observe: &mut dyn FnMut(Event)) -> Result<()> {
        if self.looked.is_empty() {
            return Ok(());
        }
        let update = records.state.updates;
        let (measured, sheet) = self.looked.reconstruct(b, &self.vae);
        observe(Event::Reconstructed { updates: update, measured: &measured });
        let entry = json!({
            "update": update,
            "l1": measured.l1,
            "tokens_in_use": measured.tokens_in_use,
            "perplexity": measured.perplexity,
            "temperature": self.annealing.temperature(update),
        });
        records.note(&entry, &[("reconstruction/l1", measured.l1), ("tokens/perplexity", measured.perplexity)])?;
        let png = sheet.png_bytes()?;
        let folder = records.folder.path();
        write_atomically(&folder.join("pictures").join(format!("update-{update:07}.png")), &png)?;
        let rendered = sheet.render();
        records.events.image("reconstructions", update, &png, rendered.height() as usize, rendered.width() as usize)?;
        records.events.flush()?;
        let is_held_out = self.options.val.is_some();
        let page = tokenizer_page(&read_log(folder)?, self.resolved, update, self.total, &png, is_held_out);
        page.write(&folder.join("report.html"))?;
        let (path, values) = (folder.join(TOKENIZER_FILE), b.read_slot(Slot::Values));
        let metadata = HashMap::from([(RECIPE_KEY.to_owned(), self.resolved.to_toml())]);
        weights::save_atomically(&path, b.table(), &values, metadata)?;
        self.reconstructed = Some(measured);
        Ok(())
    }
}
