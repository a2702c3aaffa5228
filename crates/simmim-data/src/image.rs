//! A decoded image and the conversion of its channels.

use crate::error::{Error, Result};

/// An image of any number of channels, interleaved.
///
/// # Shapes
///
/// `pixels`: `[H, W, C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// C.
    pub channels: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// The values, row by row.
    pub pixels: Pixels,
}

/// The values of an image at the depth they were stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// 0 to 255.
    U8(Vec<u8>),
    /// 0 to 1 for 16-bit images; float arrays keep their own range.
    F32(Vec<f32>),
}

impl Image {
    /// Converts to `channels` channels, where 1 is grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    ///
    /// Alpha is dropped or added as opaque; it is never blended. Any other number of channels has
    /// no meaning that could be converted.
    ///
    /// # Errors
    ///
    /// [`Error::Channels`] with `name` if the image or `channels` is of another kind.
    ///
    /// # Panics
    ///
    /// Panics if `pixels` is not of the size that the fields say.
    pub fn with_channels(self, channels: usize, name: &str) -> Result<Self> {
        let (found, values) = (self.channels, self.height * self.width * self.channels);
        if found == channels {
            return Ok(self);
        }
        if !(1..=4).contains(&found) || !(1..=4).contains(&channels) {
            return Err(Error::Channels { name: name.to_owned(), found, wanted: channels });
        }
        let pixels = match self.pixels {
            Pixels::U8(pixels) => {
                assert_eq!(pixels.len(), values, "pixels of [{}, {}, {found}]", self.height, self.width);
                Pixels::U8(convert(&pixels, found, channels, u8::MAX, luma_u8))
            }
            Pixels::F32(pixels) => {
                assert_eq!(pixels.len(), values, "pixels of [{}, {}, {found}]", self.height, self.width);
                Pixels::F32(convert(&pixels, found, channels, 1.0, luma_f32))
            }
        };
        Ok(Self { channels, pixels, ..self })
    }

    /// Swaps left and right.
    pub fn mirror(&mut self) {
        match &mut self.pixels {
            Pixels::U8(pixels) => mirror(pixels, self.width, self.channels),
            Pixels::F32(pixels) => mirror(pixels, self.width, self.channels),
        }
    }
}

fn mirror<T>(pixels: &mut [T], width: usize, channels: usize) {
    for row in pixels.chunks_exact_mut(width * channels) {
        row.reverse();
        // the channels of a pixel back into their order
        row.chunks_exact_mut(channels).for_each(<[T]>::reverse);
    }
}

fn convert<T: Copy>(pixels: &[T], found: usize, wanted: usize, opaque: T, luma: fn(T, T, T) -> T) -> Vec<T> {
    let mut converted = Vec::with_capacity(pixels.len() / found * wanted);
    for pixel in pixels.chunks_exact(found) {
        let (red, green, blue, alpha) = match *pixel {
            [grey] => (grey, grey, grey, opaque),
            [grey, alpha] => (grey, grey, grey, alpha),
            [red, green, blue] => (red, green, blue, opaque),
            [red, green, blue, alpha] => (red, green, blue, alpha),
            ref other => unreachable!("{} channels were refused before", other.len()),
        };
        let grey = || if found < 3 { red } else { luma(red, green, blue) };
        match wanted {
            1 => converted.push(grey()),
            2 => converted.extend([grey(), alpha]),
            3 => converted.extend([red, green, blue]),
            4 => converted.extend([red, green, blue, alpha]),
            other => unreachable!("{other} channels were refused before"),
        }
    }
    converted
}

/// ITU-R 601-2 luma in 16-bit fixed point, as Pillow's `convert("L")` (`libImaging/Convert.c`).
pub(crate) fn luma_u8(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

/// ITU-R 601-2 luma, the same weights as [`luma_u8`].
pub(crate) fn luma_f32(red: f32, green: f32, blue: f32) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: usize, pixels: &[u8], wanted: usize, expected: &[u8]) {
        let image =
            Image { channels: found, height: 1, width: pixels.len() / found, pixels: Pixels::U8(pixels.to_vec()) };
        let converted = image.with_channels(wanted, "test").unwrap();
        assert_eq!(converted.pixels, Pixels::U8(expected.to_vec()), "{found} to {wanted}");
        assert_eq!(converted.channels, wanted);
    }

    #[test]
    fn channels_are_converted() {
        check(1, &[7, 9], 1, &[7, 9]);
        check(1, &[7, 9], 2, &[7, 255, 9, 255]);
        check(1, &[7, 9], 3, &[7, 7, 7, 9, 9, 9]);
        check(1, &[7], 4, &[7, 7, 7, 255]);
        check(2, &[7, 100], 1, &[7]);
        check(2, &[7, 100], 4, &[7, 7, 7, 100]);
        check(3, &[255, 0, 0, 0, 255, 0, 0, 0, 255], 1, &[76, 150, 29]);
        check(3, &[255, 255, 255], 2, &[255, 255]);
        check(4, &[1, 2, 3, 4], 3, &[1, 2, 3]);
        check(4, &[255, 255, 255, 4], 2, &[255, 4]);
        check(5, &[1, 2, 3, 4, 5], 5, &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_channel_mismatch_names_both_numbers() {
        for (found, wanted) in [(5, 3), (3, 5)] {
            let image = Image { channels: found, height: 1, width: 1, pixels: Pixels::U8(vec![0; found]) };
            let message = image.with_channels(wanted, "x.npy").unwrap_err().to_string();
            assert_eq!(message, format!("`x.npy` has {found} channels where {wanted} are wanted"));
        }
    }

    #[test]
    fn mirrored_pixels_keep_their_channels_apart() {
        let mut image = Image { channels: 2, height: 2, width: 3, pixels: Pixels::U8((0..12).collect()) };
        image.mirror();
        assert_eq!(image.pixels, Pixels::U8(vec![4, 5, 2, 3, 0, 1, 10, 11, 8, 9, 6, 7]));
    }

    #[test]
    fn float_luma_keeps_white_white() {
        let image = Image { channels: 3, height: 1, width: 1, pixels: Pixels::F32(vec![1.0; 3]) };
        let Pixels::F32(grey) = image.with_channels(1, "white").unwrap().pixels else { panic!("floats became bytes") };
        // three rounded products and two rounded sums
        assert!((grey[0] - 1.0).abs() < 3.0 * f32::EPSILON, "{grey:?}");
    }
}
