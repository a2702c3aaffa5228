//! Recipe keys of the vision transformer.

use crate::encoders::WeightInit;
use crate::encoders::{MAX_DEPTH, MAX_DROP_PATH, MAX_PATCH_PX, MAX_WIDTH};
use crate::error::Result;
use crate::ranges::{share_above_zero, size, within, wrong};
use serde::{Deserialize, Serialize};

/// Sizes and variants of a vision transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Width of a token, `D`.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads, `A`; divides the width.
    pub heads: usize,
    /// Hidden width of the MLP as a multiple of the width.
    pub mlp_ratio: f64,
    /// Whether queries and values have a bias (keys never do).
    pub qkv_bias: bool,
    /// Initial value of layer scale; 0 for none.
    #[serde(serialize_with = "crate::decimals::one")]
    pub layer_scale: f32,
    /// Whether learned absolute position embeddings are added to the tokens.
    pub absolute_positions: bool,
    /// Relative position bias of the attention scores.
    pub position_bias: PositionBias,
    /// Number of register tokens (arXiv:2309.16588), which attend like patches, have no position and are no features.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub registers: usize,
    /// `ε` of layer norms, added to the variance.
    #[serde(default = "norm_eps", skip_serializing_if = "is_norm_eps", serialize_with = "crate::decimals::one")]
    pub norm_eps: f32,
    /// Drop-path rate of the last block; it rises linearly from 0 over the blocks.
    #[serde(serialize_with = "crate::decimals::one")]
    pub drop_path: f32,
    /// Initialization of the weights of linear layers.
    #[serde(default)]
    pub init: WeightInit,
}

/// `ε` of layer norms (microsoft/SimMIM, `models/vision_transformer.py`).
const NORM_EPS: f32 = 1e-6;

/// Largest number of register tokens; published models have 4.
const MAX_REGISTERS: usize = 1 << 10;

fn norm_eps() -> f32 {
    NORM_EPS
}

fn is_norm_eps(eps: &f32) -> bool {
    *eps == NORM_EPS
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Relative position bias of a vision transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionBias {
    /// None.
    None,
    /// One table for all blocks, as in pre-training in the paper.
    Shared,
    /// One table per block, as in fine-tuning in the paper.
    PerBlock,
}

impl VitConfig {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key.
    pub fn check(&self) -> Result<()> {
        for (key, value, most) in [
            ("encoder.patch_px", self.patch_px, MAX_PATCH_PX),
            ("encoder.width", self.width, MAX_WIDTH),
            ("encoder.depth", self.depth, MAX_DEPTH),
            ("encoder.heads", self.heads, self.width),
        ] {
            size(key, value, most)?;
        }
        if !self.width.is_multiple_of(self.heads) {
            let expected = format!("expected a divisor of `encoder.width`, {}", self.width);
            return Err(wrong("encoder.heads", self.heads, expected, None));
        }
        within("encoder.mlp_ratio", self.mlp_ratio, 1.0 / self.width as f64, 64.0)?;
        within("encoder.registers", self.registers as f64, 0.0, MAX_REGISTERS as f64)?;
        if self.registers > 0 && self.position_bias != PositionBias::None {
            let expected = "a table of position bias has no rows for registers".into();
            let hint = Some("set `encoder.position_bias` to \"none\"".into());
            return Err(wrong("encoder.registers", self.registers, expected, hint));
        }
        share_above_zero("encoder.norm_eps", self.norm_eps as f64)?;
        within("encoder.layer_scale", self.layer_scale as f64, 0.0, 100.0)?;
        within("encoder.drop_path", self.drop_path as f64, 0.0, MAX_DROP_PATH as f64)
    }

    pub(crate) fn hidden(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }
}
