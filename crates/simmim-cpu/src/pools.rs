//! The pools of a backend, and how an operation that is generic over its precision finds those of its type.

use crate::buffer_pool::{Buffer, BufferPool};
use crate::scratch_pool::ScratchPool;
use simmim_kernels::attention::AttentionScratch;
use simmim_kernels::dtype::{Bf16, Dtype, padded};

/// One pool for each type of buffer and of scratch memory.
#[derive(Default)]
pub(crate) struct BufferPools {
    pub(crate) f32: BufferPool<f32>,
    bf16: BufferPool<Bf16>,
    /// Lanes of packed operands.
    pub(crate) lanes: BufferPool<u32>,
    attention_f32: ScratchPool<AttentionScratch<f32>>,
    attention_bf16: ScratchPool<AttentionScratch<Bf16>>,
}

/// The type that activations are stored in, as the backend's precision says.
pub(crate) trait ActivationDtype: Dtype {
    /// Whether GELUs, and norms from their input, are recomputed in the backward pass. If not, the outputs of GELUs are saved, and
    /// of a norm before a branch the normalized rows. For values of twice the size, recomputing saves twice the memory, and costs a
    /// smaller part of the time, since everything else takes about twice as long.
    const RECOMPUTES: bool;

    /// The pool of its buffers.
    fn pool(pools: &BufferPools) -> &BufferPool<Self>;

    /// The pool of the attention kernels' scratch memory.
    fn attention_scratch(pools: &BufferPools) -> &ScratchPool<AttentionScratch<Self>>;
}

impl ActivationDtype for f32 {
    const RECOMPUTES: bool = true;

    fn pool(pools: &BufferPools) -> &BufferPool<f32> {
        &pools.f32
    }

    fn attention_scratch(pools: &BufferPools) -> &ScratchPool<AttentionScratch<f32>> {
        &pools.attention_f32
    }
}

impl ActivationDtype for Bf16 {
    const RECOMPUTES: bool = false;

    fn pool(pools: &BufferPools) -> &BufferPool<Bf16> {
        &pools.bf16
    }

    fn attention_scratch(pools: &BufferPools) -> &ScratchPool<AttentionScratch<Bf16>> {
        &pools.attention_bf16
    }
}

impl BufferPools {
    /// Begins a pass in each of them.
    pub(crate) fn begin_pass(&self) {
        self.f32.begin_pass();
        self.bf16.begin_pass();
        self.lanes.begin_pass();
    }

    /// A buffer for rows in whole lanes. If a row does not fill its last lane, the buffer is set to zero.
    pub(crate) fn rows<T: ActivationDtype>(&self, rows: usize, columns: usize) -> Buffer<T> {
        let row = padded::<T>(columns);
        match row == columns {
            true => T::pool(self).take(rows * row),
            false => T::pool(self).zeros(rows * row),
        }
    }

    /// Like [`Self::rows`], but only for the duration of one operation.
    pub(crate) fn temporary_rows<T: ActivationDtype>(&self, rows: usize, columns: usize) -> Buffer<T> {
        let row = padded::<T>(columns);
        let mut buffer = T::pool(self).temporary(rows * row);
        if row != columns {
            buffer.fill(T::default());
        }
        buffer
    }
}
