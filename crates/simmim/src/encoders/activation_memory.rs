//! An estimate of the activation memory of a training step: what the attention and MLP branches of each block save for
//! the backward pass.
//!
//! | per token | in the precision of the operands | only in bf16 | only in f32 | in f32 with either |
//! | --- | --- | --- | --- | --- |
//! | attention | output of the projection to q, k, v `3D`, input of the output projection `D`, attention weights `A·M` | input of the first layer, or its normalized rows `D` | input `D` | |
//! | MLP | derivative of the GELU (in f32: its input), `hidden` | input of the first layer, or its normalized rows `D`, input of the second `hidden` | input `D` | |
//! | MLP with SwiGLU | inputs of both layers `D` and `hidden` | | | input `D`, output of the first layer `2·hidden`; with layer scale the output `D` |
//! | each, with layer scale | output before layer scale `D` | | | |
//! | each, with post-norm | output before the norm `D` | | | |
//!
//! The last block saves less if the features of some tokens are not needed. Patch embedding, head, norms between blocks and the padding of packed operands are not counted; they are a few
//! percent. Temporary buffers of one operation are not counted either; they take at most as much as one block saves. What is
//! saved only in bf16 is recomputed in f32 from what is saved only there.

use simmim_engine::Precision;

/// Number of values that one block saves of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockActivations {
    operands: usize,
    only_in_bf16: usize,
    only_in_f32: usize,
    f32: usize,
    input: usize,
}

impl BlockActivations {
    /// A block of `tokens` tokens of width `width`, an MLP of width `hidden`, and `scores` attention weights over all heads
    /// and windows.
    pub(super) fn new(
        tokens: usize,
        width: usize,
        hidden: usize,
        scores: usize,
        has_layer_scale: bool,
        is_post_norm: bool,
    ) -> Self {
        let of_each = width * (has_layer_scale as usize + is_post_norm as usize);
        Self {
            operands: tokens * (4 * width + hidden + 2 * of_each) + scores,
            only_in_bf16: tokens * (2 * width + hidden),
            only_in_f32: tokens * 2 * width,
            f32: 0,
            input: tokens * width,
        }
    }

    /// The same block with SwiGLU in its MLP, which saves single operations instead of a branch.
    pub(super) fn gated(self, tokens: usize, width: usize, hidden: usize, has_layer_scale: bool) -> Self {
        let scaled = width * has_layer_scale as usize;
        Self {
            operands: self.operands + tokens * width - tokens * scaled, // the slope of a GELU is as large as the hidden input
            only_in_bf16: self.only_in_bf16 - tokens * (width + hidden),
            only_in_f32: self.only_in_f32 - tokens * width,
            f32: self.f32 + tokens * (width + 2 * hidden + scaled),
            input: self.input,
        }
    }

    fn bytes(&self, precision: Precision) -> usize {
        match precision {
            Precision::F32 => 4 * (self.operands + self.only_in_f32 + self.f32),
            Precision::Bf16 => 2 * (self.operands + self.only_in_bf16) + 4 * self.f32,
        }
    }
}

/// Bytes of the activations of one image: those of all blocks, or, if blocks are recomputed in the backward pass, the
/// inputs of all blocks and the activations of one.
pub fn activation_bytes(blocks: &[BlockActivations], precision: Precision, recomputes_blocks: bool) -> usize {
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
        let block = BlockActivations::new(10, 4, 16, 300, false, false);
        let (operands, only_in_bf16, f32) = (10 * (4 * 4 + 16) + 300, 10 * (2 * 4 + 16), 10 * 2 * 4);
        let in_bf16 = 2 * (operands + only_in_bf16);
        assert_eq!(activation_bytes(&[block; 2], Precision::F32, false), 2 * 4 * (operands + f32));
        assert_eq!(activation_bytes(&[block; 2], Precision::Bf16, false), 2 * in_bf16);
        assert_eq!(activation_bytes(&[block; 2], Precision::Bf16, true), 2 * 4 * 40 + in_bf16);
        let gated = BlockActivations::new(10, 4, 16, 300, true, false).gated(10, 4, 16, true);
        let (operands, only_in_bf16, f32) = (10 * (4 * 4 + 4 + 4 + 16) + 300, 10 * 4, 10 * (4 + 2 * 16 + 4));
        assert_eq!(activation_bytes(&[gated], Precision::Bf16, false), 2 * (operands + only_in_bf16) + 4 * f32);
        let (operands, f32) = (10 * (4 * 4 + 16) + 300, 10 * 2 * 4);
        let scaled = BlockActivations::new(10, 4, 16, 300, true, true);
        assert_eq!(activation_bytes(&[scaled], Precision::F32, false), 4 * (operands + f32 + 160));
    }
}
