//! The flat buffers of all parameters: values, gradients, moments and the average. Each parameter starts at a cache line,
//! so the ranges here are not those of the parameter table.
//!
//! Gradients, moments and the average are allocated when they are first needed, so a model that only predicts has none. Where
//! the training state is divided over ranks, moments and the average are those of the units that this rank keeps.

use crate::gradients::Gradients;
use crate::shard::Shard;
use simmim_engine::{ParameterId, ParameterTable, Sharding, Slot};
use simmim_kernels::aligned::Aligned;
use simmim_kernels::product::Accumulator;
use std::ops::Range;

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
    pub(super) gradients: Gradients,
    /// Which moments and averages are kept here.
    shard: Shard,
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
    /// Which gradients and moments are here.
    pub(super) shard: &'a Shard,
    pub(super) values: &'a mut [f32],
    /// Those of all values, or if [`StepBuffers::has_own_gradients`], those that are kept here.
    pub(super) gradients: &'a [f32],
    pub(super) has_own_gradients: bool,
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
            gradients: Gradients::new(ranges.clone(), len),
            shard: Shard::whole(len),
            ranges,
            len,
            first: Aligned::default(),
            second: Aligned::default(),
            average: Aligned::default(),
        }
    }

    /// Keeps from here on what a rank keeps of the training state.
    pub(super) fn divide(&mut self, sharding: Sharding, rank: usize, world: usize) {
        assert!(self.first.is_empty() && self.average.is_empty(), "the state is divided before it is written");
        match sharding {
            Sharding::None => (),
            Sharding::Optimizer => self.shard = Shard::of_rank(self.len, rank, world),
            Sharding::Gradients => {
                self.shard = Shard::of_rank(self.len, rank, world);
                if self.shard.is_divided() {
                    self.gradients = Gradients::divided(self.ranges.clone(), self.shard.clone());
                }
            }
        }
    }

    /// Which moments and averages are kept here.
    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// How a slot is divided, if it is.
    pub(super) fn shard_of(&self, slot: Slot) -> Option<&Shard> {
        match slot {
            Slot::Values => None,
            Slot::Gradients => self.gradients.shard(),
            Slot::FirstMoment | Slot::SecondMoment | Slot::Average => {
                Some(&self.shard).filter(|shard| shard.is_divided())
            }
        }
    }

    /// Values of a buffer.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where a parameter lies in the buffers.
    pub(super) fn range(&self, id: ParameterId) -> Range<usize> {
        self.ranges[id.0].clone()
    }

    /// Changes whenever the values do.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A parameter's values.
    pub(super) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.ranges[id.0].clone()]
    }

    /// All values, to be changed.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        self.version += 1;
        &mut self.values
    }

    /// A parameter's gradient, to add to.
    pub(super) fn gradient_mut(&mut self, id: ParameterId) -> &mut [f32] {
        self.gradients.get_mut(id.0)
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
        self.gradients.for_products(ids)
    }

    /// A copy of a parameter's range of a buffer, which is zero where the buffer is not allocated yet or another rank keeps it.
    pub(super) fn copy_of(&mut self, slot: Slot, id: ParameterId) -> Vec<f32> {
        let range = self.ranges[id.0].clone();
        let kept = match slot {
            Slot::Values => return self.values[range].to_vec(),
            Slot::Gradients => return self.gradients.copy_of(id.0),
            Slot::FirstMoment => &self.first,
            Slot::SecondMoment => &self.second,
            Slot::Average => &self.average,
        };
        let mut copy = vec![0.0; range.len()];
        for part in self.shard.own(range.clone()) {
            let from = match kept.is_empty() {
                false => &kept[part.place..part.place + part.range.len()],
                true if slot == Slot::Average => &self.values[part.range.clone()],
                true => continue,
            };
            copy[part.range.start - range.start..part.range.end - range.start].copy_from_slice(from);
        }
        copy
    }

    /// Replaces a parameter's range of a buffer; what another rank keeps is left out.
    pub(super) fn write(&mut self, slot: Slot, id: ParameterId, values: &[f32]) {
        let range = self.ranges[id.0].clone();
        assert_eq!(values.len(), range.len(), "one value per parameter element");
        let kept = match slot {
            Slot::Values => return self.values_mut()[range].copy_from_slice(values),
            Slot::Gradients => return self.gradients.write(id.0, values),
            Slot::FirstMoment => &mut self.first,
            Slot::SecondMoment => &mut self.second,
            Slot::Average => {
                self.allocate_average();
                &mut self.average
            }
        };
        allocate(kept, self.shard.kept());
        for part in self.shard.own(range.clone()) {
            let from = &values[part.range.start - range.start..part.range.end - range.start];
            kept[part.place..part.place + from.len()].copy_from_slice(from);
        }
    }

    /// The average that is kept, to be updated, all values, and which of these are averaged.
    pub(super) fn average_and_values(&mut self) -> (&mut [f32], &[f32], &Shard) {
        self.allocate_average();
        (&mut self.average, &self.values, &self.shard)
    }

    /// Exchanges the values and the average.
    pub(super) fn swap_average(&mut self) {
        assert!(!self.shard.is_divided(), "the average is divided over ranks");
        self.allocate_average();
        self.version += 1;
        std::mem::swap(&mut self.values, &mut self.average);
    }

    fn allocate_average(&mut self) {
        if self.average.is_empty() {
            allocate(&mut self.average, self.shard.kept());
            for part in self.shard.own(0..self.len) {
                self.average[part.place..part.place + part.range.len()].copy_from_slice(&self.values[part.range]);
            }
        }
    }

    /// The buffers of an optimizer step.
    pub(super) fn step_buffers(&mut self) -> StepBuffers<'_> {
        self.version += 1;
        let kept = self.shard.kept();
        allocate(&mut self.first, kept);
        allocate(&mut self.second, kept);
        let has_own_gradients = self.gradients.shard().is_some();
        StepBuffers {
            version: self.version,
            ranges: &self.ranges,
            shard: &self.shard,
            values: &mut self.values,
            gradients: if has_own_gradients { self.gradients.sums() } else { self.gradients.whole() },
            has_own_gradients,
            first: &mut self.first,
            second: &mut self.second,
        }
    }

    /// Bytes that are allocated for a buffer.
    pub(super) fn bytes(&self, slot: Slot) -> usize {
        let values = match slot {
            Slot::Values => &self.values,
            Slot::Gradients => return self.gradients.bytes(),
            Slot::FirstMoment => &self.first,
            Slot::SecondMoment => &self.second,
            Slot::Average => &self.average,
        };
        size_of_val(&values[..])
    }
}

/// Allocates zeros, unless this was done before.
fn allocate(buffer: &mut Aligned<f32>, len: usize) {
    if buffer.len() < len {
        *buffer = Aligned::new(len);
    }
}
