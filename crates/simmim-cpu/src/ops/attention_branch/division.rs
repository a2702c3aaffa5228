//! How the rows of the branch are divided into chunks, and in how many phases the chunks are gone through.

use super::layout::AttentionSizes;
use crate::Cpu;
use crate::chunks::Chunks;
use crate::pools::ActivationDtype;

#[derive(Clone, Copy)]
pub(super) struct Division {
    pub(super) chunks: Chunks,
    /// Whether a chunk is some whole windows, so that a task can go from the norm to the residual while they stay in the
    /// cache. If not, the tasks between are by heads.
    pub(super) has_whole_windows: bool,
}

impl Division {
    pub(super) fn new<T: ActivationDtype>(cpu: &Cpu, sizes: &AttentionSizes) -> Self {
        match cpu.chunks_of_groups::<T>(sizes.rows(), 3 * sizes.width, sizes.window_tokens) {
            Some(chunks) if !sizes.has_padding() => Self { chunks, has_whole_windows: true },
            _ => Self { chunks: cpu.chunks::<T>(sizes.rows(), sizes.width), has_whole_windows: false },
        }
    }
}
