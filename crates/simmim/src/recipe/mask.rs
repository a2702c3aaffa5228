//! `[mask]`: what is hidden, and in what units.

use serde::{Deserialize, Serialize};

/// What is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRecipe {
    /// How hidden units are chosen.
    pub strategy: MaskStrategyName,
    /// Side of a mask unit in pixels; a multiple of the patch side that divides the image.
    pub unit_px: usize,
    /// Share of units to hide.
    pub ratio: f64,
    /// Units of the smallest block of `blockwise`; BEiT's 16 if left unsaid.
    #[serde(default = "min_block_units")]
    pub min_block_units: usize,
    /// Height over width of the blocks of `blockwise`, `[low, high]`; BEiT's if left unsaid.
    #[serde(default = "aspect")]
    pub aspect: (f64, f64),
}

/// How hidden units are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskStrategyName {
    /// Uniformly.
    Random,
    /// As one square block at a random place.
    Square,
    /// As blocks of random area and aspect.
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
