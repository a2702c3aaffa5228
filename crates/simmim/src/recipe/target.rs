//! `[target]`: the prediction target.

use super::ImageSize;
use serde::{Deserialize, Serialize};

/// The prediction target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecipe {
    /// Its kind.
    pub kind: TargetKind,
    /// Resolution of the target: number of predictions along the image's side, or `[rows, columns]`. Absent: one per
    /// pixel for `pixels`, `color-bins` and `color-clusters`; one per 8 px for `hog` where 8 divides the encoder's
    /// stride; else one per feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<ImageSize>,
    /// Region over which `normalized-pixels` computes mean and standard deviation.
    #[serde(default)]
    pub normalize: NormalizeBy,
    /// Side in pixels of the window of `normalize = "window"`; odd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_px: Option<usize>,
    /// Number of bins per channel of `color-bins`.
    #[serde(default = "bins")]
    pub bins: usize,
    /// Number of colors in the palette of `color-clusters`.
    #[serde(default = "clusters")]
    pub clusters: usize,
    /// File with that palette; absent: it is computed from the training images by k-means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<String>,
    /// Weights file or run folder of the discrete VAE whose `tokens` are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

impl TargetRecipe {
    /// A target of this kind with the default of every other key.
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

/// Kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Pixels, normalized like the input.
    Pixels,
    /// Pixels at full resolution, normalized again by their window or patch.
    NormalizedPixels,
    /// The bin that the value of each channel falls into (color discretization).
    ColorBins,
    /// The nearest color of a palette.
    ColorClusters,
    /// The mean color of the square that a feature covers, with three bits per channel.
    MeanColor,
    /// Histograms of oriented gradients.
    Hog,
    /// Tokens of a discrete VAE.
    Tokens,
}

/// Region that pixels are normalized by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizeBy {
    /// The window around each pixel, per channel (SwinV2, arXiv:2111.09883).
    #[default]
    Window,
    /// The square that one feature predicts, all channels together (MAE, arXiv:2111.06377).
    Patch,
}

/// The smaller of the two numbers of bins in SimMIM's ablation of prediction targets (arXiv:2111.09886).
fn bins() -> usize {
    8
}

/// iGPT's number of color clusters (Chen et al., "Generative Pretraining from Pixels", ICML 2020).
fn clusters() -> usize {
    512
}
