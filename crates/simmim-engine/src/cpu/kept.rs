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
    /// Whether the outputs of norms and GELUs are computed again in the backward pass instead of being kept. With values
    /// twice as long this saves twice the memory, and costs a smaller part of a time that is twice as long.
    const COMPUTES_AGAIN: bool;

    /// Where its buffers wait.
    fn shelf(shelves: &Shelves) -> &Shelf<Self>;

    /// Where the scratch of attention waits.
    fn attention(shelves: &Shelves) -> &Pool<Scratch<Self>>;
}

impl Stored for f32 {
    const COMPUTES_AGAIN: bool = true;

    fn shelf(shelves: &Shelves) -> &Shelf<f32> {
        &shelves.f32
    }

    fn attention(shelves: &Shelves) -> &Pool<Scratch<f32>> {
        &shelves.attention_in_f32
    }
}

impl Stored for Bf16 {
    const COMPUTES_AGAIN: bool = false;

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

    /// Like [`Self::rows`], for the time of one operation.
    pub(super) fn temporary_rows<E: Stored>(&self, rows: usize, columns: usize) -> Buffer<E> {
        let row = padded::<E>(columns);
        let mut buffer = E::shelf(self).temporary(rows * row);
        if row != columns {
            buffer.fill(E::default());
        }
        buffer
    }
}

/// An operand of a weight gradient: all rows of a batch, packed chunk by chunk as they were computed.
pub(super) struct Stack {
    lanes: Buffer<u32>,
    layout: Layout,
}

impl Stack {
    /// Room for the chunks' rows of `columns` values, in groups of `width`, to be kept; none if nothing is.
    pub(super) fn kept<E: Element>(
        shelves: &Shelves,
        chunks: &Chunks,
        columns: usize,
        width: usize,
        is_kept: bool,
    ) -> Self {
        let segments = if is_kept { chunks.count() } else { 0 };
        let layout = Layout::new::<E>(chunks.chunk_rows(), columns, width).repeated(segments);
        Self { lanes: shelves.lanes.take(layout.lanes()), layout }
    }

    /// Such room in the backward pass if its element is one that [`Stored::COMPUTES_AGAIN`], or else none.
    pub(super) fn again<E: Stored>(shelves: &Shelves, chunks: &Chunks, columns: usize, width: usize) -> Self {
        match E::COMPUTES_AGAIN {
            true => Self::temporary::<E>(shelves, chunks, columns, width),
            false => Self::kept::<E>(shelves, chunks, columns, width, false),
        }
    }

    /// Such room for the time of one operation.
    pub(super) fn temporary<E: Element>(shelves: &Shelves, chunks: &Chunks, columns: usize, width: usize) -> Self {
        let layout = Layout::new::<E>(chunks.chunk_rows(), columns, width).repeated(chunks.count());
        Self { lanes: shelves.lanes.temporary(layout.lanes()), layout }
    }

    /// One part per chunk.
    pub(super) fn split(&mut self, chunks: &Chunks) -> Vec<StackPart<'_>> {
        let segment = self.layout.repeated(1);
        let each: Vec<_> = (0..chunks.count()).map(|chunk| chunk..chunk + 1).collect();
        let lanes = split_kept(&mut self.lanes, &each, segment.lanes());
        lanes.into_iter().map(|lanes| StackPart { lanes, segment }).collect()
    }

    /// The packed operand.
    pub(super) fn packed(&self) -> Packed<'_> {
        Packed::new(&self.lanes, self.layout)
    }
}

/// A chunk's segment of a [`Stack`].
pub(super) struct StackPart<'a> {
    lanes: &'a mut [u32],
    segment: Layout,
}

impl StackPart<'_> {
    /// Packs the chunk's rows, or does nothing if nothing is kept.
    pub(super) fn pack<E: Element>(&mut self, rows: Matrix<E>) {
        if !self.lanes.is_empty() {
            pack_depth_by_row(rows, self.segment, self.lanes);
        }
    }
}

/// `buffer` split like [`split_mut`], or as many empty slices if it is empty.
pub(super) fn split_kept<'a, T>(buffer: &'a mut [T], parts: &[Range<usize>], stride: usize) -> Vec<&'a mut [T]> {
    match buffer.is_empty() {
        true => parts.iter().map(|_| Default::default()).collect(),
        false => split_mut(buffer, parts, stride),
    }
}
