//! Sizes of a discrete VAE, and how they are derived from the tensors of a weights file.

use crate::error::{Error, Result};
use crate::ranges::{at_least_one, size, wrong};
use crate::weights::WeightsFile;

/// Largest vocabulary; that of DALL-E (arXiv:2102.12092) is 8,192.
const MAX_VOCABULARY: usize = 1 << 16;

/// Largest width at full resolution.
const MAX_WIDTH: usize = 1 << 12;

/// Largest width of a token embedding.
const MAX_TOKEN_WIDTH: usize = 1 << 14;

/// Largest number of blocks of a group.
const MAX_BLOCKS: usize = 1 << 6;

/// Sizes of the encoder and the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Number of image channels.
    pub channels: usize,
    /// Size of the vocabulary, `K`.
    pub vocabulary: usize,
    /// Channels of the group at full resolution; they double in every coarser group.
    pub width: usize,
    /// Number of groups of blocks; the resolution is halved between groups.
    pub groups: usize,
    /// Blocks per group.
    pub blocks_per_group: usize,
    /// Width of the decoder's token embedding; 0 for an encoder alone.
    pub token_width: usize,
}

impl TokenizerConfig {
    /// Side in pixels of the square that a token covers.
    pub fn stride_px(&self) -> usize {
        1 << (self.groups - 1)
    }

    /// Channels of a group; group 0 is at full resolution.
    pub(super) fn width_of(&self, group: usize) -> usize {
        self.width << group
    }

    /// Factor on every residual branch, `1 / blocks²` (openai/DALL-E, `dall_e/encoder.py`, `post_gain`).
    pub(super) fn gain(&self) -> f32 {
        1.0 / (self.groups * self.blocks_per_group).pow(2) as f32
    }

    /// Bytes of the outputs of all blocks of one image of `(height, width)` pixels, in f32: the least that training keeps.
    pub fn activation_bytes(&self, (height, width): (usize, usize)) -> usize {
        let of_group = |group: usize| (height >> group) * (width >> group) * self.width_of(group);
        let outputs: usize = (0..self.groups).map(of_group).sum();
        // encoder and decoder
        2 * 4 * self.blocks_per_group * outputs
    }

    /// Checks the values of a recipe.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key and what would fit.
    pub fn check(&self) -> Result<()> {
        at_least_one("data.channels", self.channels)?;
        size("tokenizer.blocks_per_group", self.blocks_per_group, MAX_BLOCKS)?;
        size("tokenizer.token_width", self.token_width, MAX_TOKEN_WIDTH)?;
        if !(2..=MAX_VOCABULARY).contains(&self.vocabulary) {
            let expected = format!("expected 2 to {MAX_VOCABULARY} tokens to choose from");
            return Err(wrong("tokenizer.vocabulary", self.vocabulary, expected, None));
        }
        if !(4..=MAX_WIDTH).contains(&self.width) || !self.width.is_multiple_of(4) {
            let expected = format!(
                "expected a multiple of 4, 4 to {MAX_WIDTH}: the bottleneck of a block is a quarter of its width"
            );
            return Err(wrong("tokenizer.width", self.width, expected, None));
        }
        if !(1..=6).contains(&self.groups) {
            let expected = "expected 1 to 6 groups, for tokens of 1 to 32 px".into();
            return Err(wrong("tokenizer.groups", self.groups, expected, None));
        }
        Ok(())
    }

    /// Derives the sizes from the shapes of the tensors in a weights file; the decoder may be missing.
    ///
    /// # Errors
    /// If the file is not a tokenizer.
    pub fn of_file(file: &WeightsFile) -> Result<Self> {
        Self::of_tensors(&file.shapes()).ok_or_else(|| Error::Input {
            what: format!("`{}` holds no tokenizer", file.path().display()),
            hint: Some(
                "give the output of `simmim tokenizer`, or DALL-E's encoder as `simmim import` writes it".into(),
            ),
        })
    }

    fn of_tensors(shapes: &[(String, Vec<usize>)]) -> Option<Self> {
        let shape = |name: &str| shapes.iter().find(|(n, _)| n == name).map(|(_, shape)| shape.as_slice());
        let count = |prefix: &str| {
            let has = |i: &usize| shapes.iter().any(|(name, _)| name.starts_with(&format!("{prefix}{i}.")));
            (1..).take_while(has).count()
        };
        let &[width, channels, ..] = shape("encoder.blocks.input.w")? else { return None };
        let &[vocabulary, ..] = shape("encoder.blocks.output.conv.w")? else { return None };
        let token_width = match shape("decoder.blocks.input.w") {
            Some(&[token_width, ..]) => token_width,
            Some([]) => return None,
            None => 0,
        };
        let groups = count("encoder.blocks.group_");
        let blocks_per_group = count("encoder.blocks.group_1.block_");
        let config = Self { channels, vocabulary, width, groups, blocks_per_group, token_width };
        let whole = Self { token_width: token_width.max(1), ..config };
        whole.check().is_ok().then_some(config)
    }
}
