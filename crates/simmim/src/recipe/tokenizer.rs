//! The tokenizer recipe: `[tokenizer]`, the discrete VAE, in addition to the sections that all recipes share.

use super::parse::Sections;
use super::{DataRecipe, NormalizationKind, RecipeKind, TrainRecipe, check};
use crate::error::Result;
use crate::ranges::{within, wrong};
use crate::tokenizer::TokenizerConfig;
use serde::{Deserialize, Serialize};

/// All settings of the training of a tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Sizes of the discrete VAE, and the annealing of its loss.
    pub tokenizer: VaeRecipe,
    /// Images and their crop; pixels are not normalized.
    pub data: DataRecipe,
    /// Optimizer, schedule, and intervals of logs, checkpoints and evaluations.
    pub train: TrainRecipe,
}

/// Sizes of the discrete VAE (see [`TokenizerConfig`]) and the annealing of its loss: the
/// Gumbel-softmax temperature and the weight of the KL divergence each follow half a cosine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeRecipe {
    /// Size of the vocabulary, `K`.
    pub vocabulary: usize,
    /// Channels of the first group of blocks; they double in every group.
    pub width: usize,
    /// Groups of blocks; a token covers a square with a side of `2^(groups − 1)` pixels.
    pub groups: usize,
    /// Blocks per group.
    pub blocks_per_group: usize,
    /// Width of the decoder's token embedding.
    pub token_width: usize,
    /// Temperature of the Gumbel-softmax at the first step.
    pub temperature: f64,
    /// Temperature after annealing.
    pub min_temperature: f64,
    /// Epochs over which the temperature is annealed.
    pub temperature_epochs: f64,
    /// Weight of the KL divergence from the uniform distribution, after it rose from 0.
    pub divergence_weight: f64,
    /// Epochs over which that weight rises.
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
    const KIND: &'static str = "tokenizer";
    const SECTIONS: &'static [&'static str] = &["tokenizer", "data", "train"];

    fn from_sections(sections: &Sections) -> Result<Self> {
        Ok(Self { tokenizer: sections.get("tokenizer")?, data: sections.get("data")?, train: sections.get("train")? })
    }

    fn check(&self) -> Result<()> {
        let Self { tokenizer, data, train } = self;
        self.config().check()?;
        check::common(data, train, self.config().stride_px(), "token")?;
        check::frozen_blocks(train, 0)?;
        if train.layer_decay != 1.0 {
            let expected = "a tokenizer has no layers of an encoder, whose rates could differ".into();
            return Err(wrong("train.layer_decay", train.layer_decay, expected, Some("leave it out".into())));
        }
        if data.normalization != NormalizationKind::None {
            let expected = "a tokenizer takes pixels from 0 to 1, without normalization".into();
            let hint = "set it to \"none\"; pre-training with its tokens may use any normalization";
            return Err(wrong("data.normalization", "another", expected, Some(hint.into())));
        }
        for (key, value) in
            [("tokenizer.temperature", tokenizer.temperature), ("tokenizer.min_temperature", tokenizer.min_temperature)]
        {
            // scores are divided by it in f32
            within(key, value, 1e-3, 1e3)?;
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
