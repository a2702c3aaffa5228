//! A training state of which each rank keeps its part: how ranks get what the first one starts from, and how it gets what it
//! writes.

use crate::error::Result;
use crate::run::checkpoint::{Checkpoint, State};
use simmim_engine::{Backend, Collective, ParameterId, Slot};

/// The slots whose parts the first rank asks for, by their number on the wire.
const DIVIDED: [Slot; 3] = [Slot::FirstMoment, Slot::SecondMoment, Slot::Average];

/// Gathers a parameter on the first rank, which says to the others what it is about to write: the order of tensors in a file
/// is that of its format, and one at a time is in memory.
pub(super) fn ask<B: Backend>(
    collective: &mut dyn Collective,
    backend: &B,
    slot: Slot,
    id: ParameterId,
) -> Result<Vec<f32>> {
    let number = DIVIDED.iter().position(|divided| *divided == slot).expect("only these are divided");
    let mut question = [number as u64, id.0 as u64].map(u64::to_le_bytes).concat();
    collective.broadcast_bytes(&mut question, 0)?;
    Ok(backend.gather_parameter(slot, id, collective)?)
}

/// Gives the first rank this one's parts of what it asks for, until it asks for nothing more.
pub(super) fn answer<B: Backend>(collective: &mut dyn Collective, backend: &B) -> Result<()> {
    loop {
        let mut question = Vec::new();
        collective.broadcast_bytes(&mut question, 0)?;
        let [number, id] = *question.as_chunks::<8>().0 else { return Ok(()) };
        let [number, id] = [number, id].map(|bytes| u64::from_le_bytes(bytes) as usize);
        backend.gather_parameter(DIVIDED[number], ParameterId(id), collective)?;
    }
}

/// What the first rank starts from.
pub(super) enum Start {
    Values(Vec<f32>),
    Checkpoint(Box<Checkpoint>),
}

/// Gives all ranks what the first one starts from, of which each keeps its part, and the state.
pub(super) fn distribute<B: Backend>(
    collective: &mut dyn Collective,
    backend: &B,
    start: Option<Start>,
    state: &mut State,
    has_average: bool,
) -> Result<()> {
    let numbers = |slots: &[Slot]| -> Vec<usize> {
        slots.iter().filter_map(|slot| DIVIDED.iter().position(|divided| divided == slot)).collect()
    };
    let slots = match &start {
        Some(Start::Checkpoint(checkpoint)) => numbers(&checkpoint.slots()),
        Some(Start::Values(_)) | None => Vec::new(),
    };
    let mut text = serde_json::to_vec(&(&*state, slots)).expect("numbers serialize");
    collective.broadcast_bytes(&mut text, 0)?;
    let (of_first, slots): (State, Vec<usize>) = serde_json::from_slice(&text).expect("the first rank sends its state");
    if !collective.is_first() {
        *state = of_first; // numbers of a checkpoint stay as they are where they need not be sent
    }
    let mut give = |slot: Slot, id: ParameterId, values: &[f32]| -> Result<()> {
        let mut values = values.to_vec();
        collective.broadcast(&mut values, 0)?;
        backend.write_parameter(slot, id, &values);
        Ok(())
    };
    match start {
        Some(Start::Checkpoint(checkpoint)) => checkpoint.restore(backend.table(), &mut give)?,
        Some(Start::Values(values)) => {
            let mut parameters = backend.table().iter().enumerate();
            parameters.try_for_each(|(id, p)| give(Slot::Values, ParameterId(id), &values[p.range.clone()]))?;
        }
        None => {
            for slot in [Slot::Values].into_iter().chain(slots.iter().map(|number| DIVIDED[*number])) {
                let mut parameters = backend.table().iter().enumerate();
                parameters.try_for_each(|(id, p)| give(slot, ParameterId(id), &vec![0.0; p.range.len()]))?;
            }
        }
    }
    if has_average && slots.is_empty() {
        // the average begins at the initial weights, which the first step changes
        for id in (0..backend.table().iter().len()).map(ParameterId) {
            backend.write_parameter(Slot::Average, id, &backend.read_parameter(Slot::Values, id));
        }
    }
    Ok(())
}
