//! `[target]`: what is predicted.

use super::ImageSize;
use serde::{Deserialize, Serialize};

/// What is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecipe {
    /// What it is.
    pub kind: TargetKind,
    /// Positions along the image's side that are predicted, each the mean of its pixels; absent: every
    /// pixel. Of `hog`, histograms along the side; absent: of 8 px, or one per feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<ImageSize>,
    /// What `normalized-pixels` takes mean and deviation over.
    #[serde(default)]
    pub normalize: NormalizeBy,
    /// Side of that window; odd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_px: Option<usize>,
    /// Bins of a channel of `colour-bins`.
    #[serde(default = "bins")]
    pub bins: usize,
    /// Colours of `colour-clusters`.
    #[serde(default = "clusters")]
    pub clusters: usize,
    /// The file that these colours are in; absent: they are found in the training images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<String>,
    /// Weights file or run folder of the discrete VAE whose `tokens` are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

impl TargetRecipe {
    /// A target of this kind, everything else as if left unsaid.
    pub fn of(kind: TargetKind) -> Self {
        Self {
            kind,
            resolution: None,
            normalize: NormalizeBy::Window,
            window_px: None,
            bins: bins(),
            clusters: clusters(),
            palette: None,
            tokenizer: None,
        }
    }
}

/// Kind of prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Pixels, normalised as the input is.
    Pixels,
    /// Pixels at full resolution, normalised once more by what is around them.
    NormalizedPixels,
    /// Which bin of brightness each channel lies in.
    ColourBins,
    /// Which colour of a palette is nearest.
    ColourClusters,
    /// The mean colour of a feature's cell in three bits a channel.
    MeanColour,
    /// Histograms of oriented gradients.
    Hog,
    /// Which word of a discrete VAE's vocabulary each square is.
    Tokens,
}

/// What pixels are normalised by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizeBy {
    /// The window around each, channel by channel: SwinV2.
    #[default]
    Window,
    /// The cell that a feature predicts, all channels together: MAE.
    Patch,
}

/// arXiv:2111.09886, ablation of prediction targets: the smaller of its two numbers of bins.
fn bins() -> usize {
    8
}

/// Chen et al., "Generative Pretraining from Pixels", ICML 2020.
fn clusters() -> usize {
    512
}
