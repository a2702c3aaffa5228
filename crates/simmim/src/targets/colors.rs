//! Conversion between normalized values and pixel values.

use super::Palette;
use simmim_data::Normalization;

/// What a target needs to know about the training images: their normalization and palette.
#[derive(Clone, Debug, PartialEq)]
pub struct Colors {
    /// Mean and standard deviation that pixels are normalized with.
    pub normalization: Normalization,
    /// The palette of `color-clusters`.
    pub palette: Option<Palette>,
}

impl Colors {
    /// A placeholder, for models that are built only for their shapes.
    pub fn unknown(channels: usize) -> Self {
        Self { normalization: Normalization { mean: vec![0.0; channels], std: vec![1.0; channels] }, palette: None }
    }

    /// Converts a normalized value of a channel to a pixel value from 0 to 1.
    pub fn share(&self, channel: usize, normalized: f32) -> f32 {
        let Normalization { mean, std } = &self.normalization;
        (normalized * std[channel] + mean[channel]).clamp(0.0, 1.0)
    }

    /// Converts a pixel value from 0 to 1 to a normalized value of a channel.
    pub fn normalized(&self, channel: usize, share: f32) -> f32 {
        let Normalization { mean, std } = &self.normalization;
        (share - mean[channel]) / std[channel]
    }
}
