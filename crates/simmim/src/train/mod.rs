//! Training: one loop for all kinds of training.
//!
//! A [`Task`] computes the loss of a micro-batch. A [`Learner`] turns the losses of a batch into one optimizer step on
//! any number of ranks. The trainer feeds it batches, calls [`Evaluation`]s and writes the run folder. `pretrain.rs`,
//! `finetune.rs` and `tokenizer.rs` each hold one task and the set-up of its run.

mod annealing;
mod divided;
mod finetune;
pub mod groups;
mod held_out;
mod learner;
mod monitor;
mod pretrain;
mod reconstruction_eval;
mod records;
pub mod schedule;
mod setup;
mod start;
mod task;
mod throughput;
mod tokenizer;
mod trainer;

pub use finetune::{BEST_FILE, finetune};
pub use groups::Group;
pub use learner::{Learner, Phase, Queued, Stepped};
pub use monitor::FeatureQuality;
pub use pretrain::{Pretraining, pretrain};
pub use reconstruction_eval::TokenizerReport;
pub use records::Records;
pub(crate) use records::picture_path;
pub use schedule::Schedule;
pub use task::{Ended, Evaluation, Task};
pub use tokenizer::train_tokenizer;

use crate::error::Error;
use crate::inspect::HeadSummary;
use crate::precision::PrecisionChoice;
use crate::recipe::Recipe;
use crate::run::Collection;
use crate::run::checkpoint::Metrics;
use crate::weights::Transfer;
use simmim_data::{Overlap, PassedOver, Source};
use simmim_engine::Slot;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images and a description of where they come from.
#[derive(Clone)]
pub struct Input {
    /// The images.
    pub source: Arc<dyn Source>,
    /// The path or name that the user gave, for messages and the report.
    pub description: String,
}

/// All options of a run.
#[derive(Clone)]
pub struct Options<R = Recipe> {
    /// The checked recipe.
    pub recipe: R,
    /// The recipe as the user gave it, for the run folder.
    pub given: String,
    /// Training images.
    pub data: Input,
    /// Held-out images.
    pub val: Option<Input>,
    /// The run folder.
    pub out: PathBuf,
    /// Seed of initialization, order, augmentation and masks.
    pub seed: u64,
    /// Precision of matrix products.
    pub precision: PrecisionChoice,
    /// Worker threads of the loader.
    pub workers: usize,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps done, including those before the run was resumed.
    pub steps: u64,
    /// Length of the whole run in steps.
    pub total_steps: u64,
    /// Last logged loss.
    pub loss: Option<f64>,
    /// The last value of each metric, by its name in the log.
    pub metrics: Metrics,
    /// Training throughput of this process, without evaluation and saving.
    pub images_per_second: f64,
    /// Number of unreadable training images.
    pub skipped: u64,
    /// How often another image took the place of one of them.
    pub replaced: u64,
    /// Number of unreadable held-out images.
    pub skipped_val: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The report page.
    pub report: PathBuf,
}

impl Outcome {
    /// Whether the run reached its last step, rather than being interrupted.
    pub fn is_finished(&self) -> bool {
        self.steps == self.total_steps
    }

    /// The last value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }
}

/// An event of a run, passed to the observer when it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run is about to start or to resume.
    Started {
        /// Steps already done.
        steps: u64,
        /// Length of the run in steps.
        total: u64,
        /// Number of parameters.
        parameters: usize,
        /// Number of training images.
        images: usize,
        /// Device, for example `cpu`.
        device: &'a str,
        /// Precision in use, `f32` or `bf16`.
        precision: &'a str,
        /// Why this precision was chosen.
        precision_reason: &'a str,
        /// Number of compute threads.
        threads: usize,
    },
    /// The prediction head was built.
    Head {
        /// Its parameters and operations.
        head: &'a HeadSummary,
    },
    /// A step is done.
    Stepped {
        /// Steps done.
        steps: u64,
        /// Loss of this step.
        loss: f64,
        /// Its learning rate.
        lr: f64,
        /// Throughput over the last steps.
        images_per_second: f64,
    },
    /// The loss of held-out images was computed.
    Validated {
        /// Steps done.
        steps: u64,
        /// Loss on the held-out images.
        loss: f64,
        /// Loss of predicting the mean of the visible pixels with the same masks; none where the target is classes.
        baseline: Option<f64>,
    },
    /// Held-out images were classified.
    Classified {
        /// Steps done.
        steps: u64,
        /// Loss on the held-out images.
        loss: f64,
        /// Top-1 accuracy in percent.
        top1: f64,
        /// Top-5 accuracy in percent.
        top5: f64,
        /// Mean average precision in percent, where an image may have several labels.
        mean_average_precision: Option<f64>,
    },
    /// The features were evaluated by k-NN and a linear probe.
    Monitored {
        /// Steps done.
        steps: u64,
        /// The result.
        quality: &'a FeatureQuality,
        /// Share of the run's time that these evaluations have taken so far, 0 to 1.
        time_share: f64,
    },
    /// The reconstructions of a tokenizer were evaluated.
    Reconstructed {
        /// Steps done.
        steps: u64,
        /// The result.
        report: &'a TokenizerReport,
    },
    /// Weights of another model were loaded.
    Transferred {
        /// Which parameters were loaded, adapted or initialized.
        transfer: &'a Transfer,
    },
    /// Some parameters do not train.
    Frozen {
        /// Number of values of those.
        frozen: usize,
        /// Number of values of all.
        parameters: usize,
    },
    /// A run on several ranks has ended, or stopped.
    Kept {
        /// Bytes of each part of the training state that this rank holds.
        slots: &'a [(Slot, usize)],
    },
    /// A checkpoint was saved.
    Saved {
        /// Its folder.
        path: &'a Path,
    },
    /// An image cannot be read. It is named once in a run, if it is one of the first of its collection.
    Skipped {
        /// Its name.
        name: &'a str,
        /// The error of the decoder.
        reason: &'a str,
    },
    /// The run has ended, or stopped, and a collection has unreadable images.
    Unreadable {
        /// The collection.
        collection: Collection,
        /// Number of its unreadable images.
        images: u64,
        /// How often another image took the place of one; 0 where they are left out.
        replaced: u64,
    },
    /// Some of what lies among the images that the recipe names is not read.
    PassedOver {
        /// What and why.
        passed_over: &'a PassedOver,
    },
    /// Two collections share images that should not.
    Overlapping {
        /// The one that something is measured with, and the one that is learned from.
        collections: [Collection; 2],
        /// The images.
        overlap: &'a Overlap,
    },
    /// A resumed run began from other weights than it is given now, or from none, and goes on with its own.
    OtherStart {
        /// What it began from; none: at random.
        then: Option<&'a str>,
        /// What it is given.
        now: Option<&'a str>,
    },
    /// A resumed run reads other images than it began with.
    OtherImages {
        /// The collection.
        collection: Collection,
        /// Where its images came from when the run began.
        then: &'a str,
        /// Where they come from now.
        now: &'a str,
    },
    /// The tokenizer that the recipe names is not the one that the run began with, and the run goes on with its own.
    KeptTokenizer {
        /// Where the other one is.
        original: &'a str,
    },
    /// A checkpoint was damaged; an older one is used.
    Damaged {
        /// What is wrong with it.
        error: &'a Error,
    },
}
