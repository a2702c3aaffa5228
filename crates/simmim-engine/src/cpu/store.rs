//! The flat buffers behind the parameter table.

use crate::backend::{Precision, Slot};
use crate::parameters::{ParameterId, ParameterTable};
use simmim_kernels::bf16;
use std::rc::Rc;

/// Parameters, gradients and moments, each one flat buffer.
pub(super) struct Store {
    table: Rc<ParameterTable>,
    precision: Precision,
    values: Vec<f32>,
    /// The values rounded to operands of products; empty where they are the values themselves.
    operands: Vec<f32>,
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
    pub(super) fn new(table: Rc<ParameterTable>, precision: Precision) -> Self {
        let zeros = || vec![0.0; table.len()];
        let operands = match precision {
            Precision::F32 => Vec::new(),
            Precision::Bf16 => zeros(),
        };
        Self { values: zeros(), operands, gradients: zeros(), first: zeros(), second: zeros(), precision, table }
    }

    /// A parameter's master copy.
    pub(super) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.table.get(id).range.clone()]
    }

    /// A parameter as an operand of products.
    pub(super) fn operand(&self, id: ParameterId) -> &[f32] {
        let range = self.table.get(id).range.clone();
        match self.precision {
            Precision::F32 => &self.values[range],
            Precision::Bf16 => &self.operands[range],
        }
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
        match slot {
            Slot::Values => &mut self.values,
            Slot::Gradients => &mut self.gradients,
            Slot::FirstMoment => &mut self.first,
            Slot::SecondMoment => &mut self.second,
        }
    }

    /// What an optimizer pass reads and writes; call [`Store::refresh_operands`] behind it.
    pub(super) fn update_buffers(&mut self) -> UpdateBuffers<'_> {
        UpdateBuffers {
            values: &mut self.values,
            gradients: &self.gradients,
            first: &mut self.first,
            second: &mut self.second,
        }
    }

    /// Rounds the values to operands again after they changed.
    pub(super) fn refresh_operands(&mut self) {
        match self.precision {
            Precision::F32 => {}
            Precision::Bf16 => {
                self.operands.copy_from_slice(&self.values);
                bf16::round(&mut self.operands);
            }
        }
    }
}
