//! Swin blocks at one scale, for a head that is built of them.

use super::SwinConfig;
use super::block::{Block, Place};
use super::config::{Design, Version};
use super::windows::StageWindows;
use crate::build::Builder;
use crate::encoder::{Pass, WeightInit};
use simmim_engine::Operations;

/// Blocks of regular and shifted windows in turn, without drop path.
#[derive(Clone, Debug)]
pub(crate) struct SwinBlocks {
    tokens: usize,
    sizes: SwinConfig,
    blocks: Vec<Block>,
}

impl SwinBlocks {
    /// Adds `blocks.0`, `blocks.1`, … of this depth.
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
            drop_path: 0.0,
            init: WeightInit::Normal,
        };
        let design = Design { sizes: sizes.clone(), version: Version::One };
        let windows = StageWindows::new(grid, window);
        let block = |block| {
            let place = Place { stage: 0, block, windows: &windows, width, drop_rate: 0.0 };
            builder.scope(&format!("blocks.{block}"), |b| Block::new(&design, place, b))
        };
        Self { tokens: grid.0 * grid.1, blocks: (0..depth).map(block).collect(), sizes }
    }

    /// # Shapes
    /// `[B, N, D]` → `[B, N, D]`.
    pub(crate) fn forward<B: Operations>(&self, b: &B, tokens: B::Tensor) -> B::Tensor {
        let mut pass = Pass::evaluate();
        self.blocks.iter().fold(tokens, |x, block| block.forward(b, &x, &mut pass))
    }

    /// Operations of one image's forward pass.
    pub(crate) fn flops(&self) -> f64 {
        let width = self.sizes.width;
        self.blocks.iter().map(|block| block.flops(self.tokens, width, self.sizes.hidden(width))).sum()
    }
}
