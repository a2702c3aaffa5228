//! Turns an image into the normalized pixels that a network takes.

mod color_jitter;
mod crop;
mod fine_tuning;
mod operation;
mod randaugment;
mod random_erasing;
mod resize;

pub use self::color_jitter::ColorJitter;
pub use self::crop::{CenterCrop, RandomResizedCrop};
pub use self::fine_tuning::{Distortion, FineTuning};
pub use self::operation::Operation;
pub use self::randaugment::{AtMagnitude, OPERATIONS, RandAugment};
pub use self::random_erasing::{RandomErasing, Rectangle};
pub use self::resize::{Filter, Interpolation, Region, resize};

use crate::image::{Image, Pixels};
use crate::normalize::Normalization;
use crate::rng::{Rng, uniform};

/// Which region of an image is used and how it is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Augmentation {
    /// A random resized crop, which may be mirrored; for pre-training.
    RandomResizedCrop(RandomResizedCrop),
    /// A random resized crop, which may also be distorted and partly erased; for supervised training.
    FineTuning(FineTuning),
    /// The largest center crop with the shape of the output; not random.
    Center,
    /// A center crop that leaves out the borders of the image; not random.
    CenterCrop(CenterCrop),
}

/// Crops, resizes and normalizes an image, and separates its channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// H, the height of the output.
    pub height: usize,
    /// W, the width of the output.
    pub width: usize,
    /// Which region of the image is used and how it is changed.
    pub augmentation: Augmentation,
    /// The mean and standard deviation of the normalization; their length is C.
    pub normalization: Normalization,
}

impl Transform {
    /// Returns the number of values of one output, C·H·W.
    #[must_use]
    pub fn values(&self) -> usize {
        self.normalization.mean.len() * self.height * self.width
    }

    /// Applies the augmentation and the normalization to `image`, and writes the result to `out`.
    ///
    /// Bytes are rounded to bytes after a resize, as in Pillow; floats are not rounded.
    ///
    /// # Shapes
    ///
    /// `image`: any size, C channels; `out`: `[C, H, W]`.
    ///
    /// # Panics
    ///
    /// Panics if `image` does not have the channels of the normalization, or `out` does not have this shape.
    pub fn apply(&self, image: &Image, rng: &mut Rng, out: &mut [f32]) {
        let (channels, values) = (self.normalization.mean.len(), self.values());
        assert_eq!(image.channels, channels, "channels of the image and of the normalization");
        assert_eq!(out.len(), values, "values of [{channels}, {}, {}]", self.height, self.width);
        let (height, width) = (self.height, self.width);
        match &self.augmentation {
            Augmentation::RandomResizedCrop(crop) => {
                let region = crop.draw(image.height, image.width, rng);
                let is_mirrored = uniform(rng) < crop.hflip;
                self.write(&resize(image, region, height, width, Filter::Bilinear), is_mirrored, out);
            }
            Augmentation::FineTuning(tuning) => {
                let region = tuning.crop.draw(image.height, image.width, rng);
                let is_mirrored = uniform(rng) < tuning.crop.hflip;
                let mut image = resize(image, region, height, width, tuning.interpolation.filter(rng));
                if is_mirrored {
                    image.mirror();
                }
                tuning.distortion.apply(&mut image, tuning.interpolation, &self.normalization.mean, rng);
                self.write(&image, false, out);
                if let Some(erasing) = tuning.erasing {
                    erasing.apply(out, height, width, rng);
                }
            }
            Augmentation::Center => {
                let region = Region::center(image.height, image.width, height, width);
                self.write(&resize(image, region, height, width, Filter::Bilinear), false, out);
            }
            Augmentation::CenterCrop(crop) => {
                let region = crop.region(image.height, image.width, height, width);
                self.write(&resize(image, region, height, width, crop.filter), false, out);
            }
        }
    }

    /// Writes the normalized planes of an image that has the size of the output.
    fn write(&self, image: &Image, is_mirrored: bool, out: &mut [f32]) {
        match &image.pixels {
            Pixels::U8(pixels) => self.write_planes(pixels, is_mirrored, |value| f32::from(value) / 255.0, out),
            Pixels::F32(pixels) => self.write_planes(pixels, is_mirrored, |value| value, out),
        }
    }

    fn write_planes<T: Copy>(&self, pixels: &[T], is_mirrored: bool, scaled: impl Fn(T) -> f32, out: &mut [f32]) {
        let (channels, width) = (self.normalization.mean.len(), self.width);
        let planes = out.chunks_exact_mut(self.height * width);
        let statistics = self.normalization.mean.iter().zip(&self.normalization.std);
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
