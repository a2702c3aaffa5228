//! The buffer of the gradients, in segments of consecutive parameters.
//!
//! One segment holds all gradients, unless they are divided over ranks: then each has a part of the parameters, is allocated
//! when a backward pass first writes one of them, and is freed when all of them are summed. Of the sums this rank keeps its
//! part in another buffer.

use crate::shard::Shard;
use simmim_engine::ParameterId;
use simmim_kernels::aligned::Aligned;
use simmim_kernels::product::Accumulator;
use std::ops::{Range, RangeInclusive};

/// The least number of values of a segment, if there are several: a bucket of the summation has about as many.
const SEGMENT: usize = 1 << 20;

/// The gradients of all parameters.
pub(crate) struct Gradients {
    /// Where each parameter lies in a flat buffer.
    ranges: Vec<Range<usize>>,
    segments: Vec<Segment>,
    /// The segment of each parameter.
    segment_of: Vec<usize>,
    /// For each parameter, whether its gradient counts as zero, whatever is in the buffer. This saves writing zeros only to
    /// add to them.
    is_cleared: Vec<bool>,
    /// For each parameter, the sum of the squares of its gradient, if it is known. Whoever may change a gradient makes it
    /// unknown.
    squares: Vec<Option<f64>>,
    /// The part of the sums that this rank keeps; none if gradients are not divided.
    divided: Option<Divided>,
}

/// Some consecutive parameters.
struct Segment {
    /// Their values in a flat buffer, with the zeros between them.
    range: Range<usize>,
    /// Number of parameters.
    parameters: usize,
    /// Empty before it is needed, and after all are summed.
    values: Aligned<f32>,
    /// Parameters that are not summed yet.
    left: usize,
}

struct Divided {
    shard: Shard,
    sums: Aligned<f32>,
    /// Whether the sums count as zero.
    is_cleared: bool,
}

impl Gradients {
    /// Gradients of parameters that lie at `ranges` in buffers of `len` values, in one segment.
    pub(crate) fn new(ranges: Vec<Range<usize>>, len: usize) -> Self {
        let (segment_of, is_cleared, squares) =
            (vec![0; ranges.len()], vec![true; ranges.len()], vec![None; ranges.len()]);
        let segments = vec![Segment { range: 0..len, parameters: ranges.len(), values: Aligned::default(), left: 0 }];
        Self { ranges, segments, segment_of, is_cleared, squares, divided: None }
    }

    /// The same, divided over ranks.
    pub(crate) fn divided(ranges: Vec<Range<usize>>, shard: Shard) -> Self {
        let (mut segments, mut segment_of) = (Vec::<Segment>::new(), Vec::new());
        for range in &ranges {
            match segments.last_mut().filter(|segment| segment.range.len() < SEGMENT) {
                Some(segment) => {
                    segment.range.end = range.end;
                    segment.parameters += 1;
                }
                None => {
                    let (range, values) = (range.clone(), Aligned::default());
                    segments.push(Segment { range, parameters: 1, values, left: 0 });
                }
            }
            segment_of.push(segments.len() - 1);
        }
        let divided = Some(Divided { sums: Aligned::default(), shard, is_cleared: true });
        let (is_cleared, squares) = (vec![true; ranges.len()], vec![None; ranges.len()]);
        Self { ranges, segments, segment_of, is_cleared, squares, divided }
    }

    /// How the sums are divided, if they are.
    pub(crate) fn shard(&self) -> Option<&Shard> {
        self.divided.as_ref().map(|divided| &divided.shard)
    }

    /// A parameter's gradient, to add to.
    pub(crate) fn get_mut(&mut self, id: usize) -> &mut [f32] {
        self.run_mut(id..=id)
    }

    /// The gradients of several parameters, and what a product must do with the content of each: overwrite it if it
    /// counts as zero, or else add to it.
    ///
    /// # Panics
    /// If a parameter is named twice.
    pub(crate) fn for_products(
        &mut self,
        ids: impl Iterator<Item = ParameterId>,
    ) -> Vec<(&mut [f32], Accumulator<'static>)> {
        let ids: Vec<_> = ids.collect();
        ids.iter().for_each(|id| self.squares[id.0] = None);
        let accumulators: Vec<_> = ids
            .iter()
            .map(|id| if std::mem::take(&mut self.is_cleared[id.0]) { Accumulator::Zero } else { Accumulator::Output })
            .collect();
        // slices are split off in the order of their addresses, and returned in the order of `ids`
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ids[*i].0);
        let mut order = order.into_iter().peekable();
        let mut slices: Vec<Option<&mut [f32]>> = ids.iter().map(|_| None).collect();
        for (number, segment) in self.segments.iter_mut().enumerate() {
            if order.peek().is_none_or(|i| self.segment_of[ids[*i].0] != number) {
                continue;
            }
            let mut offset = segment.range.start;
            let mut rest = segment.allocated();
            while let Some(i) = order.next_if(|i| self.segment_of[ids[*i].0] == number) {
                let range = &self.ranges[ids[i].0];
                let (_, from) = rest.split_at_mut(range.start - offset);
                let (slice, after) = from.split_at_mut(range.len());
                (slices[i], rest, offset) = (Some(slice), after, range.end);
            }
        }
        slices.into_iter().map(|s| s.expect("every slice was split off")).zip(accumulators).collect()
    }

    /// Takes note of the sum of the squares of a gradient that was computed just now.
    pub(crate) fn set_squares(&mut self, id: ParameterId, squares: f64) {
        self.squares[id.0] = Some(squares);
    }

    /// Makes all gradients count as zero.
    pub(crate) fn clear(&mut self) {
        self.is_cleared.fill(true);
        self.squares.fill(None);
        if let Some(divided) = &mut self.divided {
            divided.is_cleared = true;
        }
    }

    /// Whether two consecutive parameters lie behind each other in memory.
    pub(crate) fn are_joined(&self, first: usize, second: usize) -> bool {
        self.segment_of[first] == self.segment_of[second]
    }

    /// Where consecutive parameters lie in a flat buffer.
    pub(crate) fn range(&self, parameters: &RangeInclusive<usize>) -> Range<usize> {
        self.ranges[*parameters.start()].start..self.ranges[*parameters.end()].end
    }

    /// The gradients of consecutive parameters of a segment, with the zeros between them, to be changed.
    pub(crate) fn run_mut(&mut self, parameters: RangeInclusive<usize>) -> &mut [f32] {
        self.squares[parameters.clone()].fill(None);
        self.run(parameters)
    }

    /// [`Self::run_mut`] for those who only read.
    fn run(&mut self, parameters: RangeInclusive<usize>) -> &mut [f32] {
        let range = self.range(&parameters);
        let segment = &mut self.segments[self.segment_of[*parameters.start()]];
        let start = segment.range.start;
        let values = segment.allocated();
        for id in parameters {
            if std::mem::take(&mut self.is_cleared[id]) {
                let range = &self.ranges[id];
                values[range.start - start..range.end - start].fill(0.0);
            }
        }
        &mut values[range.start - start..range.end - start]
    }

    /// All gradients with the zeros between them, where they are in one segment.
    pub(crate) fn whole(&mut self) -> &[f32] {
        assert!(self.divided.is_none(), "gradients are divided over ranks");
        if !self.ranges.is_empty() {
            self.run(0..=self.ranges.len() - 1);
        }
        self.segments[0].allocated()
    }

    /// Where the gradients lie of which the sum of squares is known, in order, and these sums.
    pub(crate) fn known_squares(&self) -> impl Iterator<Item = (Range<usize>, f64)> {
        self.ranges.iter().zip(&self.squares).filter_map(|(range, squares)| Some((range.clone(), (*squares)?)))
    }

    /// The sums of all ranks that this one keeps, where gradients are divided.
    pub(crate) fn sums(&mut self) -> &[f32] {
        let divided = self.divided.as_mut().expect("gradients are divided over ranks");
        divided.allocated()
    }

    /// Whether a parameter's gradient is not zero and not summed yet.
    fn is_accumulating(&self, id: usize) -> bool {
        !self.is_cleared[id] && !self.segments[self.segment_of[id]].values.is_empty()
    }

    /// How many sums of a run each rank keeps, where gradients are divided.
    pub(crate) fn lens(&self, parameters: &RangeInclusive<usize>) -> Option<Vec<usize>> {
        self.shard().map(|shard| shard.lens(self.range(parameters)))
    }

    /// The gradients of a run as they are sent to the ranks that keep the sums, sorted by these.
    pub(crate) fn sorted(&mut self, parameters: &RangeInclusive<usize>) -> Vec<f32> {
        let range = self.range(parameters);
        let shard = self.shard().expect("gradients are divided over ranks").clone();
        let values = self.run_mut(parameters.clone());
        let mut sorted = vec![0.0; values.len()];
        for (part, place) in shard.sorted(range.clone()) {
            sorted[place].copy_from_slice(&values[part.range.start - range.start..part.range.end - range.start]);
        }
        sorted
    }

    /// Forgets what this rank has of the gradients of a run, which is on its way to the ranks that keep the sums.
    pub(crate) fn is_sent(&mut self, parameters: &RangeInclusive<usize>) {
        let segment = &mut self.segments[self.segment_of[*parameters.start()]];
        segment.left -= parameters.clone().count();
        if segment.left == 0 {
            segment.values = Aligned::default();
        }
        self.is_cleared[parameters.clone()].fill(true);
    }

    /// Takes the sums of a run, sorted by the ranks that keep them: of these, this rank's part.
    pub(crate) fn keep_sums(&mut self, parameters: &RangeInclusive<usize>, sorted: &[f32]) {
        let range = self.range(parameters);
        let divided = self.divided.as_mut().expect("gradients are divided over ranks");
        let (shard, mut own) = (divided.shard.clone(), &sorted[divided.shard.own_sorted(range.clone())]);
        let sums = divided.allocated();
        for part in shard.own(range) {
            let (of_part, rest) = own.split_at(part.range.len());
            sums[part.place..part.place + of_part.len()].copy_from_slice(of_part);
            own = rest;
        }
    }

    /// A copy of a parameter's gradient; where gradients are divided and summed, this rank's part of the sum.
    pub(crate) fn copy_of(&mut self, id: usize) -> Vec<f32> {
        let range = self.ranges[id].clone();
        if self.divided.is_none() || self.is_accumulating(id) {
            return self.run(id..=id).to_vec();
        }
        let divided = self.divided.as_mut().expect("gradients are divided over ranks");
        let (shard, mut copy) = (divided.shard.clone(), vec![0.0; range.len()]);
        let sums = divided.allocated();
        for part in shard.own(range.clone()) {
            let from = &sums[part.place..part.place + part.range.len()];
            copy[part.range.start - range.start..part.range.end - range.start].copy_from_slice(from);
        }
        copy
    }

    /// Replaces a parameter's gradient; where gradients are divided, this rank's part of the sum.
    pub(crate) fn write(&mut self, id: usize, values: &[f32]) {
        let range = self.ranges[id].clone();
        let Some(divided) = &mut self.divided else {
            return self.run_mut(id..=id).copy_from_slice(values);
        };
        let shard = divided.shard.clone();
        let sums = divided.allocated();
        for part in shard.own(range.clone()) {
            let from = &values[part.range.start - range.start..part.range.end - range.start];
            sums[part.place..part.place + from.len()].copy_from_slice(from);
        }
    }

    /// Bytes that are allocated.
    pub(crate) fn bytes(&self) -> usize {
        let sums = self.divided.as_ref().map_or(0, |divided| divided.sums.len());
        size_of::<f32>() * (self.segments.iter().map(|segment| segment.values.len()).sum::<usize>() + sums)
    }
}

impl Segment {
    /// The values, which are zero if they were not there.
    fn allocated(&mut self) -> &mut [f32] {
        if self.values.len() < self.range.len() {
            self.values = Aligned::new(self.range.len());
            self.left = self.parameters;
        }
        &mut self.values
    }
}

impl Divided {
    fn allocated(&mut self) -> &mut [f32] {
        let kept = self.shard.kept();
        if self.sums.len() < kept {
            self.sums = Aligned::new(kept);
        }
        if std::mem::take(&mut self.is_cleared) {
            self.sums.fill(0.0);
        }
        &mut self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_known_until_a_gradient_may_change() {
        let known = |gradients: &Gradients| gradients.known_squares().collect::<Vec<_>>();
        let mut gradients = Gradients::new(vec![0..2, 16..19], 32);
        for change in [
            |gradients: &mut Gradients| gradients.get_mut(1)[0] = 1.0,
            |gradients: &mut Gradients| gradients.write(1, &[1.0; 3]),
            |gradients: &mut Gradients| drop(gradients.for_products([ParameterId(1)].into_iter())),
        ] {
            (0..2).for_each(|id| gradients.set_squares(ParameterId(id), 2.0));
            gradients.whole(); // these two only read
            gradients.copy_of(1);
            assert_eq!(known(&gradients), [(0..2, 2.0), (16..19, 2.0)]);
            change(&mut gradients);
            assert_eq!(known(&gradients), [(0..2, 2.0)]);
        }
        gradients.clear();
        assert_eq!(known(&gradients), []);
    }
}
