//! How first weights of an encoder's linear layers are drawn, as recipes choose.

use crate::build::Init;
use serde::{Deserialize, Serialize};

/// First weights of an encoder's linear layers. Tokens, positions, Swin's patch embedding (which PyTorch draws by its
/// size) and SwinV2's position MLP are always drawn as the official code does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal with deviation 0.02, cut as each official code does: fit for widths of 768 and patches of 16.
    #[default]
    Normal,
    /// Uniform with variance 2 / (inputs + outputs), so of any width and patch (facebookresearch/mae, `models_mae.py`).
    Xavier,
}

impl WeightInit {
    /// The rule for a layer that the official code draws by `official`.
    pub(super) fn rule(self, official: Init, outputs: usize, inputs: usize) -> Init {
        match self {
            Self::Normal => official,
            Self::Xavier => Init::Uniform { bound: (6.0 / (outputs + inputs) as f32).sqrt() },
        }
    }
}
