//! `[monitor]`: how the encoder's features are evaluated during pre-training.

use crate::error::Result;
use crate::ranges::at_least_one;
use serde::{Deserialize, Serialize};

/// Evaluation during training: on a small labeled data set, k-nearest neighbors and a linear probe show whether the
/// features improve. It never changes the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorRecipe {
    /// Labeled images that k-NN and the probe are fitted to: anything that `--data` takes.
    pub train: String,
    /// Labeled images of the same classes that are classified.
    pub val: String,
    /// Steps between evaluations; absent: those between validations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_steps: Option<u64>,
    /// Largest number of images of each data set that are used, spread evenly over it.
    #[serde(default = "max_images")]
    pub max_images: usize,
}

impl MonitorRecipe {
    /// Checks the values.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key.
    pub fn check(&self) -> Result<()> {
        at_least_one("monitor.every_steps", self.every_steps.unwrap_or(1) as usize)?;
        at_least_one("monitor.max_images", self.max_images)
    }
}

/// Enough for a standard error of about one percentage point, and few enough to take seconds.
fn max_images() -> usize {
    2000
}
