//! Training: the schedule, which parameters decay, and the loop around the model.
//!
//! `trainer.rs` is the loop that all kinds of training share; `pretrain.rs`, `finetune.rs` and
//! `tokenizer.rs` say what is learnt.

mod annealing;
mod average;
mod finetune;
pub mod groups;
mod pretrain;
mod reconstructed;
pub mod schedule;
mod sitting;
pub mod step;
mod tokenizer;
mod trainer;
mod validate;

pub use finetune::{BEST_FILE, Beginning, Finetuned, finetune};
pub use pretrain::{Outcome, pretrain};
pub use reconstructed::Reconstructed;
pub use schedule::Schedule;
pub use tokenizer::{TokenizerOutcome, train_tokenizer};

use annealing::Annealing;

use crate::error::Error;
use crate::inspect::HeadSummary;
use crate::precision::PrecisionChoice;
use crate::recipe::Recipe;
use crate::transfer::Transfer;
use simmim_data::Source;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images and where they come from, in words.
#[derive(Clone)]
pub struct Input {
    /// The images.
    pub source: Arc<dyn Source>,
    /// What the user called them.
    pub description: String,
}

/// Everything a run needs to know.
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
    /// Seed of everything random.
    pub seed: u64,
    /// Arithmetic.
    pub precision: PrecisionChoice,
    /// Worker threads of the engine.
    pub threads: usize,
    /// Worker threads of the loader.
    pub workers: usize,
}

/// What a run tells whoever watches it, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run is about to start or go on.
    Started {
        /// Updates done before.
        updates: u64,
        /// Updates in all.
        total: u64,
        /// Number of parameter values.
        parameters: usize,
        /// Training images.
        images: usize,
        /// Arithmetic in use.
        precision: &'a str,
        /// Why.
        precision_reason: &'a str,
        /// Worker threads.
        threads: usize,
    },
    /// What predicts, and what it costs.
    Head {
        /// Its size and its cost.
        head: &'a HeadSummary,
    },
    /// An update is done.
    Updated {
        /// Updates done.
        updates: u64,
        /// Loss of this update.
        loss: f64,
        /// Its learning rate.
        lr: f64,
        /// Throughput of late.
        images_per_second: f64,
    },
    /// The held-out images were looked at.
    Validated {
        /// Updates done.
        updates: u64,
        /// Loss on them.
        loss: f64,
        /// Loss of predicting the mean of what is visible, on the same masks; none for classes.
        baseline: Option<f64>,
    },
    /// The classes of the held-out images were guessed.
    Evaluated {
        /// Updates done.
        updates: u64,
        /// Loss on them.
        loss: f64,
        /// Guessed rightly, in percent.
        top1: f64,
        /// Among the five likeliest, in percent.
        top5: f64,
    },
    /// A tokenizer was looked at.
    Reconstructed {
        /// Updates done.
        updates: u64,
        /// What came of images.
        measured: &'a Reconstructed,
    },
    /// Weights of another model were taken over.
    Transferred {
        /// What became of them.
        transfer: &'a Transfer,
    },
    /// A checkpoint is complete.
    Saved {
        /// Its folder.
        path: &'a Path,
    },
    /// An image could not be read and another took its place.
    Skipped {
        /// Its name.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A checkpoint was damaged; an older one is used.
    Damaged {
        /// What was wrong.
        error: &'a Error,
    },
}
