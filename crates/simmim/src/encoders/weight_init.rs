//! Initialization of the weights of an encoder's linear layers.

use crate::weights::Init;
use serde::{Deserialize, Serialize};

/// Initialization of the weights of an encoder's linear layers. Tokens, positions, Swin's patch embedding (PyTorch's
/// default for convolutions) and SwinV2's position MLP are always initialized as in the official code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Truncated normal with standard deviation 0.02, as in the official code; tuned for widths around 768.
    #[default]
    Normal,
    /// Xavier uniform, with variance `2 / (inputs + outputs)`, for any width (facebookresearch/mae, `models_mae.py`).
    Xavier,
}

impl WeightInit {
    /// The initialization of a layer for which the official code uses `official`.
    pub(super) fn rule(self, official: Init, outputs: usize, inputs: usize) -> Init {
        match self {
            Self::Normal => official,
            Self::Xavier => Init::Uniform { bound: (6.0 / (outputs + inputs) as f32).sqrt() },
        }
    }
}
