//! Recipe keys of the vision transformer.

use crate::encoders::{MAX_DEPTH, MAX_DROP_PATH, MAX_PATCH_PX, MAX_WIDTH};
use crate::encoders::{UnseenDifference, WeightInit};
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
    /// What is between the two layers of the MLP.
    #[serde(default, skip_serializing_if = "Mlp::is_gelu")]
    pub mlp: Mlp,
    /// Whether queries and values have a bias (keys never do).
    pub qkv_bias: bool,
    /// Initial value of layer scale; 0 for none.
    #[serde(serialize_with = "crate::decimals::one")]
    pub layer_scale: f32,
    /// Whether learned absolute position embeddings are added to the tokens.
    pub absolute_positions: bool,
    /// Relative position bias of the attention scores.
    pub position_bias: PositionBias,
    /// Base of rotary positions as DINOv3 has them (arXiv:2508.10104); 0 for none. Of the `E/2` pairs of values of a head, the first
    /// half turns by the height of a patch's center and the second by its width: pair `i` of a half by `2π·base^(−4i/E)` times the
    /// coordinate, which is −1 and 1 at the edges of the image.
    #[serde(default, skip_serializing_if = "is_none", serialize_with = "crate::decimals::one")]
    pub rotary_base: f32,
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
pub(super) const NORM_EPS: f32 = 1e-6;

/// Largest base of rotary positions; published models have 100.
const MAX_ROTARY_BASE: f64 = 1e6;

/// Largest number of register tokens; published models have 4.
const MAX_REGISTERS: usize = 1 << 10;

fn norm_eps() -> f32 {
    NORM_EPS
}

fn is_norm_eps(eps: &f32) -> bool {
    *eps == NORM_EPS
}

fn is_none(base: &f32) -> bool {
    *base == 0.0
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The MLP of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mlp {
    /// A GELU of each hidden value.
    #[default]
    Gelu,
    /// SwiGLU (arXiv:2002.05202): the first layer has twice the hidden width, and its first half gates the second.
    SwiGlu,
}

impl Mlp {
    fn is_gelu(&self) -> bool {
        *self == Mlp::Gelu
    }

    /// Outputs of the first layer for each hidden value.
    pub(crate) fn parts(self) -> usize {
        match self {
            Mlp::Gelu => 1,
            Mlp::SwiGlu => 2,
        }
    }
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
        if self.rotary_base != 0.0 {
            within("encoder.rotary_base", self.rotary_base as f64, 1.0, MAX_ROTARY_BASE)?;
            if !(self.width / self.heads).is_multiple_of(4) {
                let expected = format!(
                    "each head is {} wide, of which rotary positions need a multiple of 4",
                    self.width / self.heads
                );
                return Err(wrong("encoder.rotary_base", self.rotary_base, expected, None));
            }
        }
        share_above_zero("encoder.norm_eps", self.norm_eps as f64)?;
        within("encoder.layer_scale", self.layer_scale as f64, 0.0, 100.0)?;
        within("encoder.drop_path", self.drop_path as f64, 0.0, MAX_DROP_PATH as f64)
    }

    /// The first value of the configuration that weights were `trained` with that changes what they compute, though no shape.
    pub(in crate::encoders) fn unseen_difference(&self, trained: &Self) -> Option<UnseenDifference> {
        let differs = |theirs: String, ours: String, edit: String| Some(UnseenDifference { theirs, ours, edit });
        if self.width == trained.width && self.heads != trained.heads {
            let theirs = format!("{} attention heads", trained.heads);
            return differs(theirs, self.heads.to_string(), format!("encoder.heads={}", trained.heads));
        }
        if self.registers != trained.registers {
            let theirs = format!("{} register tokens", trained.registers);
            return differs(theirs, self.registers.to_string(), format!("encoder.registers={}", trained.registers));
        }
        if self.rotary_base != trained.rotary_base {
            let named = |base: f32| if base == 0.0 { "none".into() } else { format!("those of base {base}") };
            let theirs = match trained.rotary_base {
                0.0 => "no rotary positions".to_owned(),
                base => format!("rotary positions of base {base}"),
            };
            return differs(theirs, named(self.rotary_base), format!("encoder.rotary_base={}", trained.rotary_base));
        }
        if self.mlp != trained.mlp {
            let name = |mlp| match mlp {
                Mlp::Gelu => "gelu",
                Mlp::SwiGlu => "swiglu",
            };
            let theirs = format!("MLPs of the kind {}", name(trained.mlp));
            return differs(
                theirs,
                format!("{}, with other shapes", name(self.mlp)),
                format!("encoder.mlp={}", name(trained.mlp)),
            );
        }
        None
    }

    pub(crate) fn hidden(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }
}
