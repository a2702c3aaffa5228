//! Colours between the network's numbers and an image's.

use super::Palette;
use simmim_data::Normalisation;

/// What a target must know of the training images beside the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Colours {
    /// What pixels were normalised with.
    pub normalisation: Normalisation,
    /// The colours of `colour-clusters`.
    pub palette: Option<Palette>,
}

impl Colours {
    /// Those of images of which nothing is known, which is enough to know a model's shapes.
    pub fn unknown(channels: usize) -> Self {
        Self { normalisation: Normalisation { mean: vec![0.0; channels], std: vec![1.0; channels] }, palette: None }
    }

    /// A normalised value of a channel as a share of white, 0 to 1.
    pub fn share(&self, channel: usize, normalised: f32) -> f32 {
        let Normalisation { mean, std } = &self.normalisation;
        (normalised * std[channel] + mean[channel]).clamp(0.0, 1.0)
    }

    /// A share of white as a normalised value of a channel.
    pub fn normalised(&self, channel: usize, share: f32) -> f32 {
        let Normalisation { mean, std } = &self.normalisation;
        (share - mean[channel]) / std[channel]
    }
}
