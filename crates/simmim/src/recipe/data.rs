//! `[data]`: images, their crop and how they are normalised.

use serde::{Deserialize, Serialize};

/// Images and their augmentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Side of the square input, or `[height, width]`, in pixels.
    pub image_size: ImageSize,
    /// Channels: 1 grey, 3 colour, 4 with alpha, any number from arrays.
    pub channels: usize,
    /// Mean and deviation that pixels are normalised with.
    pub normalization: NormalizationKind,
    /// Area of the random crop as a share of the image, `[low, high]`.
    pub crop_scale: (f64, f64),
    /// Aspect ratio (width / height) of the random crop, `[low, high]`.
    pub crop_ratio: (f64, f64),
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Share of unreadable images above which a run stops.
    pub max_skipped: f64,
}

/// Input size: `192` or `[192, 256]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageSize {
    /// A square.
    Square(usize),
    /// Height and width.
    HeightWidth(usize, usize),
}

impl ImageSize {
    /// Height and width in pixels.
    pub fn height_and_width(self) -> (usize, usize) {
        match self {
            ImageSize::Square(side) => (side, side),
            ImageSize::HeightWidth(height, width) => (height, width),
        }
    }
}

/// Where mean and deviation come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizationKind {
    /// The statistics of ImageNet; three channels only.
    Imagenet,
    /// Measured on the training images before the first step.
    Measured,
    /// Not at all: values stay as they are, 0–1 of images of 8 and 16 bits.
    None,
}
