//! What supervised training does to an image: crop, mirror, distort, normalise, erase.

use super::colour_jitter::ColourJitter;
use super::crop::RandomResizedCrop;
use super::randaugment::RandAugment;
use super::random_erasing::RandomErasing;
use crate::image::Image;
use crate::rng::{Rng, below};

/// How a value between pixels is made of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// By a triangle, of two in each direction where nothing shrinks.
    Bilinear,
    /// By a cubic, of four.
    Bicubic,
}

/// Which filter a random transform uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Always the bilinear one.
    Bilinear,
    /// Always the bicubic one.
    Bicubic,
    /// One of the two, drawn anew for the crop and for every operation.
    Random,
}

impl Interpolation {
    /// Draws a filter; only a random one takes from `rng`.
    #[must_use]
    pub fn filter(self, rng: &mut Rng) -> Filter {
        match self {
            Self::Bilinear => Filter::Bilinear,
            Self::Bicubic => Filter::Bicubic,
            Self::Random => [Filter::Bilinear, Filter::Bicubic][below(rng, 2)],
        }
    }
}

/// What happens to the colours and shapes of a crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distortion {
    /// Nothing.
    None,
    /// A few of fifteen operations.
    RandAugment(RandAugment),
    /// Brightness, contrast and saturation.
    ColourJitter(ColourJitter),
}

/// The augmentation of supervised training, in this order: a random part of the image, mirrored or
/// not, distorted, normalised, a rectangle of it erased.
///
/// The order and every default are those of timm 0.4.12 (`timm/data/transforms_factory.py`) as
/// SimMIM fine-tunes with it (public repository, `config.py`, `data/data_finetune.py`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FineTuning {
    /// Which part of the image is used.
    pub crop: RandomResizedCrop,
    /// How the crop is resized, and how operations that move pixels read between them.
    pub interpolation: Interpolation,
    /// What happens to the crop.
    pub distortion: Distortion,
    /// The rectangle of noise, if any.
    pub erasing: Option<RandomErasing>,
}

impl Default for FineTuning {
    fn default() -> Self {
        Self {
            crop: RandomResizedCrop { scale: (0.08, 1.0), ..RandomResizedCrop::default() },
            interpolation: Interpolation::Bicubic,
            distortion: Distortion::RandAugment(RandAugment::default()),
            erasing: Some(RandomErasing::default()),
        }
    }
}

impl Distortion {
    /// Distorts `image`; pixels that come from outside take the colour `mean`, `[C]`, of pixels in
    /// `[0, 1]`.
    pub(super) fn apply(&self, image: &mut Image, interpolation: Interpolation, mean: &[f32], rng: &mut Rng) {
        match self {
            Self::None => {}
            Self::RandAugment(operations) => operations.apply(image, interpolation, mean, rng),
            Self::ColourJitter(jitter) => jitter.apply(image, rng),
        }
    }
}
