//! What a run starts from: other weights, if it is given any, and which of its parameters do not train.

use super::Event;
use super::task::Task;
use super::trainer::Trainer;
use crate::encoders::{Encoder, EncoderConfig};
use crate::error::Result;
use crate::weights::{InitFrom, LoadedWeights, Pretrained, Transfer, transfer};
use simmim_data::Normalization;
use simmim_engine::{Backend, ParameterTable};

/// Loads what fits of the weights to start from into `values`, the initial values of `table`; `None` if there are none. The
/// run normalizes images by `normalization`.
///
/// # Errors
/// If they cannot be read, or are of another architecture.
pub(super) fn start_from(
    init_from: &InitFrom,
    config: &EncoderConfig,
    classes: &[String],
    encoder: &Encoder,
    table: &ParameterTable,
    normalization: &Normalization,
    values: &mut [f32],
) -> Result<Option<Transfer>> {
    let InitFrom::Weights { path, channels } = init_from else { return Ok(None) };
    let weights = LoadedWeights::at(path)?;
    // what an import assumes it says itself
    let assumed = weights.import.iter().flat_map(|import| &import.assumed);
    let is_assumed = assumed.into_iter().any(|assumed| assumed.contains("normalized"));
    let known = weights.resolved.as_ref().filter(|_| !is_assumed);
    let other = known.and_then(|(_, run)| other_normalization(&run.normalization(), normalization));
    let mut pretrained = Pretrained::new(weights, config, classes)?;
    pretrained.channels = *channels;
    pretrained.notes.extend(other);
    transfer(&pretrained, encoder, table, values).map(Some)
}

/// Says so if images reach the encoder otherwise than they did when it was trained. Numbers that are measured differ a little
/// from one collection to the next.
fn other_normalization(then: &Normalization, now: &Normalization) -> Option<String> {
    let differ = |then: &[f32], now: &[f32]| then.iter().zip(now).any(|(then, now)| (then - now).abs() > 0.01);
    let is_other = then.mean.len() == now.mean.len() && (differ(&then.mean, &now.mean) || differ(&then.std, &now.std));
    is_other.then(|| {
        format!(
            "its images were normalized by the mean {:.3?} and the standard deviation {:.3?}, and are by {:.3?} and {:.3?} now \
             (`data.normalization`)",
            then.mean, then.std, now.mean, now.std
        )
    })
}

/// Reports what was taken over, and what is frozen.
pub(super) fn say_start<B: Backend, T: Task>(
    trainer: &Trainer<'_, B, T>,
    transferred: Option<&Transfer>,
    observe: &mut dyn FnMut(Event),
) {
    if let Some(transfer) = transferred {
        observe(Event::Transferred { transfer });
    }
    let (frozen, parameters) = trainer.frozen_parameters();
    if frozen > 0 {
        observe(Event::Frozen { frozen, parameters });
    }
}
