//! What a run starts from: other weights, if it is given any, and which of its parameters do not train.

use super::Event;
use super::task::Task;
use super::trainer::Trainer;
use crate::encoders::{Encoder, EncoderConfig};
use crate::error::Result;
use crate::weights::{InitFrom, LoadedWeights, Pretrained, Transfer, transfer};
use simmim_engine::{Backend, ParameterTable};

/// Loads what fits of the weights to start from into `values`, the initial values of `table`; `None` if there are none.
///
/// # Errors
/// If they cannot be read, or are of another architecture.
pub(super) fn start_from(
    init_from: &InitFrom,
    config: &EncoderConfig,
    classes: &[String],
    encoder: &Encoder,
    table: &ParameterTable,
    values: &mut [f32],
) -> Result<Option<Transfer>> {
    let InitFrom::Weights { path, channels } = init_from else { return Ok(None) };
    let mut pretrained = Pretrained::new(LoadedWeights::at(path)?, config, classes)?;
    pretrained.channels = *channels;
    transfer(&pretrained, encoder, table, values).map(Some)
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
