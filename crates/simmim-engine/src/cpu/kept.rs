//! What a step keeps: rows of stored operands, and operands packed for the weight gradients.

use super::buffers::{Buffer, Pool, Shelf};
use super::chunks::Chunks;
use super::threads::split_mut;
use simmim_kernels::attention::Scratch;
use simmim_kernels::element::{Bf16, Element, padded};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Layout, Packed, pack_depth_by_row};
use std::ops::Range;

/// Buffers of every element type.
#[derive(Default)]
pub(super) struct Shelves {
    pub(super) f32: Shelf<f32>,
    bf16: Shelf<Bf16>,
    lanes: Shelf<u32>,
    attention_in_f32: Pool<Scratch<f32>>,
    attention_in_bf16: Pool<Scratch<Bf16>>,
}

/// An element whose buffers are kept for reuse.
pub(super) trait Stored: Element {
    /// Where its buffers wait.
    fn shelf(shelves: &Shelves) -> &Shelf<Self>;

    /// Where the scratch of attention waits.
    fn attention(shelves: &Shelves) -> &Pool<Scratch<Self>>;
}

impl Stored for f32 {
    fn shelf(shelves: &Shelves) -> &Shelf<f32> {
        &shelves.f32
    }

    fn attention(shelves: &Shelves) -> &Pool<Scratch<f32>> {
        &shelves.attention_in_f32
    }
}

impl Stored for Bf16 {
    fn shelf(shelves: &Shelves) -> &Shelf<Bf16> {
        &shelves.bf16
    }

    fn attention(shelves: &Shelves) -> &Pool<Scratch<Bf16>> {
        &shelves.attention_in_bf16
    }
}

impl Shelves {
    /// Room for rows of whole lanes; the filling, if there is any, is zero.
    pub(super) fn rows<E: Stored>(&self, rows: usize, columns: usize) -> Buffer<E> {
        let row = padded::<E>(columns);
        match row == columns {
            true => E::shelf(self).take(rows * row),
            false => E::shelf(self).zeros(rows * row),
        }
    }

    /// Room for lanes.
    pub(super) fn lanes(&self, len: usize) -> Buffer<u32> {
        self.lanes.take(len)
    }
}

/// An operand of a weight gradient: all rows of a batch, packed chunk by chunk as they were computed.
pub(super) struct Stack {
    lanes: Buffer<u32>,
    layout: Layout,
}

impl Stack {
    /// Room for the chunks' rows of `columns` values, in groups of `width`; none if nothing is to be kept.
    pub(super) fn new<E: Element>(
        shelves: &Shelves,
        chunks: &Chunks,
        columns: usize,
        width: usize,
        is_kept: bool,
    ) -> Self {
        let segments = if is_kept { chunks.count() } else { 0 };
        let layout = Layout::new::<E>(chunks.chunk_rows(), columns, width).repeated(segments);
        Self { lanes: shelves.lanes(layout.lanes()), layout }
    }

    /// One part per group of chunks.
    pub(super) fn split(&mut self, chunks: &Chunks) -> Vec<StackPart<'_>> {
        let segment = self.layout.repeated(1);
        let is_kept = !self.lanes.is_empty();
        let stride = if is_kept { chunks.chunks_per_group() * segment.lanes() } else { 0 };
        let groups: Vec<_> = (0..chunks.groups().len()).map(|g| g..g + 1).collect();
        split_mut(&mut self.lanes, &groups, stride).into_iter().map(|lanes| StackPart { lanes, segment }).collect()
    }

    /// The packed operand.
    pub(super) fn packed(&self) -> Packed<'_> {
        Packed::new(&self.lanes, self.layout)
    }
}

/// A worker's segments of a [`Stack`].
pub(super) struct StackPart<'a> {
    lanes: &'a mut [u32],
    segment: Layout,
}

impl StackPart<'_> {
    /// Packs the rows of the worker's chunk number `chunk`, or does nothing if nothing is kept.
    pub(super) fn pack<E: Element>(&mut self, chunk: usize, rows: Matrix<E>) {
        let len = self.segment.lanes();
        if !self.lanes.is_empty() {
            pack_depth_by_row(rows, self.segment, &mut self.lanes[chunk * len..][..len]);
        }
    }
}

/// `buffer` split like [`split_mut`], or as many empty slices if it is empty.
pub(super) fn split_kept<'a, T>(buffer: &'a mut [T], groups: &[Range<usize>], stride: usize) -> Vec<&'a mut [T]> {
    match buffer.is_empty() {
        true => groups.iter().map(|_| Default::default()).collect(),
        false => split_mut(buffer, groups, stride),
    }
}
