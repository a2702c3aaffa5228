//! Memory for the intermediate results of a task, which is a chunk of rows.

use super::super::column_blocks::ColumnBlocks;
use crate::buffer_pool::Buffer;
use crate::pools::{ActivationDtype, BufferPools};

/// Memory that both directions need.
pub(super) struct MlpScratch<T> {
    /// For the residual wrapper, `[2, R, D]`.
    pub(super) residual: Buffer<f32>,
    /// `[R, D]`
    pub(super) f: Buffer<f32>,
    /// For the blocks of a product.
    pub(super) block: Buffer<f32>,
    /// `[R, D]`
    pub(super) a: Buffer<T>,
    /// `[R, hidden]`
    pub(super) hidden: Buffer<T>,
}

impl<T: ActivationDtype> MlpScratch<T> {
    pub(super) fn new(
        pools: &BufferPools,
        rows: usize,
        width: usize,
        hidden_width: usize,
        blocks: &ColumnBlocks,
    ) -> Self {
        Self {
            residual: pools.f32.take(2 * rows * width),
            f: pools.f32.take(rows * width),
            block: pools.f32.take(blocks.scratch_len(rows)),
            a: pools.rows(rows, width),
            hidden: pools.rows(rows, hidden_width),
        }
    }
}

/// Memory for what the backward pass recomputes; empty if it recomputes nothing.
pub(super) struct RecomputeScratch<T> {
    /// The GELU's input, `[R, columns of a block]`.
    pub(super) gelu_input: Buffer<f32>,
    /// `[R, columns of a block]`
    pub(super) slope: Buffer<T>,
    /// `[R, hidden]`
    pub(super) hidden: Buffer<T>,
}

impl<T: ActivationDtype> RecomputeScratch<T> {
    pub(super) fn new(pools: &BufferPools, rows: usize, hidden_width: usize, blocks: &ColumnBlocks) -> Self {
        let rows = if T::RECOMPUTES { rows } else { 0 };
        Self {
            gelu_input: pools.f32.take(blocks.scratch_len(rows)),
            slope: T::pool(pools).take(blocks.scratch_len(rows)),
            hidden: pools.rows(rows, hidden_width),
        }
    }
}
