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

use std::array::from_fn;

use crate::encoded::Encoded;
use crate::error::Result;
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
    /// The whole image, which does not keep its shape; not random.
    Whole(Filter),
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
        let region = self.region(image.height, image.width, rng);
        self.apply_to(image, region, rng, out);
    }

    /// Decodes a picture and does with it what [`apply`](Self::apply) does.
    ///
    /// A JPEG of which a random crop has at least 2, 4 or 8 times the height and width of the output is decoded at that
    /// part of its size, and the borders of the crop are rounded to whole pixels of what is decoded. Crops that are not
    /// random, which are used for evaluation, are cut from the whole picture.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](crate::decode()); the content of `out` does not change.
    ///
    /// # Panics
    ///
    /// Panics as [`apply`](Self::apply) does.
    pub fn decode(&self, encoded: Encoded, rng: &mut Rng, out: &mut [f32]) -> Result<()> {
        let mut of_whole = None;
        let image = encoded.decode_reduced(&mut |height, width| {
            let region = self.region(height, width, rng);
            of_whole = Some((region, [height, width]));
            region.reduction(self.height, self.width)
        })?;
        let region = match of_whole {
            Some((region, size)) => region.scaled(size, [image.height, image.width]),
            None => self.region(image.height, image.width, rng),
        };
        self.apply_to(&image, region, rng, out);
        Ok(())
    }

    /// Chooses the region of an image of this height and width that is used.
    fn region(&self, height: usize, width: usize, rng: &mut Rng) -> Region {
        match &self.augmentation {
            Augmentation::RandomResizedCrop(crop) => crop.draw(height, width, rng),
            Augmentation::FineTuning(tuning) => tuning.crop.draw(height, width, rng),
            Augmentation::Center => Region::center(height, width, self.height, self.width),
            Augmentation::CenterCrop(crop) => crop.region(height, width, self.height, self.width),
            Augmentation::Whole(_) => {
                Region::Window { top: 0.0, left: 0.0, height: height as f64, width: width as f64 }
            }
        }
    }

    fn apply_to(&self, image: &Image, region: Region, rng: &mut Rng, out: &mut [f32]) {
        let (channels, values) = (self.normalization.mean.len(), self.values());
        assert_eq!(image.channels, channels, "channels of the image and of the normalization");
        assert_eq!(out.len(), values, "values of [{channels}, {}, {}]", self.height, self.width);
        let (height, width) = (self.height, self.width);
        match &self.augmentation {
            Augmentation::RandomResizedCrop(crop) => {
                let is_mirrored = uniform(rng) < crop.hflip;
                self.write(&resize(image, region, height, width, Filter::Bilinear), is_mirrored, out);
            }
            Augmentation::FineTuning(tuning) => {
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
                self.write(&resize(image, region, height, width, Filter::Bilinear), false, out);
            }
            Augmentation::CenterCrop(crop) => {
                self.write(&resize(image, region, height, width, crop.filter), false, out);
            }
            Augmentation::Whole(filter) => {
                self.write(&resize(image, region, height, width, *filter), false, out);
            }
        }
    }

    /// Writes the normalized planes of an image that has the size of the output.
    fn write(&self, image: &Image, is_mirrored: bool, out: &mut [f32]) {
        let Normalization { mean, std } = &self.normalization;
        match &image.pixels {
            Pixels::U8(pixels) => {
                let of_channel = |(mean, std)| from_fn(|value| (value as f32 / 255.0 - mean) / std);
                let normalized: Vec<[f32; 256]> = mean.iter().zip(std).map(of_channel).collect();
                if let [red, green, blue] = normalized.as_slice() {
                    self.write_colors(pixels, [red, green, blue], out);
                } else {
                    self.write_planes(pixels, |channel, value| normalized[channel][usize::from(value)], out);
                }
            }
            Pixels::F32(pixels) => {
                self.write_planes(pixels, |channel, value| (value - mean[channel]) / std[channel], out);
            }
        }
        if is_mirrored {
            out.chunks_exact_mut(self.width).for_each(<[f32]>::reverse);
        }
    }

    fn write_planes<T: Copy>(&self, pixels: &[T], normalized: impl Fn(usize, T) -> f32, out: &mut [f32]) {
        for (channel, plane) in out.chunks_exact_mut(self.height * self.width).enumerate() {
            let values = pixels.iter().skip(channel).step_by(self.normalization.mean.len());
            plane.iter_mut().zip(values).for_each(|(out, value)| *out = normalized(channel, *value));
        }
    }

    /// Does what [`write_planes`](Self::write_planes) does for the most common pixels, in half of the time.
    fn write_colors(&self, pixels: &[u8], normalized: [&[f32; 256]; 3], out: &mut [f32]) {
        let (pixels, _) = pixels.as_chunks::<3>();
        let (red, rest) = out.split_at_mut(self.height * self.width);
        let (green, blue) = rest.split_at_mut(self.height * self.width);
        for (((pixel, red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
            let [r, g, b] = pixel.map(usize::from);
            (*red, *green, *blue) = (normalized[0][r], normalized[1][g], normalized[2][b]);
        }
    }
}
