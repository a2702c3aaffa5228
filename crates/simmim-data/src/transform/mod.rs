//! An image to the normalised pixels that a network takes.

mod colour_jitter;
mod crop;
mod fine_tuning;
mod operation;
mod randaugment;
mod random_erasing;
mod resize;

pub use self::colour_jitter::ColourJitter;
pub use self::crop::{CentreCrop, RandomResizedCrop, Region};
pub use self::fine_tuning::{Distortion, Filter, FineTuning, Interpolation};
pub use self::operation::Operation;
pub use self::randaugment::{AtMagnitude, OPERATIONS, RandAugment};
pub use self::random_erasing::{RandomErasing, Rectangle};
pub use self::resize::resize;

use crate::image::{Image, Pixels};
use crate::normalise::Normalisation;
use crate::rng::{Rng, uniform};

/// How much of an image is used, where from, and how it is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Augmentation {
    /// A random part of the image, mirrored or not: what pre-training sees.
    RandomResizedCrop(RandomResizedCrop),
    /// A random part of the image, distorted and partly erased: what supervised training sees.
    FineTuning(FineTuning),
    /// The middle, of the largest part that has the wanted shape; nothing is random.
    Centre,
    /// The middle, of a smaller part than the largest; nothing is random.
    CentreCrop(CentreCrop),
}

/// The way from an image to normalised planes of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// Which part of the image is used.
    pub augmentation: Augmentation,
    /// What the values are normalised by; its length is C.
    pub normalisation: Normalisation,
}

impl Transform {
    /// Returns the number of values of one image, C·H·W.
    #[must_use]
    pub fn values(&self) -> usize {
        self.normalisation.mean.len() * self.height * self.width
    }

    /// Writes the part of `image` that the augmentation picks, resized and normalised, to `out`.
    ///
    /// Bytes are resized as bytes, with the rounding that has, as Pillow does; floats as floats.
    ///
    /// # Shapes
    ///
    /// `image`: any size, C channels; `out`: `[C, H, W]`.
    ///
    /// # Panics
    ///
    /// Panics if the channels of `image` are not those of the normalisation, or `out` is not of
    /// that shape.
    pub fn apply(&self, image: &Image, rng: &mut Rng, out: &mut [f32]) {
        let (channels, values) = (self.normalisation.mean.len(), self.values());
        assert_eq!(image.channels, channels, "channels of the image and of the normalisation");
        assert_eq!(out.len(), values, "values of [{channels}, {}, {}]", self.height, self.width);
        let (height, width) = (self.height, self.width);
        match &self.augmentation {
            Augmentation::RandomResizedCrop(crop) => {
                let region = crop.draw(image.height, image.width, rng);
                let is_mirrored = uniform(rng) < crop.hflip;
                self.write(&resize(image, region, height, width, Filter::Bilinear), is_mirrored, out);
            }
            Augmentation::FineTuning(steps) => {
                let region = steps.crop.draw(image.height, image.width, rng);
                let is_mirrored = uniform(rng) < steps.crop.hflip;
                let mut image = resize(image, region, height, width, steps.interpolation.filter(rng));
                if is_mirrored {
                    image.mirror();
                }
                steps.distortion.apply(&mut image, steps.interpolation, &self.normalisation.mean, rng);
                self.write(&image, false, out);
                if let Some(erasing) = steps.erasing {
                    erasing.apply(out, height, width, rng);
                }
            }
            Augmentation::Centre => {
                let region = Region::centre(image.height, image.width, height, width);
                self.write(&resize(image, region, height, width, Filter::Bilinear), false, out);
            }
            Augmentation::CentreCrop(crop) => {
                let region = crop.region(image.height, image.width, height, width);
                self.write(&resize(image, region, height, width, crop.filter), false, out);
            }
        }
    }

    /// From an image of the wanted size to normalised planes.
    fn write(&self, image: &Image, is_mirrored: bool, out: &mut [f32]) {
        match &image.pixels {
            Pixels::U8(pixels) => self.write_planes(pixels, is_mirrored, |value| f32::from(value) / 255.0, out),
            Pixels::F32(pixels) => self.write_planes(pixels, is_mirrored, |value| value, out),
        }
    }

    fn write_planes<T: Copy>(&self, pixels: &[T], is_mirrored: bool, scaled: impl Fn(T) -> f32, out: &mut [f32]) {
        let (channels, width) = (self.normalisation.mean.len(), self.width);
        let planes = out.chunks_exact_mut(self.height * width);
        let statistics = self.normalisation.mean.iter().zip(&self.normalisation.std);
        for (channel, (plane, (mean, std))) in planes.zip(statistics).enumerate() {
            let rows = pixels.chunks_exact(width * channels).zip(plane.chunks_exact_mut(width));
            for (pixels, row) in rows {
                let values = pixels.iter().skip(channel).step_by(channels);
                for (out, value) in row.iter_mut().zip(values) {
                    *out = (scaled(*value) - mean) / std;
                }
                if is_mirrored {
                    row.reverse();
                }
            }
        }
    }
}
