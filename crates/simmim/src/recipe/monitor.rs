//! `[monitor]`: how the encoder's features are evaluated during pre-training.

use crate::error::Result;
use crate::ranges::{at_least_one, wrong};
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
        without_secrets("monitor.train", &self.train)?;
        without_secrets("monitor.val", &self.val)?;
        at_least_one("monitor.every_steps", self.every_steps.unwrap_or(1) as usize)?;
        at_least_one("monitor.max_images", self.max_images)
    }
}

/// Checks that no address has a password or a query, since a run folder records the recipe.
fn without_secrets(key: &str, data: &str) -> Result<()> {
    let shown = simmim_data::without_secrets(data);
    if shown == data {
        return Ok(());
    }
    let hint =
        "a run folder keeps the recipe; give credentials in the environment, or use a copy on this machine".into();
    Err(wrong(key, shown, "expected addresses without user name, password and query".into(), Some(hint)))
}

/// Enough for a standard error of about one percentage point, and few enough to take seconds.
fn max_images() -> usize {
    2000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_secrets_are_refused() {
        let of = |data: &str| {
            MonitorRecipe { train: data.into(), val: data.into(), every_steps: None, max_images: 1 }.check()
        };
        of("a?.tar,https://h/x-{0..3}.tar,s3://b/x.zip").unwrap();
        for data in ["https://u:secret@h/x.tar", "a,https://h/x.tar?sig=secret"] {
            let error = of(data).unwrap_err();
            let told = format!("{error} {}", error.hint().unwrap());
            assert!(told.contains("`monitor.train`") && !told.contains("secret"), "{told}");
        }
    }
}
