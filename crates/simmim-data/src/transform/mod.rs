//! An image to the normalised pixels that a network takes.

mod crop;
mod resize;

pub use self::crop::{RandomResizedCrop, Region};

use crate::image::{Image, Pixels};
use crate::normalise::Normalisation;
use crate::rng::{Rng, uniform};

/// How much of an image is used, and where from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Augmentation {
    /// A random part of the image, mirrored or not.
    RandomResizedCrop(RandomResizedCrop),
    /// The middle, of the largest part that has the wanted shape; nothing is random.
    Centre,
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
        let (region, is_mirrored) = match self.augmentation {
            Augmentation::RandomResizedCrop(crop) => {
                let region = crop.draw(image.height, image.width, rng);
                (region, uniform(rng) < crop.hflip)
            }
            Augmentation::Centre => (Region::centre(image.height, image.width, self.height, self.width), false),
        };
        match resize::resize(image, region, self.height, self.width) {
            Pixels::U8(pixels) => {
                self.write(&pixels, is_mirrored, |value| f32::from(value) / 255.0, out);
            }
            Pixels::F32(pixels) => self.write(&pixels, is_mirrored, |value| value, out),
        }
    }

    /// From interleaved pixels to normalised planes.
    fn write<T: Copy>(&self, pixels: &[T], is_mirrored: bool, scaled: impl Fn(T) -> f32, out: &mut [f32]) {
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
