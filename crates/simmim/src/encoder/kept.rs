//! How much memory the activations of a training step take: what the engine's two branches of a block keep for the
//! backward pass.
//!
//! | per token | in the operands' type | only in bf16, computed again in f32 | in f32 |
//! | --- | --- | --- | --- |
//! | attention | output of the projection to q, k, v `3D`, input of the output projection `D`, attention weights `A·M` | input of the first `D` | input `D` |
//! | MLP | slope of the GELU, in f32 its input, `hidden` | input of both layers `D` and `hidden` | input `D` |
//! | each, with layer scale | output before it `D` | | |
//! | each, normalised behind | output before the norm `D` | | |
//!
//! Patch embedding, head, norms between blocks and the filling of packed operands are left out, a few per cent, and so is what
//! one operation needs for itself, at most as much as a block keeps.

use simmim_engine::Precision;

/// What one block keeps of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockKept {
    operands: usize,
    only_in_bf16: usize,
    f32: usize,
    input: usize,
}

impl BlockKept {
    /// A block of `tokens` tokens `width` wide, an MLP `hidden` wide and `scores` attention weights over all heads
    /// and windows.
    pub(super) fn new(
        tokens: usize,
        width: usize,
        hidden: usize,
        scores: usize,
        has_layer_scale: bool,
        is_normalised_behind: bool,
    ) -> Self {
        let scaled = 2 * width * has_layer_scale as usize;
        let normalised = 2 * width * is_normalised_behind as usize;
        Self {
            operands: tokens * (4 * width + hidden + scaled + normalised) + scores,
            only_in_bf16: tokens * (2 * width + hidden),
            f32: tokens * 2 * width,
            input: tokens * width,
        }
    }

    fn bytes(&self, precision: Precision) -> usize {
        match precision {
            Precision::F32 => 4 * (self.operands + self.f32),
            Precision::Bf16 => 2 * (self.operands + self.only_in_bf16) + 4 * self.f32,
        }
    }
}

/// Bytes that one image's activations take: those of all blocks, or, where blocks are computed again in the backward
/// pass, their inputs and one block.
pub fn activation_bytes(blocks: &[BlockKept], precision: Precision, recomputes_blocks: bool) -> usize {
    let whole = blocks.iter().map(|block| block.bytes(precision));
    match recomputes_blocks {
        false => whole.sum(),
        true => blocks.iter().map(|block| 4 * block.input).sum::<usize>() + whole.max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_what_the_table_says() {
        // by hand: 10 tokens, D 4, hidden 16, 3 heads of 10×10 scores
        let block = BlockKept::new(10, 4, 16, 300, false, false);
        let (operands, only_in_bf16, f32) = (10 * (4 * 4 + 16) + 300, 10 * (2 * 4 + 16), 10 * 2 * 4);
        let in_bf16 = 2 * (operands + only_in_bf16) + 4 * f32;
        assert_eq!(activation_bytes(&[block; 2], Precision::F32, false), 2 * 4 * (operands + f32));
        assert_eq!(activation_bytes(&[block; 2], Precision::Bf16, false), 2 * in_bf16);
        assert_eq!(activation_bytes(&[block; 2], Precision::Bf16, true), 2 * 4 * 40 + in_bf16);
        let scaled = BlockKept::new(10, 4, 16, 300, true, true);
        assert_eq!(activation_bytes(&[scaled], Precision::F32, false), 4 * (operands + f32 + 160));
    }
}
