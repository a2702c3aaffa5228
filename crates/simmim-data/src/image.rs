//! A decoded image and the conversion of its channels.

use std::fmt;

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

/// The values of an image, as bytes or as floats depending on the depth they are stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// 0 to 255.
    U8(Vec<u8>),
    /// 0 to 1 for 16-bit images; float arrays keep the range they have.
    F32(Vec<f32>),
}

/// A part of an image, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rectangle {
    /// The first row.
    pub(crate) top: usize,
    /// The first column.
    pub(crate) left: usize,
    /// The number of rows.
    pub(crate) height: usize,
    /// The number of columns.
    pub(crate) width: usize,
}

/// How an image is stored, before its channels and values are converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// The number of channels; 1 is gray, 2 gray and alpha, 3 color, 4 color and alpha. A palette and inks count as colors.
    pub channels: usize,
    /// What a value is.
    pub depth: Depth,
}

/// What a value of a stored image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// A whole number of up to 8 bits.
    Bits8,
    /// A whole number of 16 bits.
    Bits16,
    /// A floating-point number.
    Float,
}

impl Stored {
    /// Whether one of the channels is alpha.
    #[must_use]
    pub fn has_alpha(self) -> bool {
        matches!(self.channels, 2 | 4)
    }
}

impl Depth {
    /// Returns its name, `8 bit`, `16 bit` or `float`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bits8 => "8 bit",
            Self::Bits16 => "16 bit",
            Self::Float => "float",
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.channels {
            1 => write!(out, "gray")?,
            2 => write!(out, "gray with alpha")?,
            3 => write!(out, "color")?,
            4 => write!(out, "color with alpha")?,
            other => write!(out, "{other} channels")?,
        }
        write!(out, ", {}", self.depth.name())
    }
}

impl Image {
    /// Returns a part of the image.
    ///
    /// # Panics
    ///
    /// Panics if the part does not lie within the image.
    pub(crate) fn cut(&self, part: Rectangle) -> Self {
        fn cut<T: Copy>(pixels: &[T], row: usize, channels: usize, part: Rectangle) -> Vec<T> {
            let rows = pixels.chunks_exact(row).skip(part.top).take(part.height);
            rows.flat_map(|row| &row[part.left * channels..][..part.width * channels]).copied().collect()
        }
        let Self { channels, width, .. } = *self;
        assert!(part.top + part.height <= self.height, "the part ends below the image");
        let pixels = match &self.pixels {
            Pixels::U8(pixels) => Pixels::U8(cut(pixels, width * channels, channels, part)),
            Pixels::F32(pixels) => Pixels::F32(cut(pixels, width * channels, channels, part)),
        };
        Self { channels, height: part.height, width: part.width, pixels }
    }

    /// An image of zeros with the channels and the kind of values of this one, and another height and width.
    pub(crate) fn zeros_like(&self, [height, width]: [usize; 2]) -> Self {
        let values = height * width * self.channels;
        let pixels = match self.pixels {
            Pixels::U8(_) => Pixels::U8(vec![0; values]),
            Pixels::F32(_) => Pixels::F32(vec![0.0; values]),
        };
        Self { channels: self.channels, height, width, pixels }
    }

    /// Copies what `chunk`, whose upper left corner lies at row `top` and column `left` of a picture, has of a part of it to this
    /// image of that part. Both have the same channels and kind of values.
    pub(crate) fn paste(&mut self, chunk: &Self, [top, left]: [usize; 2], part: Rectangle) {
        fn copy<T: Copy>(
            from: &[T],
            from_width: usize,
            from_at: [usize; 2],
            to: &mut [T],
            to_width: usize,
            to_at: [usize; 2],
            size: [usize; 2],
        ) {
            for row in 0..size[0] {
                let from = &from[(from_at[0] + row) * from_width + from_at[1]..][..size[1]];
                to[(to_at[0] + row) * to_width + to_at[1]..][..size[1]].copy_from_slice(from);
            }
        }
        let channels = chunk.channels;
        let (first_row, first_column) = (top.max(part.top), left.max(part.left));
        let rows = (top + chunk.height).min(part.top + part.height).saturating_sub(first_row);
        let columns = (left + chunk.width).min(part.left + part.width).saturating_sub(first_column);
        let from = [first_row - top, (first_column - left) * channels];
        let to = [first_row - part.top, (first_column - part.left) * channels];
        let (from_width, to_width, size) = (chunk.width * channels, self.width * channels, [rows, columns * channels]);
        match (&chunk.pixels, &mut self.pixels) {
            (Pixels::U8(chunk), Pixels::U8(cut)) => copy(chunk, from_width, from, cut, to_width, to, size),
            (Pixels::F32(chunk), Pixels::F32(cut)) => copy(chunk, from_width, from, cut, to_width, to, size),
            (Pixels::U8(_), Pixels::F32(_)) | (Pixels::F32(_), Pixels::U8(_)) => {
                unreachable!("all chunks have one type")
            }
        }
    }

    /// Converts to `channels` channels, where 1 is gray, 2 gray and alpha, 3 RGB, 4 RGBA.
    ///
    /// Alpha is dropped or added as opaque; it is never blended. What other numbers of channels mean is not known, so
    /// they are not converted.
    ///
    /// # Errors
    ///
    /// [`Error::Channels`] with `name` if a conversion is needed and either number of channels is not 1 to 4.
    ///
    /// # Panics
    ///
    /// Panics if the length of `pixels` is not H·W·C.
    pub fn with_channels(self, channels: usize, name: &str) -> Result<Self> {
        let (actual, values) = (self.channels, self.height * self.width * self.channels);
        if actual == channels {
            return Ok(self);
        }
        if !(1..=4).contains(&actual) || !(1..=4).contains(&channels) {
            return Err(Error::Channels { name: name.to_owned(), actual, wanted: channels });
        }
        let pixels = match self.pixels {
            Pixels::U8(pixels) => {
                assert_eq!(pixels.len(), values, "pixels of [{}, {}, {actual}]", self.height, self.width);
                Pixels::U8(convert(&pixels, actual, channels, u8::MAX, luma_u8))
            }
            Pixels::F32(pixels) => {
                assert_eq!(pixels.len(), values, "pixels of [{}, {}, {actual}]", self.height, self.width);
                Pixels::F32(convert(&pixels, actual, channels, 1.0, luma_f32))
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
        // this has also reversed the channels within each pixel
        row.chunks_exact_mut(channels).for_each(<[T]>::reverse);
    }
}

/// Converts interleaved pixels of `actual` channels to `wanted` channels.
fn convert<T: Copy>(pixels: &[T], actual: usize, wanted: usize, opaque: T, luma: fn(T, T, T) -> T) -> Vec<T> {
    let mut converted = Vec::with_capacity(pixels.len() / actual * wanted);
    for pixel in pixels.chunks_exact(actual) {
        let (red, green, blue, alpha) = match *pixel {
            [gray] => (gray, gray, gray, opaque),
            [gray, alpha] => (gray, gray, gray, alpha),
            [red, green, blue] => (red, green, blue, opaque),
            [red, green, blue, alpha] => (red, green, blue, alpha),
            ref other => unreachable!("{} channels are refused before", other.len()),
        };
        let gray = || if actual < 3 { red } else { luma(red, green, blue) };
        match wanted {
            1 => converted.push(gray()),
            2 => converted.extend([gray(), alpha]),
            3 => converted.extend([red, green, blue]),
            4 => converted.extend([red, green, blue, alpha]),
            other => unreachable!("{other} channels are refused before"),
        }
    }
    converted
}

/// ITU-R 601-2 luma in 16-bit fixed point, as in Pillow's `convert("L")` (`libImaging/Convert.c`).
pub(crate) fn luma_u8(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

/// ITU-R 601-2 luma, with the weights of [`luma_u8`].
pub(crate) fn luma_f32(red: f32, green: f32, blue: f32) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(actual: usize, pixels: &[u8], wanted: usize, expected: &[u8]) {
        let image =
            Image { channels: actual, height: 1, width: pixels.len() / actual, pixels: Pixels::U8(pixels.to_vec()) };
        let converted = image.with_channels(wanted, "test").unwrap();
        assert_eq!(converted.pixels, Pixels::U8(expected.to_vec()), "{actual} to {wanted}");
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
        for (actual, wanted) in [(5, 3), (3, 5)] {
            let image = Image { channels: actual, height: 1, width: 1, pixels: Pixels::U8(vec![0; actual]) };
            let message = image.with_channels(wanted, "x.npy").unwrap_err().to_string();
            assert_eq!(message, format!("`x.npy` has {actual} channels where {wanted} are wanted"));
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
        let Pixels::F32(gray) = image.with_channels(1, "white").unwrap().pixels else { panic!("floats became bytes") };
        // three products and two sums are rounded
        assert!((gray[0] - 1.0).abs() < 3.0 * f32::EPSILON, "{gray:?}");
    }
}
