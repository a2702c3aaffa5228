//! Memory for the intermediate results of a task.

use super::super::column_blocks::ColumnBlocks;
use crate::buffer_pool::Buffer;
use crate::chunks::Chunks;
use crate::pools::{ActivationDtype, BufferPools};
use crate::scratch_pool::PooledScratch;
use simmim_kernels::attention::{AttentionScratch, HeadShape};

/// Memory for a head in a window, `[M, E]` each.
pub(super) struct HeadScratch<T: ActivationDtype> {
    pub(super) qkv: [Buffer<T>; 3],
    pub(super) d_o: Buffer<T>,
    pub(super) dense: [Buffer<f32>; 3],
    pub(super) attention: PooledScratch<AttentionScratch<T>>,
}

impl<T: ActivationDtype> HeadScratch<T> {
    pub(super) fn new(pools: &BufferPools, shape: HeadShape) -> Self {
        Self {
            qkv: [(); 3].map(|_| pools.rows(shape.tokens, shape.width)),
            d_o: pools.rows(shape.tokens, shape.width),
            dense: [(); 3].map(|_| pools.f32.take(shape.tokens * shape.width)),
            attention: T::attention_scratch(pools).take(),
        }
    }
}

/// Memory for a chunk of rows.
pub(super) struct RowsScratch<T> {
    /// For the residual wrapper, `[2, R, D]`.
    pub(super) residual: Buffer<f32>,
    /// `[R, D]`
    pub(super) f: Buffer<f32>,
    /// For the blocks of a product.
    pub(super) block: Buffer<f32>,
    /// `[R, D]`
    pub(super) stored: Buffer<T>,
}

impl<T: ActivationDtype> RowsScratch<T> {
    pub(super) fn new(pools: &BufferPools, chunks: &Chunks, width: usize, blocks: &ColumnBlocks) -> Self {
        let rows = chunks.chunk_rows();
        Self {
            residual: pools.f32.take(2 * rows * width),
            f: pools.f32.take(rows * width),
            block: pools.f32.take(blocks.scratch_len(rows)),
            stored: pools.rows::<T>(rows, width),
        }
    }
}
