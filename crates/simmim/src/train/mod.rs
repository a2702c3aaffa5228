//! Training: the schedule, which parameters decay, and the loop around the model.

pub mod groups;
mod pretrain;
pub mod schedule;
mod validate;

pub use pretrain::{Input, Options, Outcome, pretrain};
pub use schedule::Schedule;

use crate::error::Error;
use std::path::Path;

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
