//! What the tasks of both passes read, and may share between threads.

use super::super::column_blocks::ColumnBlocks;
use super::parameters::AttentionParameters;
use super::window_order::WindowOrder;
use crate::Cpu;
use crate::chunks::Chunks;
use crate::pools::{ActivationDtype, BufferPools};
use crate::threads::Threads;
use simmim_kernels::product::Tile;

pub(super) struct Shared<'a, T> {
    pub(super) threads: &'a Threads,
    pub(super) pools: &'a BufferPools,
    pub(super) tile: Tile,
    pub(super) blocks: ColumnBlocks,
    pub(super) chunks: Chunks,
    pub(super) order: &'a WindowOrder,
    pub(super) parameters: &'a AttentionParameters<'a, T>,
}

impl<'a, T: ActivationDtype> Shared<'a, T> {
    pub(super) fn new(
        cpu: &'a Cpu,
        chunks: Chunks,
        order: &'a WindowOrder,
        parameters: &'a AttentionParameters<'a, T>,
    ) -> Self {
        let blocks = ColumnBlocks::new::<T>(cpu);
        Self { threads: &cpu.threads, pools: &cpu.pools, tile: cpu.tile, blocks, chunks, order, parameters }
    }
}
