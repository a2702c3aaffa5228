//! The recipe of a tokenizer: the discrete VAE and its relaxation beside what pre-training has too.

use super::parse::Sections;
use super::{DataRecipe, NormalizationKind, RecipeKind, TrainRecipe, check, within, wrong};
use crate::error::Result;
use crate::tokenizer::TokenizerConfig;
use serde::{Deserialize, Serialize};

/// Everything the training of a tokenizer is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Sizes of the discrete VAE, and how it chooses tokens in training.
    pub tokenizer: VaeRecipe,
    /// Images and their crop; pixels stay in 0–1.
    pub data: DataRecipe,
    /// Optimizer, schedule, and what is written when.
    pub train: TrainRecipe,
}

/// Sizes of the discrete VAE, see [`TokenizerConfig`], and half cosines of what its loss depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeRecipe {
    /// Tokens there are.
    pub vocabulary: usize,
    /// Width at full resolution; it doubles in every group.
    pub width: usize,
    /// Groups of blocks; a token stands for a square of 2 to the power of `groups − 1` pixels.
    pub groups: usize,
    /// Blocks of a group.
    pub blocks_per_group: usize,
    /// Width that the decoder brings a token to.
    pub token_width: usize,
    /// First temperature of the relaxed choice.
    pub temperature: f64,
    /// Last temperature.
    pub min_temperature: f64,
    /// How long the temperature falls.
    pub temperature_epochs: f64,
    /// Weight of the divergence from a uniform choice, reached from 0.
    pub divergence_weight: f64,
    /// How long that weight rises.
    pub divergence_epochs: f64,
}

impl TokenizerRecipe {
    /// Sizes of the discrete VAE.
    pub fn config(&self) -> TokenizerConfig {
        let VaeRecipe { vocabulary, width, groups, blocks_per_group, token_width, .. } = self.tokenizer;
        TokenizerConfig { channels: self.data.channels, vocabulary, width, groups, blocks_per_group, token_width }
    }
}

impl RecipeKind for TokenizerRecipe {
    const COMMAND: &'static str = "tokenizer";
    const SECTIONS: &'static [&'static str] = &["tokenizer", "data", "train"];

    fn from_sections(sections: &Sections) -> Result<Self> {
        Ok(Self { tokenizer: sections.get("tokenizer")?, data: sections.get("data")?, train: sections.get("train")? })
    }

    fn check(&self) -> Result<()> {
        let Self { tokenizer, data, train } = self;
        self.config().check()?;
        check::common(data, train, self.config().stride_px(), "token")?;
        if data.normalization != NormalizationKind::None {
            let expected = "a tokenizer takes pixels as they are".into();
            let hint = "set it to \"none\"; pre-training with its tokens may normalise as it likes";
            return Err(wrong("data.normalization", "another", expected, Some(hint.into())));
        }
        for (key, value) in
            [("tokenizer.temperature", tokenizer.temperature), ("tokenizer.min_temperature", tokenizer.min_temperature)]
        {
            if !(value > 0.0 && value.is_finite()) {
                return Err(wrong(key, value, "expected more than 0".into(), None));
            }
        }
        for (key, value) in [
            ("tokenizer.temperature_epochs", tokenizer.temperature_epochs),
            ("tokenizer.divergence_weight", tokenizer.divergence_weight),
            ("tokenizer.divergence_epochs", tokenizer.divergence_epochs),
        ] {
            within(key, value, 0.0, f64::MAX)?;
        }
        Ok(())
    }

    fn data(&self) -> &DataRecipe {
        &self.data
    }

    fn train(&self) -> &TrainRecipe {
        &self.train
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve_as;

    #[track_caller]
    fn check_fails(edit: &str, message: &str, hint: &str) {
        let error = resolve_as::<TokenizerRecipe>("tokenizer-cifar", &[edit.to_owned()]).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_key() {
        check_fails("tokenizer.vocabulary=1", "`tokenizer.vocabulary` is `1`", "--set");
        check_fails("tokenizer.width=6", "multiple of 4", "");
        check_fails("tokenizer.groups=9", "1 to 6 groups", "");
        check_fails("data.image_size=30", "multiple of the token of 4 px", "28 or 32");
        check_fails("data.normalization=imagenet", "`data.normalization`", "\"none\"");
        check_fails("tokenizer.temperature=0", "`tokenizer.temperature` is `0`", "");
        check_fails("tokenizer.tau=1", "unknown key `tokenizer.tau`", "");
        check_fails("mask.ratio=0.5", "unknown section `mask`", "");
    }

    #[test]
    fn a_recipe_of_pretraining_is_not_one_of_a_tokenizer() {
        let error = resolve_as::<TokenizerRecipe>("pretrain-vit-cifar", &[]).unwrap_err();
        assert!(error.to_string().contains("not of `simmim tokenizer`"), "{error}");
    }
}
