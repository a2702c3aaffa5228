//! Sizes and variants of Swin and SwinV2, as in the `[encoder]` section of recipes.

use crate::encoders::{MAX_DEPTH, MAX_DROP_PATH, MAX_PATCH_PX, MAX_WIDTH, WeightInit};
use crate::error::Result;
use crate::ranges::{share_above_zero, size, within, wrong};
use serde::{Deserialize, Serialize};

/// Largest number of stages; the width doubles in each.
const MAX_STAGES: usize = 8;

/// Largest side of a window in tokens.
const MAX_WINDOW: usize = 128;

/// `ε` of layer norms (PyTorch's default, which microsoft/SimMIM, `models/swin_transformer.py`, keeps).
pub(super) const NORM_EPS: f32 = 1e-5;

fn norm_eps() -> f32 {
    NORM_EPS
}

fn is_norm_eps(eps: &f32) -> bool {
    *eps == NORM_EPS
}

/// Sizes and variants of a Swin Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwinConfig {
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Width of a token in the first stage, `D`; it doubles in each stage.
    pub width: usize,
    /// Number of blocks of each stage.
    pub depths: Vec<usize>,
    /// Number of attention heads of each stage; divides its width.
    pub heads: Vec<usize>,
    /// Side of a window in tokens, `M`.
    pub window: usize,
    /// Hidden width of the MLP as a multiple of the width.
    pub mlp_ratio: f64,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the patch embedding ends with a layer norm.
    pub patch_norm: bool,
    /// Whether learned absolute position embeddings are added to the tokens.
    pub absolute_positions: bool,
    /// `ε` of the layer norms of blocks and of the last one, added to the variance; those of patch embedding and merging
    /// keep PyTorch's, as in huggingface/transformers, `models/swin/modeling_swin.py`.
    #[serde(default = "norm_eps", skip_serializing_if = "is_norm_eps", serialize_with = "crate::decimals::one")]
    pub norm_eps: f32,
    /// Drop-path rate of the last block; it rises linearly from 0 over the blocks.
    #[serde(serialize_with = "crate::decimals::one")]
    pub drop_path: f32,
    /// Initialization of the weights of linear layers.
    #[serde(default)]
    pub init: WeightInit,
}

/// Sizes and variants of a Swin Transformer V2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwinV2Config {
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Width of a token in the first stage, `D`; it doubles in each stage.
    pub width: usize,
    /// Number of blocks of each stage.
    pub depths: Vec<usize>,
    /// Number of attention heads of each stage; divides its width.
    pub heads: Vec<usize>,
    /// Side of a window in tokens, `M`.
    pub window: usize,
    /// Window side of each stage in pre-training, by which offsets are divided; 0, or an empty list, for the current
    /// side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pretrained_window_size: Vec<usize>,
    /// Hidden width of the MLP as a multiple of the width.
    pub mlp_ratio: f64,
    /// Whether queries and values have a bias (keys never do).
    pub qkv_bias: bool,
    /// Whether the patch embedding ends with a layer norm.
    pub patch_norm: bool,
    /// Whether learned absolute position embeddings are added to the tokens.
    pub absolute_positions: bool,
    /// Number of blocks of a stage after which the main branch has an extra norm, again and again; 0 for none.
    pub extra_norm_every: usize,
    /// `ε` of the layer norms of blocks and of the last one, added to the variance; those of patch embedding and merging
    /// keep PyTorch's, as in huggingface/transformers, `models/swin/modeling_swin.py`.
    #[serde(default = "norm_eps", skip_serializing_if = "is_norm_eps", serialize_with = "crate::decimals::one")]
    pub norm_eps: f32,
    /// Drop-path rate of the last block; it rises linearly from 0 over the blocks.
    #[serde(serialize_with = "crate::decimals::one")]
    pub drop_path: f32,
    /// Initialization of the weights of linear layers.
    #[serde(default)]
    pub init: WeightInit,
}

/// The configuration of a Swin Transformer, V1 or V2.
#[derive(Clone, Debug)]
pub(in crate::encoders) struct Design {
    pub(super) sizes: SwinConfig,
    pub(super) version: Version,
}

/// What differs between the versions.
#[derive(Clone, Debug)]
pub(super) enum Version {
    /// V1: pre-norm, scaled dot-product attention, a learned relative position bias table per block.
    One,
    /// V2: post-norm, scaled cosine attention, log-spaced continuous position bias.
    Two { pretrained_window_size: Vec<usize>, extra_norm_every: usize },
}

impl SwinConfig {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key.
    pub fn check(&self) -> Result<()> {
        for (key, value, most) in [
            ("encoder.patch_px", self.patch_px, MAX_PATCH_PX),
            ("encoder.width", self.width, MAX_WIDTH),
            ("encoder.window", self.window, MAX_WINDOW),
        ] {
            size(key, value, most)?;
        }
        let depth = self.depths.iter().fold(0usize, |sum, depth| sum.saturating_add(*depth));
        if !(1..=MAX_STAGES).contains(&self.depths.len()) || self.depths.contains(&0) || depth > MAX_DEPTH {
            let expected = format!("expected 1 to {MAX_STAGES} numbers, each at least 1, at most {MAX_DEPTH} in all");
            return Err(wrong("encoder.depths", format!("{:?}", self.depths), expected, None));
        }
        let divides = |(stage, heads): (usize, &usize)| *heads > 0 && (self.width << stage).is_multiple_of(*heads);
        if self.heads.len() != self.depths.len() || !self.heads.iter().enumerate().all(divides) {
            let widths: Vec<usize> = (0..self.depths.len()).map(|stage| self.width << stage).collect();
            let expected = format!("expected one number per stage that divides its width, {widths:?}");
            return Err(wrong("encoder.heads", format!("{:?}", self.heads), expected, None));
        }
        share_above_zero("encoder.norm_eps", self.norm_eps as f64)?;
        within("encoder.mlp_ratio", self.mlp_ratio, 1.0 / self.width as f64, 64.0)?;
        within("encoder.drop_path", self.drop_path as f64, 0.0, MAX_DROP_PATH as f64)
    }

    /// Stride of the features in pixels: each stage after the first halves the grid.
    pub fn stride_px(&self) -> usize {
        self.patch_px << (self.depths.len() - 1)
    }

    pub(in crate::encoders) fn design(&self) -> Design {
        Design { sizes: self.clone(), version: Version::One }
    }
}

impl SwinV2Config {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key.
    pub fn check(&self) -> Result<()> {
        self.sizes().check()?;
        let pretrained = &self.pretrained_window_size;
        // offsets are divided by the side minus 1
        let is_side = |side: &usize| *side == 0 || (2..=MAX_WINDOW).contains(side);
        if !(pretrained.is_empty() || pretrained.len() == self.depths.len()) || !pretrained.iter().all(is_side) {
            let expected = format!(
                "expected one side per stage, {} in all, each 0 or 2 to {MAX_WINDOW}, or an empty list",
                self.depths.len()
            );
            return Err(wrong("encoder.pretrained_window_size", format!("{pretrained:?}"), expected, None));
        }
        Ok(())
    }

    /// Says so if offsets within windows are divided by the sides of these windows, and weights were `trained` with others. Who
    /// states `pretrained_window_size` knows.
    pub(in crate::encoders) fn other_positions(&self, trained: &Self) -> Option<String> {
        let (then, stated) = (trained.window, &trained.pretrained_window_size);
        if !self.pretrained_window_size.is_empty() || (then == self.window && stated.is_empty()) {
            return None;
        }
        Some(match stated.is_empty() {
            true => format!(
                "its windows had {then} × {then} tokens, by which offsets were divided, and now are by {}: \
                 `encoder.pretrained_window_size` states the windows of pre-training by stage",
                self.window
            ),
            false => format!(
                "its offsets were divided by the windows of its own pre-training: \
                 `--set 'encoder.pretrained_window_size={stated:?}'` keeps that"
            ),
        })
    }

    /// Stride of the features in pixels: each stage after the first halves the grid.
    pub fn stride_px(&self) -> usize {
        self.sizes().stride_px()
    }

    pub(in crate::encoders) fn design(&self) -> Design {
        let version = Version::Two {
            pretrained_window_size: self.pretrained_window_size.clone(),
            extra_norm_every: self.extra_norm_every,
        };
        Design { sizes: self.sizes(), version }
    }

    pub(crate) fn sizes(&self) -> SwinConfig {
        SwinConfig {
            patch_px: self.patch_px,
            width: self.width,
            depths: self.depths.clone(),
            heads: self.heads.clone(),
            window: self.window,
            mlp_ratio: self.mlp_ratio,
            qkv_bias: self.qkv_bias,
            patch_norm: self.patch_norm,
            absolute_positions: self.absolute_positions,
            norm_eps: self.norm_eps,
            drop_path: self.drop_path,
            init: self.init,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::encoders::EncoderConfig;
    use crate::recipe::{FinetuneRecipe, resolve, resolve_as};

    #[track_caller]
    fn check_fails(recipe: &str, edit: &str, message: &str, hint: &str) {
        let error = resolve(recipe, &[edit.to_owned()]).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
    }

    #[test]
    fn other_windows_than_those_of_pre_training_are_told_unless_they_are_stated() {
        let with = |edits: &[&str]| {
            let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
            match resolve("pretrain-swinv2-t-192", &edits).unwrap().encoder {
                EncoderConfig::SwinV2(config) => config,
                other => panic!("{other:?}"),
            }
        };
        let stated = "encoder.pretrained_window_size=[6, 6, 6, 6]";
        let (plain, narrow) = (with(&[]), with(&["encoder.window=6"]));
        assert_eq!(plain.other_positions(&plain), None);
        assert_eq!(with(&[stated]).other_positions(&narrow), None);
        assert!(plain.other_positions(&narrow).unwrap().contains("had 6 × 6 tokens"));
        assert!(plain.other_positions(&with(&[stated])).unwrap().contains("=[6, 6, 6, 6]'` keeps that"));
        // as built-in fine-tuning does, whose last stage has smaller windows in pre-training
        let finetuned: FinetuneRecipe = resolve_as("finetune-swinv2-b-224", &[]).unwrap();
        let pretrained = resolve("pretrain-swinv2-b-192", &[]).unwrap();
        assert_eq!(finetuned.encoder.other_positions(&pretrained.encoder), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let v1 = "pretrain-swin-t-192";
        check_fails(v1, "encoder.heads=[3, 6, 12]", "`encoder.heads` is `[3, 6, 12]`", "");
        check_fails(v1, "encoder.heads=[5, 6, 12, 24]", "[96, 192, 384, 768]", "");
        check_fails(v1, "encoder.depths=[2, 0, 6, 2]", "`encoder.depths` is `[2, 0, 6, 2]`", "");
        check_fails(v1, "encoder.window=0", "`encoder.window` is `0`", "");
        check_fails(v1, "encoder.windows=6", "unknown key `encoder.windows`", "did you mean `encoder.window`?");
        check_fails(v1, "encoder.extra_norm_every=6", "unknown key `encoder.extra_norm_every`", "");
        let v2 = "pretrain-swinv2-t-192";
        check_fails(v2, "encoder.pretrained_window_size=[12, 6]", "`encoder.pretrained_window_size`", "");
        check_fails(v2, "encoder.pretrained_window_size=[12, 12, 12, 1]", "`encoder.pretrained_window_size`", "");
    }

    #[test]
    fn an_image_that_the_stride_does_not_divide_is_refused_with_the_nearest_that_fit() {
        let edits = ["mask.unit_px=16", "data.image_size=208"].map(str::to_owned);
        let error = resolve("pretrain-swin-t-192", &edits).unwrap_err();
        assert!(error.to_string().contains("encoder's stride of 32 px"), "{error}");
        assert_eq!(error.hint().unwrap(), "192 or 224 px would fit");
    }
}
