//! The mean and standard deviation that pixels are normalized with.

use crate::error::{Error, Result};
use crate::image::{Image, Pixels};
use crate::source::Source;

/// The mean and the standard deviation of every channel, for pixels in `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// What is subtracted, `[C]`.
    pub mean: Vec<f32>,
    /// What the difference is divided by, `[C]`.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Returns the values of ImageNet for RGB, from torchvision (`references/classification/presets.py`).
    #[must_use]
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// Returns the normalization that does not change the values of `channels` channels.
    #[must_use]
    pub fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// Measures up to `at_most` samples of `source`, evenly spaced; unreadable ones are left out.
    ///
    /// Every image has the same weight whatever its size is, because a network gets all images at one size. A standard
    /// deviation is at least [`MIN_STD`].
    ///
    /// # Errors
    ///
    /// [`Error::NoneReadable`] if no sample could be read.
    pub fn measure(source: &dyn Source, at_most: usize) -> Result<Self> {
        let tried = at_most.min(source.len());
        let mut first_failure = None;
        let mut moments = Moments::default();
        for i in 0..tried {
            match source.get(spaced(i, tried, source.len())) {
                Ok(sample) => moments.add(&Moments::of(&sample.image)),
                Err(error) => {
                    first_failure.get_or_insert(error.to_string());
                }
            }
        }
        moments.normalization().ok_or_else(|| {
            let first = first_failure.unwrap_or_else(|| "no image was tried".to_owned());
            Error::NoneReadable { tried, first }
        })
    }
}

/// The smallest standard deviation that is measured, about a quarter of one of 255 gray levels. With a smaller one the
/// noise of a channel that hardly varies would be amplified.
pub const MIN_STD: f64 = 1e-3;

/// Returns the `i`-th of `count` indices spread evenly over `0..len`.
fn spaced(i: usize, count: usize, len: usize) -> usize {
    (i as u128 * len as u128 / count as u128) as usize
}

/// The mean and the mean square of every channel, each summed over images.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    images: u32,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Returns those of one image.
    pub(crate) fn of(image: &Image) -> Self {
        let mut moments = Self { images: 1, sums: Vec::new(), squares: Vec::new() };
        let count = (image.height * image.width) as f64;
        let value = |index: usize| match &image.pixels {
            Pixels::U8(pixels) => f64::from(pixels[index]) / 255.0,
            Pixels::F32(pixels) => f64::from(pixels[index]),
        };
        for channel in 0..image.channels {
            let (mut sum, mut square) = (0.0, 0.0);
            for pixel in 0..image.height * image.width {
                let value = value(pixel * image.channels + channel);
                sum += value;
                square += value * value;
            }
            moments.sums.push(sum / count);
            moments.squares.push(square / count);
        }
        moments
    }

    /// Adds those of other images with as many channels.
    pub(crate) fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.sums.resize(other.sums.len(), 0.0);
        self.squares.resize(other.squares.len(), 0.0);
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| *sum += other);
        self.squares.iter_mut().zip(&other.squares).for_each(|(square, other)| *square += other);
    }

    /// Returns the mean and the standard deviation over all images; `None` if there are none.
    pub(crate) fn normalization(&self) -> Option<Normalization> {
        let images = (self.images > 0).then_some(f64::from(self.images))?;
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / images).collect();
        let std = self.squares.iter().zip(&mean).map(|(square, mean)| {
            let variance: f64 = square / images - mean * mean;
            variance.max(0.0).sqrt().max(MIN_STD) as f32
        });
        Some(Normalization { std: std.collect(), mean: mean.iter().map(|mean| *mean as f32).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaced_indices_cover_the_source() {
        let indices: Vec<usize> = (0..4).map(|i| spaced(i, 4, 10)).collect();
        assert_eq!(indices, [0, 2, 5, 7]);
        assert!((0..7).all(|i| spaced(i, 7, 7) == i));
    }
}
