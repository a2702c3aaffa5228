//! The flat buffers behind the parameter table.
//!
//! Gradients and moments are allocated when they are first needed: a model that only predicts has none.

use crate::backend::Slot;
use crate::parameters::{ParameterId, ParameterTable};
use simmim_kernels::aligned::Aligned;
use simmim_kernels::product::Start;
use std::rc::Rc;

/// Parameters, gradients and moments, each one flat buffer.
pub(super) struct Store {
    table: Rc<ParameterTable>,
    /// Counts the changes of `values`, from 1.
    version: u64,
    values: Aligned<f32>,
    /// Garbage where `is_cleared` says that it should be zero.
    gradients: Aligned<f32>,
    /// For each parameter, whether its gradient counts as zero.
    is_cleared: Vec<bool>,
    first: Aligned<f32>,
    second: Aligned<f32>,
}

/// The buffers that one optimizer pass touches.
pub(super) struct UpdateBuffers<'a> {
    /// Version of the values once the pass has written them.
    pub(super) version: u64,
    pub(super) values: &'a mut [f32],
    pub(super) gradients: &'a [f32],
    pub(super) first: &'a mut [f32],
    pub(super) second: &'a mut [f32],
}

impl Store {
    /// All zeros.
    pub(super) fn new(table: Rc<ParameterTable>) -> Self {
        let parameters = table.iter().len();
        Self {
            version: 1,
            values: Aligned::new(table.len()),
            gradients: Aligned::default(),
            is_cleared: vec![true; parameters],
            first: Aligned::default(),
            second: Aligned::default(),
            table,
        }
    }

    /// Changes whenever the values do.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A parameter's master copy.
    pub(super) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.table.get(id).range.clone()]
    }

    /// A parameter's gradient, to add to.
    pub(super) fn gradient_mut(&mut self, id: ParameterId) -> &mut [f32] {
        match self.gradient_to_start(id) {
            (gradient, Start::Zero) => {
                gradient.fill(0.0);
                gradient
            }
            (gradient, Start::Old | Start::Bias(_)) => gradient,
        }
    }

    /// A parameter's gradient, and whether it is to be overwritten or added to.
    fn gradient_to_start(&mut self, id: ParameterId) -> (&mut [f32], Start<'static>) {
        allocate(&mut self.gradients, self.table.len());
        let start = if std::mem::take(&mut self.is_cleared[id.0]) { Start::Zero } else { Start::Old };
        (&mut self.gradients[self.table.get(id).range.clone()], start)
    }

    /// The gradients of several parameters, and whether each is to be overwritten or added to: the first
    /// product of an update saves clearing and reading it.
    ///
    /// # Panics
    /// If a parameter is named twice.
    pub(super) fn gradients_to_start(
        &mut self,
        ids: impl Iterator<Item = ParameterId>,
    ) -> Vec<(&mut [f32], Start<'static>)> {
        allocate(&mut self.gradients, self.table.len());
        let ids: Vec<_> = ids.collect();
        let mut starts: Vec<_> = ids
            .iter()
            .map(|id| if std::mem::take(&mut self.is_cleared[id.0]) { Start::Zero } else { Start::Old })
            .collect();
        let ranges: Vec<_> = ids.iter().map(|id| self.table.get(*id).range.clone()).collect();
        // slices are cut off in the order they lie in, and handed out in the order they were asked for
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ranges[*i].start);
        let mut slices: Vec<Option<&mut [f32]>> = ids.iter().map(|_| None).collect();
        let (mut rest, mut offset) = (&mut self.gradients[..], 0);
        for i in order {
            let (_, from) = rest.split_at_mut(ranges[i].start - offset);
            let (slice, behind) = from.split_at_mut(ranges[i].len());
            (slices[i], rest, offset) = (Some(slice), behind, ranges[i].end);
        }
        slices.into_iter().map(|s| s.expect("every slice was cut off")).zip(starts.drain(..)).collect()
    }

    /// Makes every gradient count as zero.
    pub(super) fn clear_gradients(&mut self) {
        self.is_cleared.fill(true);
    }

    /// Writes the zeros of gradients that nothing was added to.
    pub(super) fn settle_gradients(&mut self) {
        allocate(&mut self.gradients, self.table.len());
        for (parameter, is_cleared) in self.table.iter().zip(&mut self.is_cleared) {
            if std::mem::take(is_cleared) {
                self.gradients[parameter.range.clone()].fill(0.0);
            }
        }
    }

    /// A copy of a whole buffer; one that was never needed is all zeros.
    pub(super) fn copy_of(&mut self, slot: Slot) -> Vec<f32> {
        let buffer = match slot {
            Slot::Values => &self.values,
            Slot::Gradients => {
                self.settle_gradients();
                &self.gradients
            }
            Slot::FirstMoment => &self.first,
            Slot::SecondMoment => &self.second,
        };
        if buffer.is_empty() { vec![0.0; self.table.len()] } else { buffer.to_vec() }
    }

    /// All gradients.
    pub(super) fn gradients(&mut self) -> &[f32] {
        self.settle_gradients();
        &self.gradients
    }

    /// A whole buffer, to be written.
    pub(super) fn slot_mut(&mut self, slot: Slot) -> &mut [f32] {
        let buffer = match slot {
            Slot::Values => {
                self.version += 1;
                &mut self.values
            }
            Slot::Gradients => {
                self.settle_gradients();
                &mut self.gradients
            }
            Slot::FirstMoment => &mut self.first,
            Slot::SecondMoment => &mut self.second,
        };
        allocate(buffer, self.table.len());
        buffer
    }

    /// What an optimizer pass reads and writes.
    pub(super) fn update_buffers(&mut self) -> UpdateBuffers<'_> {
        self.version += 1;
        self.settle_gradients();
        allocate(&mut self.first, self.table.len());
        allocate(&mut self.second, self.table.len());
        UpdateBuffers {
            version: self.version,
            values: &mut self.values,
            gradients: &self.gradients,
            first: &mut self.first,
            second: &mut self.second,
        }
    }
}

fn allocate(buffer: &mut Aligned<f32>, len: usize) {
    if buffer.len() < len {
        *buffer = Aligned::new(len);
    }
}
