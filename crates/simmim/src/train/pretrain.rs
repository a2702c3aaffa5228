//! Masked pre-training, from images to a finished run folder.

use super::step::Masked;
use super::trainer::{Finished, Group, Records, Start, Task, Trainer, start};
use super::validate::{Measured, Validation};
use super::{Event, Options, groups};
use crate::build::{Builder, initial_values};
use crate::error::Result;
use crate::inspect;
use crate::model::SimMim;
use crate::recipe::Recipe;
use crate::report::run_page;
use crate::run::{read_log, read_resolved};
use crate::target::Palette;
use serde_json::json;
use simmim_data::{Augmentation, Batch, RandomResizedCrop, Transform};
use simmim_engine::Cpu;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
    let mut start = start(options, Arc::clone(&options.data.source))?;
    // a run that goes on keeps the colours it began with
    start.resolved.run.palette = match read_resolved::<Recipe>(&options.out) {
        Ok(known) => known.run.palette,
        Err(_) => Palette::wanted(recipe, start.data.as_ref(), options.seed)?.map_or(Vec::new(), |p| p.to_hex()),
    };
    let mut builder = Builder::default();
    let mut model = SimMim::new(recipe, &start.resolved.run.colours(), &mut builder)?;
    model.use_threads(options.threads);
    let (table, inits) = builder.finish();
    let head = inspect::head(recipe, &model, &table);
    let decays = groups::decays(&table, model.encoder(), recipe.train.decay_groups);
    let scales = groups::lr_scales(&table, model.encoder(), recipe.train.layer_decay);
    let groups = decays.into_iter().zip(scales).map(|(decays, lr_scale)| Group { lr_scale, decays }).collect();
    let first_values = |table: &_| Ok(initial_values(table, &inits, options.seed));
    let mut trainer = Trainer::open(options, &start, table, groups, first_values, observe)?;
    observe(Event::Head { head: &head });
    let mut task = Pretraining::new(options, &start, model)?;
    if options.val.is_some() {
        let is_logged = trainer.records.state.updates > 0;
        trainer.records.note_unreadable(task.validation.skipped(), is_logged, observe)?;
    }
    let crop =
        RandomResizedCrop { scale: recipe.data.crop_scale, ratio: recipe.data.crop_ratio, hflip: recipe.data.flip };
    let transform = transform(&start, Augmentation::RandomResizedCrop(crop));
    let Finished { state, total, images_per_second, checkpoint, report } =
        trainer.run(&mut task, transform, observe, stop)?;
    Ok(Outcome {
        updates: state.updates,
        total_updates: total,
        loss: state.last_loss,
        val_loss: state.val_loss,
        baseline_loss: state.baseline_loss,
        images_per_second,
        skipped: state.skipped,
        checkpoint,
        report,
    })
}

fn transform(start: &Start<Recipe>, augmentation: Augmentation) -> Transform {
    let (height, width) = start.resolved.recipe.data.image_size.height_and_width();
    Transform { height, width, augmentation, normalisation: start.resolved.run.normalisation() }
}

/// Masked images, and pictures of what is predicted for them.
struct Pretraining<'a> {
    options: &'a Options,
    start: &'a Start<Recipe>,
    masked: Masked,
    validation: Validation,
}

impl<'a> Pretraining<'a> {
    fn new(options: &'a Options, start: &'a Start<Recipe>, model: SimMim) -> Result<Self> {
        let recipe = &options.recipe;
        let masked = Masked::new(recipe, model, options.seed);
        // without held-out images the pictures are of training images, uncropped
        let looked_at = options.val.as_ref().unwrap_or(&options.data);
        let validation = Validation::new(
            Arc::clone(&looked_at.source),
            transform(start, Augmentation::Centre),
            masked.mask.as_ref(),
            masked.grid,
            options.seed,
            recipe.train.batch_size / recipe.train.accumulation_steps,
            options.workers,
        )?;
        Ok(Self { options, start, masked, validation })
    }
}

impl Task for Pretraining<'_> {
    fn gradients(&self, b: &Cpu, batch: &mut Batch) -> f64 {
        self.masked.gradients(b, batch, &mut |_| ())
    }

    /// Held-out loss, pictures and the report.
    fn validate(&mut self, b: &Cpu, records: &mut Records, observe: &mut dyn FnMut(Event)) -> Result<()> {
        if self.validation.is_empty() {
            return Ok(());
        }
        let update = records.state.updates;
        let resolved = &self.start.resolved;
        let is_held_out = self.options.val.is_some();
        if is_held_out {
            let Measured { loss, baseline } = self.validation.measure(b, self.masked.model());
            (records.state.val_loss, records.state.baseline_loss) = (Some(loss), baseline);
            observe(Event::Validated { updates: update, loss, baseline });
            let entry = json!({ "update": update, "val_loss": loss, "baseline_loss": baseline });
            records.note(&entry, &[("loss/held-out", loss)])?;
        }
        let sheet = self.validation.pictures(b, self.masked.model(), &resolved.run.normalisation());
        let png = sheet.png_bytes()?;
        let folder = records.folder.path();
        crate::files::write_atomically(&folder.join("pictures").join(format!("update-{update:07}.png")), &png)?;
        let rendered = sheet.render();
        records.events.image("predictions", update, &png, rendered.height() as usize, rendered.width() as usize)?;
        records.events.flush()?;
        let page = run_page(&read_log(folder)?, resolved, update, self.start.total, &png, is_held_out);
        page.write(&folder.join("report.html"))?;
        Ok(())
    }
}
