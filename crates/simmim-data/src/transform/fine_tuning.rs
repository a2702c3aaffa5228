//! The augmentation of fine-tuning: crop, mirror, distort, normalize, erase.

use super::color_jitter::ColorJitter;
use super::crop::RandomResizedCrop;
use super::randaugment::RandAugment;
use super::random_erasing::RandomErasing;
use super::resize::Interpolation;
use crate::image::Image;
use crate::rng::Rng;

/// What happens to the colors and shapes of a crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distortion {
    /// Nothing.
    None,
    /// A few of fifteen random operations.
    RandAugment(RandAugment),
    /// Random changes of brightness, contrast and saturation.
    ColorJitter(ColorJitter),
}

/// The augmentation of supervised training. In this order: a random resized crop, which may be mirrored, is distorted
/// and normalized, and a rectangle of it is erased.
///
/// The order is that of timm 0.4.12 (`timm/data/transforms_factory.py`). The defaults are those of SimMIM's fine-tuning
/// (public repository, `config.py`, `data/data_finetune.py`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FineTuning {
    /// The random resized crop, with the probability that it is mirrored.
    pub crop: RandomResizedCrop,
    /// The filter with which the crop is resized and operations that move pixels read values between pixels.
    pub interpolation: Interpolation,
    /// What happens to the colors and shapes of the crop.
    pub distortion: Distortion,
    /// The rectangle of noise, if there is one.
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
    /// Distorts `image`; pixels that come from outside of it get the color `mean`, `[C]`, for pixels in `[0, 1]`.
    pub(super) fn apply(&self, image: &mut Image, interpolation: Interpolation, mean: &[f32], rng: &mut Rng) {
        match self {
            Self::None => {}
            Self::RandAugment(operations) => operations.apply(image, interpolation, mean, rng),
            Self::ColorJitter(jitter) => jitter.apply(image, rng),
        }
    }
}
