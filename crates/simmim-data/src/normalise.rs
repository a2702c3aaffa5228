//! The mean and deviation that pixels are normalised by.

use crate::error::{Error, Result};
use crate::image::{Image, Pixels};
use crate::source::Source;

/// A mean and a deviation for every channel, of pixels in `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// What is subtracted, `[C]`.
    pub mean: Vec<f32>,
    /// What the difference is divided by, `[C]`.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// Returns ImageNet's values for RGB, as torchvision has them (`torchvision/transforms`,
    /// `references/classification/presets.py`).
    #[must_use]
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// Returns what leaves the values of `channels` channels as they are.
    #[must_use]
    pub fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// Measures `at_most` samples of `source`, evenly spaced; unreadable ones are left out.
    ///
    /// Every image counts the same, however large it is, because a network sees all of them at one
    /// size. A deviation is at least [`MIN_STD`].
    ///
    /// # Errors
    ///
    /// [`Error::NoneReadable`] if no sample could be read.
    pub fn measure(source: &dyn Source, at_most: usize) -> Result<Self> {
        let tried = at_most.min(source.len());
        let mut first_failure = None;
        let mut images = 0_u32;
        let (mut sums, mut squares) = (Vec::new(), Vec::new());
        for step in 0..tried {
            match source.get(spaced(step, tried, source.len())) {
                Ok(sample) => {
                    images += 1;
                    add(&sample.image, &mut sums, &mut squares);
                }
                Err(error) => {
                    first_failure.get_or_insert(error.to_string());
                }
            }
        }
        if images == 0 {
            let first = first_failure.unwrap_or_else(|| "no image was tried".to_owned());
            return Err(Error::NoneReadable { tried, first });
        }
        let images = f64::from(images);
        let mean: Vec<f64> = sums.iter().map(|sum| sum / images).collect();
        let std = squares.iter().zip(&mean).map(|(square, mean)| {
            let variance: f64 = square / images - mean * mean;
            variance.max(0.0).sqrt().max(MIN_STD) as f32
        });
        Ok(Self { std: std.collect(), mean: mean.iter().map(|mean| *mean as f32).collect() })
    }
}

/// The least deviation that is measured: a quarter of one of 255 grey levels, so that a channel
/// that hardly varies is not blown up into noise.
pub const MIN_STD: f64 = 1e-3;

/// The `step`-th of `steps` indices spread evenly over `0..len`.
fn spaced(step: usize, steps: usize, len: usize) -> usize {
    (step as u128 * len as u128 / steps as u128) as usize
}

/// Adds the mean of every channel, and of its square, to the sums over images.
fn add(image: &Image, sums: &mut Vec<f64>, squares: &mut Vec<f64>) {
    sums.resize(image.channels, 0.0);
    squares.resize(image.channels, 0.0);
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
        sums[channel] += sum / count;
        squares[channel] += square / count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaced_indices_cover_the_source() {
        let indices: Vec<usize> = (0..4).map(|step| spaced(step, 4, 10)).collect();
        assert_eq!(indices, [0, 2, 5, 7]);
        assert!((0..7).all(|step| spaced(step, 7, 7) == step));
    }
}
