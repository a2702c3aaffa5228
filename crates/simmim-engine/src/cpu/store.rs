//! The flat buffers behind the parameter table.

use crate::backend::Slot;
use crate::parameters::{ParameterId, ParameterTable};
use std::rc::Rc;

/// Parameters, gradients and moments, each one flat buffer.
pub(super) struct Store {
    table: Rc<ParameterTable>,
    /// Counts the changes of `values`, from 1.
    version: u64,
    values: Vec<f32>,
    gradients: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// The buffers that one optimizer pass touches.
pub(super) struct UpdateBuffers<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) gradients: &'a [f32],
    pub(super) first: &'a mut [f32],
    pub(super) second: &'a mut [f32],
}

impl Store {
    /// All zeros.
    pub(super) fn new(table: Rc<ParameterTable>) -> Self {
        let zeros = || vec![0.0; table.len()];
        Self { version: 1, values: zeros(), gradients: zeros(), first: zeros(), second: zeros(), table }
    }

    /// Changes whenever the values do.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A parameter's master copy.
    pub(super) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.table.get(id).range.clone()]
    }

    /// A parameter's gradient.
    pub(super) fn gradient_mut(&mut self, id: ParameterId) -> &mut [f32] {
        &mut self.gradients[self.table.get(id).range.clone()]
    }

    /// A whole buffer.
    pub(super) fn slot(&self, slot: Slot) -> &[f32] {
        match slot {
            Slot::Values => &self.values,
            Slot::Gradients => &self.gradients,
            Slot::FirstMoment => &self.first,
            Slot::SecondMoment => &self.second,
        }
    }

    /// A whole buffer, to be written.
    pub(super) fn slot_mut(&mut self, slot: Slot) -> &mut [f32] {
        if slot == Slot::Values {
            self.version += 1;
        }
        match slot {
            Slot::Values => &mut self.values,
            Slot::Gradients => &mut self.gradients,
            Slot::FirstMoment => &mut self.first,
            Slot::SecondMoment => &mut self.second,
        }
    }

    /// What an optimizer pass reads and writes.
    pub(super) fn update_buffers(&mut self) -> UpdateBuffers<'_> {
        self.version += 1;
        UpdateBuffers {
            values: &mut self.values,
            gradients: &self.gradients,
            first: &mut self.first,
            second: &mut self.second,
        }
    }
}
