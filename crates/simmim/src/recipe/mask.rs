//! `[mask]`: how much of an image is hidden, in what units, and by which strategy.

use serde::{Deserialize, Serialize};

/// The masking strategy and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRecipe {
    /// The masking strategy.
    pub strategy: MaskStrategyName,
    /// Side of a mask unit in pixels; a multiple of the patch side that divides the image.
    pub unit_px: usize,
    /// Masking ratio: the share of units to hide, above 0, at most 1.
    pub ratio: f64,
    /// Units of the smallest block of `blockwise`; absent: 16, as in BEiT.
    #[serde(default = "min_block_units")]
    pub min_block_units: usize,
    /// Aspect ratio (height / width) of the blocks of `blockwise`, `[low, high]`; absent: `[0.3, 1/0.3]`, as in BEiT.
    #[serde(default = "aspect")]
    pub aspect: (f64, f64),
}

/// A masking strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskStrategyName {
    /// Each unit uniformly at random.
    Random,
    /// As one square block at a random place.
    Square,
    /// As blocks of random area and aspect ratio.
    Blockwise,
}

impl MaskStrategyName {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::Random, Self::Square, Self::Blockwise];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Square => "square",
            Self::Blockwise => "blockwise",
        }
    }
}

/// arXiv:2106.08254, algorithm 1.
fn min_block_units() -> usize {
    16
}

/// arXiv:2106.08254, algorithm 1.
fn aspect() -> (f64, f64) {
    (0.3, 1.0 / 0.3)
}
