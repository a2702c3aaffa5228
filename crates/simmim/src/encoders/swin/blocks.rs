//! Swin blocks at one resolution, for the inverse Swin head.

use super::SwinConfig;
use super::block::{Block, BlockLocation};
use super::config::{Design, NORM_EPS, Version};
use super::windows::StageWindows;
use crate::encoders::{ForwardContext, WeightInit};
use crate::weights::Builder;
use simmim_engine::Operations;
use std::rc::Rc;

/// Blocks with alternating regular and shifted windows, without drop path.
#[derive(Clone, Debug)]
pub(crate) struct SwinBlocks {
    tokens: usize,
    sizes: SwinConfig,
    blocks: Vec<Rc<Block>>,
}

impl SwinBlocks {
    /// Builds `depth` blocks and adds their parameters, `blocks.0`, `blocks.1`, ….
    pub(crate) fn new(
        grid: (usize, usize),
        width: usize,
        depth: usize,
        heads: usize,
        window: usize,
        builder: &mut Builder,
    ) -> Self {
        let sizes = SwinConfig {
            patch_px: 1,
            width,
            depths: vec![depth],
            heads: vec![heads],
            window,
            mlp_ratio: 4.0, // arXiv:2103.14030, section 3.3
            qkv_bias: true,
            patch_norm: false,
            absolute_positions: false,
            norm_eps: NORM_EPS,
            drop_path: 0.0,
            init: WeightInit::Normal,
        };
        let design = Design { sizes: sizes.clone(), version: Version::One };
        let windows = StageWindows::new(grid, window);
        let block = |block| {
            let location = BlockLocation { stage: 0, block, windows: &windows, width, drop_rate: 0.0 };
            builder.scope(&format!("blocks.{block}"), |b| Rc::new(Block::new(&design, location, b)))
        };
        Self { tokens: grid.0 * grid.1, blocks: (0..depth).map(block).collect(), sizes }
    }

    /// # Shapes
    /// `[B, N, D]` → `[B, N, D]`.
    pub(crate) fn forward<B: Operations>(&self, b: &B, tokens: B::Tensor) -> B::Tensor {
        let mut context = ForwardContext::evaluate();
        self.blocks.iter().fold(tokens, |x, block| block.forward(b, &x, None, &mut context))
    }

    /// FLOPs of the forward pass of one image.
    pub(crate) fn flops(&self) -> f64 {
        let width = self.sizes.width;
        self.blocks.iter().map(|block| block.flops(self.tokens, width, self.sizes.hidden(width))).sum()
    }
}
