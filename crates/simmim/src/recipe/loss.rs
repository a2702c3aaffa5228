//! `[loss]`: the distance of prediction and target, and which pixels count.

use serde::{Deserialize, Serialize};
use simmim_engine::Distance;

/// The reconstruction loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRecipe {
    /// Distance of a predicted and a target value; targets that are classes always use cross-entropy.
    pub kind: LossKind,
    /// Which pixels count.
    pub scope: Scope,
    /// Weight of a visible pixel, 0 to 1; absent: 0 for the scope `hidden`, 1 for `all`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "crate::decimals::option")]
    pub visible_weight: Option<f32>,
}

impl LossRecipe {
    /// Weight of a pixel in the loss.
    pub fn weight(&self, is_hidden: bool) -> f32 {
        match (is_hidden, self.scope) {
            (true, Scope::Hidden | Scope::All) => 1.0,
            (false, Scope::Hidden) => self.visible_weight.unwrap_or(0.0),
            (false, Scope::All) => self.visible_weight.unwrap_or(1.0),
        }
    }

    /// The distance; `beta` of smooth L1 is 1, the default of PyTorch's `smooth_l1_loss`.
    pub fn distance(&self) -> Distance {
        match self.kind {
            LossKind::L1 => Distance::L1,
            LossKind::L2 => Distance::L2,
            LossKind::SmoothL1 => Distance::SmoothL1 { beta: 1.0 },
        }
    }
}

/// Distance of a predicted and a target value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Absolute difference.
    L1,
    /// Squared difference.
    L2,
    /// Smooth L1: half the square below 1, linear above.
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
