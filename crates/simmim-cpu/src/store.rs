//! The flat buffers of all parameters: values, gradients, moments and the average. Each parameter starts at a cache line,
//! so the ranges here are not those of the parameter table.
//!
//! Gradients, moments and the average are allocated when they are first needed, so a model that only predicts has none.

use simmim_engine::{ParameterId, ParameterTable, Slot};
use simmim_kernels::aligned::Aligned;
use simmim_kernels::product::Accumulator;
use std::ops::{Range, RangeInclusive};

/// Each parameter starts at a multiple of so many values, which is the start of a cache line: a kernel with long vectors
/// or tiles would touch twice as many lines otherwise. The values between two parameters are zero.
const ALIGNMENT: usize = 16;

/// The flat buffers.
pub(super) struct Store {
    /// Where each parameter lies in the buffers.
    ranges: Vec<Range<usize>>,
    /// Values of a buffer.
    len: usize,
    /// Number of the current values: 1, and one more after each change.
    version: u64,
    values: Aligned<f32>,
    /// Gradients; where `is_cleared` says that they count as zero, the values are those before they were cleared.
    gradients: Aligned<f32>,
    /// For each parameter, whether its gradient counts as zero. This saves writing zeros only to add to them.
    is_cleared: Vec<bool>,
    first: Aligned<f32>,
    second: Aligned<f32>,
    /// The moving average of the values; empty as long as it equals them.
    average: Aligned<f32>,
}

/// The buffers that an optimizer step reads and writes.
pub(super) struct StepBuffers<'a> {
    /// Where each parameter lies in the buffers.
    pub(super) ranges: &'a [Range<usize>],
    /// The version of the values after the step.
    pub(super) version: u64,
    pub(super) values: &'a mut [f32],
    pub(super) gradients: &'a [f32],
    pub(super) first: &'a mut [f32],
    pub(super) second: &'a mut [f32],
}

impl Store {
    /// Parameters that are all zero.
    pub(super) fn new(table: &ParameterTable) -> Self {
        let (mut ranges, mut len) = (Vec::new(), 0);
        for parameter in table.iter() {
            ranges.push(len..len + parameter.range.len());
            len = (len + parameter.range.len()).next_multiple_of(ALIGNMENT);
        }
        Self {
            version: 1,
            values: Aligned::new(len),
            gradients: Aligned::default(),
            is_cleared: vec![true; ranges.len()],
            ranges,
            len,
            first: Aligned::default(),
            second: Aligned::default(),
            average: Aligned::default(),
        }
    }

    /// Changes whenever the values do.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A parameter's values.
    pub(super) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.ranges[id.0].clone()]
    }

    /// A parameter's gradient, to add to.
    pub(super) fn gradient_mut(&mut self, id: ParameterId) -> &mut [f32] {
        allocate(&mut self.gradients, self.len);
        let gradient = &mut self.gradients[self.ranges[id.0].clone()];
        if std::mem::take(&mut self.is_cleared[id.0]) {
            gradient.fill(0.0);
        }
        gradient
    }

    /// The gradients of several parameters, and what a product must do with the content of each: overwrite it if it
    /// counts as zero, or else add to it.
    ///
    /// # Panics
    /// If a parameter is named twice.
    pub(super) fn gradients_to_accumulate(
        &mut self,
        ids: impl Iterator<Item = ParameterId>,
    ) -> Vec<(&mut [f32], Accumulator<'static>)> {
        allocate(&mut self.gradients, self.len);
        let ids: Vec<_> = ids.collect();
        let accumulators: Vec<_> = ids
            .iter()
            .map(|id| if std::mem::take(&mut self.is_cleared[id.0]) { Accumulator::Zero } else { Accumulator::Output })
            .collect();
        let ranges: Vec<_> = ids.iter().map(|id| self.ranges[id.0].clone()).collect();
        // slices are split off in the order of their addresses, and returned in the order of `ids`
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ranges[*i].start);
        let mut slices: Vec<Option<&mut [f32]>> = ids.iter().map(|_| None).collect();
        let (mut rest, mut offset) = (&mut self.gradients[..], 0);
        for i in order {
            let (_, from) = rest.split_at_mut(ranges[i].start - offset);
            let (slice, after) = from.split_at_mut(ranges[i].len());
            (slices[i], rest, offset) = (Some(slice), after, ranges[i].end);
        }
        slices.into_iter().map(|s| s.expect("every slice was split off")).zip(accumulators).collect()
    }

    /// Makes all gradients count as zero.
    pub(super) fn clear_gradients(&mut self) {
        self.is_cleared.fill(true);
    }

    /// Writes zeros to the gradients that still count as zero, so that the buffer can be read.
    pub(super) fn write_cleared_gradients(&mut self) {
        allocate(&mut self.gradients, self.len);
        for (range, is_cleared) in self.ranges.iter().zip(&mut self.is_cleared) {
            if std::mem::take(is_cleared) {
                self.gradients[range.clone()].fill(0.0);
            }
        }
    }

    /// A copy of a parameter's range of a buffer, which is zero if the buffer is not allocated yet.
    pub(super) fn copy_of(&mut self, slot: Slot, id: ParameterId) -> Vec<f32> {
        let range = self.ranges[id.0].clone();
        let buffer = match slot {
            Slot::Values => &self.values,
            Slot::Gradients => {
                self.write_cleared_gradients();
                &self.gradients
            }
            Slot::FirstMoment => &self.first,
            Slot::SecondMoment => &self.second,
            Slot::Average if self.average.is_empty() => &self.values,
            Slot::Average => &self.average,
        };
        if buffer.is_empty() { vec![0.0; range.len()] } else { buffer[range].to_vec() }
    }

    /// The gradients of consecutive parameters, with the zeros between them.
    pub(super) fn gradients_mut(&mut self, parameters: RangeInclusive<usize>) -> &mut [f32] {
        allocate(&mut self.gradients, self.len);
        for (range, is_cleared) in self.ranges[parameters.clone()].iter().zip(&mut self.is_cleared[parameters.clone()])
        {
            if std::mem::take(is_cleared) {
                self.gradients[range.clone()].fill(0.0);
            }
        }
        &mut self.gradients[self.ranges[*parameters.start()].start..self.ranges[*parameters.end()].end]
    }

    /// The average, to be updated, and the values.
    pub(super) fn average_and_values(&mut self) -> (&mut [f32], &[f32]) {
        self.allocate_average();
        (&mut self.average, &self.values)
    }

    /// Exchanges the values and the average.
    pub(super) fn swap_average(&mut self) {
        self.allocate_average();
        self.version += 1;
        std::mem::swap(&mut self.values, &mut self.average);
    }

    fn allocate_average(&mut self) {
        if self.average.is_empty() {
            self.average = self.values.clone();
        }
    }

    /// All gradients.
    pub(super) fn gradients(&mut self) -> &[f32] {
        self.write_cleared_gradients();
        &self.gradients
    }

    /// A parameter's range of a buffer, to be written.
    pub(super) fn slot_mut(&mut self, slot: Slot, id: ParameterId) -> &mut [f32] {
        let buffer = match slot {
            Slot::Values => {
                self.version += 1;
                &mut self.values
            }
            Slot::Gradients => {
                self.write_cleared_gradients();
                &mut self.gradients
            }
            Slot::FirstMoment => &mut self.first,
            Slot::SecondMoment => &mut self.second,
            Slot::Average => {
                self.allocate_average();
                &mut self.average
            }
        };
        allocate(buffer, self.len);
        &mut buffer[self.ranges[id.0].clone()]
    }

    /// The buffers of an optimizer step.
    pub(super) fn step_buffers(&mut self) -> StepBuffers<'_> {
        self.version += 1;
        self.write_cleared_gradients();
        allocate(&mut self.first, self.len);
        allocate(&mut self.second, self.len);
        StepBuffers {
            version: self.version,
            ranges: &self.ranges,
            values: &mut self.values,
            gradients: &self.gradients,
            first: &mut self.first,
            second: &mut self.second,
        }
    }
}

/// Allocates zeros, unless this was done before.
fn allocate(buffer: &mut Aligned<f32>, len: usize) {
    if buffer.len() < len {
        *buffer = Aligned::new(len);
    }
}
