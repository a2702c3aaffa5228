//! The activations of a batch, packed as operands of weight gradients.
//!
//! A weight gradient is a product with all tokens as its depth. Its operands are packed chunk by chunk, while each
//! chunk is in the cache, either in the forward pass, where they are saved for backward, or in the backward pass.

use crate::Cpu;
use crate::buffer_pool::Buffer;
use crate::chunks::Chunks;
use crate::threads::split_mut;
use simmim_kernels::dtype::Dtype;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Packed, PackedLayout, pack_depth_by_row};
use simmim_kernels::product::Tile;
use std::ops::Range;

/// The rows of a batch, one segment for each chunk.
pub(crate) struct PackedActivations {
    lanes: Buffer<u32>,
    layout: PackedLayout,
}

/// The side of the weight gradient's product that an operand is packed for.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// The gradient of a layer's output, `d_y` in `d_yᵀ·x`.
    Left,
    /// A layer's input, `x`.
    Right,
}

impl PackedActivations {
    /// Memory for rows of `columns` values, to be saved for backward. It is empty unless `is_saved`.
    pub(crate) fn saved<T: Dtype>(cpu: &Cpu, chunks: &Chunks, columns: usize, side: Side, is_saved: bool) -> Self {
        let segments = if is_saved { chunks.count() } else { 0 };
        let layout = side.layout::<T>(cpu.tile, chunks.chunk_rows(), columns).repeated(segments);
        Self { lanes: cpu.pools.lanes.take(layout.lanes()), layout }
    }

    /// The same for rows that the backward pass recomputes. It is empty for those that were saved instead.
    pub(crate) fn recomputed<T: Dtype>(
        cpu: &Cpu,
        chunks: &Chunks,
        columns: usize,
        side: Side,
        is_recomputed: bool,
    ) -> Self {
        match is_recomputed {
            true => Self::temporary::<T>(cpu, chunks, columns, side),
            false => Self::saved::<T>(cpu, chunks, columns, side, false),
        }
    }

    /// The same for rows that are needed only for the duration of one operation.
    pub(crate) fn temporary<T: Dtype>(cpu: &Cpu, chunks: &Chunks, columns: usize, side: Side) -> Self {
        let layout = side.layout::<T>(cpu.tile, chunks.chunk_rows(), columns).repeated(chunks.count());
        Self { lanes: cpu.pools.lanes.temporary(layout.lanes()), layout }
    }

    /// The parts that belong to the chunks.
    pub(crate) fn split(&mut self, chunks: &Chunks) -> Vec<PackedActivationsChunk<'_>> {
        let segment = self.layout.repeated(1);
        let segments: Vec<_> = (0..chunks.count()).map(|chunk| chunk..chunk + 1).collect();
        let lanes = split_saved(&mut self.lanes, &segments, segment.lanes());
        lanes.into_iter().map(|lanes| PackedActivationsChunk { lanes, segment }).collect()
    }

    /// The operand of the product.
    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed::new(&self.lanes, self.layout)
    }
}

impl Side {
    fn layout<T: Dtype>(self, tile: Tile, depth: usize, columns: usize) -> PackedLayout {
        match self {
            Side::Left => tile.blocks::<T>(depth, columns),
            Side::Right => tile.panels::<T>(depth, columns),
        }
    }
}

/// The segment of one chunk.
pub(crate) struct PackedActivationsChunk<'a> {
    lanes: &'a mut [u32],
    segment: PackedLayout,
}

impl PackedActivationsChunk<'_> {
    /// Packs the rows of the chunk, or does nothing if there is no memory for them.
    pub(crate) fn pack<T: Dtype>(&mut self, rows: Matrix<T>) {
        if !self.lanes.is_empty() {
            pack_depth_by_row(rows, self.segment, self.lanes);
        }
    }
}

/// [`split_mut`] for a buffer that is empty if nothing is saved; then the parts are empty as well.
pub(crate) fn split_saved<'a, T>(buffer: &'a mut [T], parts: &[Range<usize>], stride: usize) -> Vec<&'a mut [T]> {
    match buffer.is_empty() {
        true => parts.iter().map(|_| Default::default()).collect(),
        false => split_mut(buffer, parts, stride),
    }
}
