//! `[head]`: the head that predicts the target from features.

use serde::{Deserialize, Serialize};

/// The prediction head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadRecipe {
    /// Its architecture.
    pub kind: HeadKind,
    /// Width of the finest stage of an inverse Swin; absent: that of the Swin it is named after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
}

/// Architecture of the prediction head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// One linear layer.
    Linear,
    /// Two layers with a GELU between them.
    Mlp,
    /// Swin-T with its stages in reverse order.
    InverseSwinT,
    /// Swin-B with its stages in reverse order.
    InverseSwinB,
}

impl HeadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Linear, Self::Mlp, Self::InverseSwinT, Self::InverseSwinB];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Mlp => "mlp",
            Self::InverseSwinT => "inverse-swin-t",
            Self::InverseSwinB => "inverse-swin-b",
        }
    }
}
