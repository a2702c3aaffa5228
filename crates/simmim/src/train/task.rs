//! What differs between kinds of training: the loss of a micro-batch, and the evaluations.

use super::Event;
use super::records::Records;
use crate::error::Result;
use crate::model::WeightedSum;
use simmim_data::Batch;
use simmim_engine::{Backend, Operations};
use std::ops::Range;

/// A training task: pre-training, fine-tuning or a tokenizer.
///
/// A task sees only this rank's share of a batch. Everything random in it must be a function of seed, epoch and sample,
/// so that neither the number of micro-batches nor the number of ranks changes the result.
pub trait Task {
    /// What is drawn once per step for all micro-batches, such as masks or soft labels.
    type Inputs;

    /// Draws the inputs of a step. It may change the images of the batch, as Mixup does.
    fn prepare(&self, batch: &mut Batch) -> Self::Inputs;

    /// The loss of the images `range` of the batch, as a weighted sum and its weight.
    fn loss<B: Operations>(
        &self,
        b: &B,
        batch: &Batch,
        inputs: &Self::Inputs,
        range: Range<usize>,
    ) -> WeightedSum<B::Tensor>;

    /// The number that the summed loss is divided by, from the weight of all micro-batches of all ranks.
    fn denominator(&self, weight: f64) -> f64 {
        weight
    }
}

/// How an evaluation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Whole,
    /// Early, without a result, because the run stops.
    Early,
}

/// An evaluation that runs at some steps of a training, such as the held-out loss. It must not change the weights or
/// anything else that later steps depend on.
pub trait Evaluation<B: Backend> {
    /// Whether it is due after `steps` of `total` steps; first asked with 0.
    fn is_due(&self, steps: u64, total: u64) -> bool;

    /// Evaluates, and records the result. One that may take minutes ends soon after `is_stopping` is true, and records nothing.
    ///
    /// # Errors
    /// If images or files cannot be read or written.
    fn evaluate(
        &mut self,
        b: &B,
        records: &mut Records,
        observe: &mut dyn FnMut(Event),
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Ended>;

    /// Writes the report of a run that stops between two evaluations, with the log up to there.
    ///
    /// # Errors
    /// If it cannot be written.
    fn report(&mut self, _records: &mut Records) -> Result<()> {
        Ok(())
    }
}

/// Whether an evaluation that runs every `every` steps, at the start and at the end is due.
pub(super) fn is_due_every(every: u64, steps: u64, total: u64) -> bool {
    steps.is_multiple_of(every) || steps == total
}
