//! `[loss]`: how far off a prediction is, and where it counts.

use serde::{Deserialize, Serialize};
use simmim_engine::Distance;

/// How far off a prediction is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRecipe {
    /// Distance of one value; classes take cross-entropy whatever is said here.
    pub kind: LossKind,
    /// Which pixels count.
    pub scope: Scope,
    /// Weight of a visible pixel, 0 to 1, in place of the scope's 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_weight: Option<f32>,
}

impl LossRecipe {
    /// Weight of a pixel.
    pub fn weight(&self, is_hidden: bool) -> f32 {
        match (is_hidden, self.scope) {
            (true, Scope::Hidden | Scope::All) => 1.0,
            (false, Scope::Hidden) => self.visible_weight.unwrap_or(0.0),
            (false, Scope::All) => self.visible_weight.unwrap_or(1.0),
        }
    }

    /// The distance; smooth L1 bends at 1, as PyTorch's default.
    pub fn distance(&self) -> Distance {
        match self.kind {
            LossKind::L1 => Distance::L1,
            LossKind::L2 => Distance::L2,
            LossKind::SmoothL1 => Distance::SmoothL1 { beta: 1.0 },
        }
    }
}

/// Distance of a predicted and a true value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Absolute difference.
    L1,
    /// Squared difference.
    L2,
    /// Squared below 1, absolute above.
    SmoothL1,
}

/// Which pixels count in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Hidden pixels only.
    Hidden,
    /// The whole image.
    All,
}
