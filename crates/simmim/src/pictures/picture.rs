//! A picture to show: an image as the model sees it, with hidden pixels marked, or with a prediction pasted in.

use std::io::{self, Cursor};
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::run::files::{with_path, write_atomically};

/// The two gray values of the hatching that marks hidden pixels. They are close to mid gray, so that it is not
/// distracting but differs from flat gray regions of an image.
const HATCH_GRAYS: [f32; 2] = [0.47, 0.55];

/// An image as floating-point pixels, ready to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// `C`. If there are three or more, the first three are shown as red, green and blue; else the first is shown as
    /// gray.
    pub channels: usize,
    /// `H`.
    pub height: usize,
    /// `W`.
    pub width: usize,
    /// `[C, H, W]`, each in `[0, 1]`.
    pub pixels: Vec<f32>,
}

impl Picture {
    /// Undoes the per-channel normalization `(x - mean) / std` and clamps to `[0, 1]`.
    ///
    /// # Shapes
    /// `normalized` is `[C, H, W]`; `mean` and `std` are `[C]`.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn denormalized(
        normalized: &[f32],
        channels: usize,
        height: usize,
        width: usize,
        mean: &[f32],
        std: &[f32],
    ) -> Picture {
        let plane = height * width;
        assert_eq!(normalized.len(), channels * plane, "pixels of a [{channels}, {height}, {width}] picture");
        assert_eq!((mean.len(), std.len()), (channels, channels), "mean and std of {channels} channels");
        let mut pixels = Vec::with_capacity(normalized.len());
        for channel in 0..channels {
            let values = &normalized[channel * plane..(channel + 1) * plane];
            pixels.extend(values.iter().map(|value| (value * std[channel] + mean[channel]).clamp(0.0, 1.0)));
        }
        Picture { channels, height, width, pixels }
    }

    /// This picture with its hidden pixels replaced by a gray diagonal hatching.
    ///
    /// # Shapes
    /// `hidden` is `[H, W]`, `true` = hidden.
    ///
    /// # Panics
    /// If `hidden` has another length.
    pub fn hide(&self, hidden: &[bool]) -> Picture {
        // width of a band of the hatching: 1 to 4 pixels, in proportion to the size of the picture
        let band_px = (self.height.min(self.width) / 48).clamp(1, 4);
        self.map_hidden(hidden, |_, y, x| HATCH_GRAYS[usize::from(((x + y) / band_px).is_multiple_of(3))])
    }

    /// This picture with the hidden pixels taken from `prediction`.
    ///
    /// # Shapes
    /// `prediction` is of this picture's size; `hidden` is `[H, W]`, `true` = hidden.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn paste(&self, prediction: &Picture, hidden: &[bool]) -> Picture {
        assert_eq!(
            (self.channels, self.height, self.width),
            (prediction.channels, prediction.height, prediction.width),
            "a prediction has the size of its picture"
        );
        self.map_hidden(hidden, |channel, y, x| prediction.at(channel, y, x))
    }

    /// This picture with every pixel repeated `factor` times in both directions.
    ///
    /// # Panics
    /// If `factor` is 0.
    pub fn enlarged(&self, factor: usize) -> Picture {
        assert!(factor > 0, "a picture is enlarged by at least 1");
        let (height, width) = (self.height * factor, self.width * factor);
        let mut pixels = Vec::with_capacity(self.channels * height * width);
        for channel in 0..self.channels {
            for y in 0..height {
                pixels.extend((0..width).map(|x| self.at(channel, y / factor, x / factor)));
            }
        }
        Picture { channels: self.channels, height, width, pixels }
    }

    /// This picture with eight bits per channel.
    ///
    /// # Panics
    /// If there are no channels, or `pixels` is not `[C, H, W]`.
    pub fn to_rgb(&self) -> RgbImage {
        assert!(self.channels > 0, "a picture has a channel");
        assert_eq!(self.pixels.len(), self.channels * self.height * self.width, "pixels are [C, H, W]");
        let shown = if self.channels >= 3 { [0, 1, 2] } else { [0, 0, 0] };
        RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            Rgb(shown.map(|channel| (self.at(channel, y as usize, x as usize) * 255.0).round() as u8))
        })
    }

    /// This picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// If the picture has no pixels.
    pub fn png_bytes(&self) -> io::Result<Vec<u8>> {
        encode_png(&self.to_rgb())
    }

    /// Writes this picture to a PNG file, atomically.
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn save_png(&self, path: &Path) -> io::Result<()> {
        save_png(&self.to_rgb(), path)
    }

    fn at(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.pixels[(channel * self.height + y) * self.width + x]
    }

    /// This picture with each hidden pixel replaced by `value(channel, y, x)`.
    fn map_hidden(&self, hidden: &[bool], value: impl Fn(usize, usize, usize) -> f32) -> Picture {
        assert_eq!(hidden.len(), self.height * self.width, "hidden is [{}, {}]", self.height, self.width);
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for channel in 0..self.channels {
            for y in 0..self.height {
                for x in 0..self.width {
                    let is_hidden = hidden[y * self.width + x];
                    pixels.push(if is_hidden { value(channel, y, x) } else { self.at(channel, y, x) });
                }
            }
        }
        Picture { pixels, ..*self }
    }
}

pub(super) fn encode_png(image: &RgbImage) -> io::Result<Vec<u8>> {
    let mut png = Vec::new();
    image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).map_err(io::Error::other)?;
    Ok(png)
}

pub(super) fn save_png(image: &RgbImage, path: &Path) -> io::Result<()> {
    let png = encode_png(image).map_err(|error| with_path(error, path))?;
    write_atomically(path, &png)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A grayscale picture of one row.
    fn row(pixels: &[f32]) -> Picture {
        Picture { channels: 1, height: 1, width: pixels.len(), pixels: pixels.to_vec() }
    }

    #[test]
    fn denormalizing_inverts_each_channel_and_clamps() {
        let check = |normalized: f32, mean: f32, std: f32, expected: f32| {
            let picture = Picture::denormalized(&[0.0, normalized], 2, 1, 1, &[0.25, mean], &[0.5, std]);
            assert_eq!(picture.pixels, [0.25, expected], "{normalized} with mean {mean} and std {std}");
        };
        check(0.0, 0.5, 0.25, 0.5);
        check(1.0, 0.5, 0.25, 0.75);
        check(-1.0, 0.5, 0.25, 0.25);
        check(9.0, 0.5, 0.25, 1.0);
        check(-9.0, 0.5, 0.25, 0.0);
    }

    #[test]
    fn pasting_takes_the_prediction_where_hidden_and_the_picture_elsewhere() {
        let check = |hidden: [bool; 3], expected: [f32; 3]| {
            let pasted = row(&[0.1, 0.2, 0.3]).paste(&row(&[0.7, 0.8, 0.9]), &hidden);
            assert_eq!(pasted.pixels, expected, "{hidden:?}");
        };
        check([false, false, false], [0.1, 0.2, 0.3]);
        check([true, false, true], [0.7, 0.2, 0.9]);
        check([true, true, true], [0.7, 0.8, 0.9]);
    }

    #[test]
    fn hidden_pixels_are_hatched_and_visible_ones_untouched() {
        let picture = Picture { channels: 3, height: 8, width: 8, pixels: vec![0.9; 3 * 64] };
        let hidden: Vec<bool> = (0..64).map(|pixel| pixel % 8 >= 4).collect();
        let shown = picture.hide(&hidden);
        for channel in 0..3 {
            let plane = &shown.pixels[channel * 64..(channel + 1) * 64];
            assert!((0..64).all(|pixel| hidden[pixel] || plane[pixel] == 0.9));
            assert!((0..64).all(|pixel| !hidden[pixel] || HATCH_GRAYS.contains(&plane[pixel])));
            assert!(HATCH_GRAYS.iter().all(|gray| plane.contains(gray)), "both grays of the hatching appear");
        }
    }

    #[test]
    fn enlarging_repeats_every_pixel() {
        let picture = Picture { channels: 1, height: 2, width: 2, pixels: vec![0.1, 0.2, 0.3, 0.4] };
        let check = |factor: usize, expected: &[f32]| {
            let enlarged = picture.enlarged(factor);
            assert_eq!((enlarged.height, enlarged.width), (2 * factor, 2 * factor));
            assert_eq!(enlarged.pixels, expected, "enlarged by {factor}");
        };
        check(1, &[0.1, 0.2, 0.3, 0.4]);
        check(2, &[0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.3, 0.3, 0.4, 0.4]);
    }

    #[test]
    fn any_channel_count_is_shown() {
        let check = |channels: usize, expected: [u8; 3]| {
            let pixels = [0.0, 0.2, 0.4, 0.6, 0.8][5 - channels..].to_vec();
            let picture = Picture { channels, height: 1, width: 1, pixels };
            assert_eq!(picture.to_rgb().get_pixel(0, 0).0, expected, "{channels} channels");
        };
        check(1, [204, 204, 204]);
        check(2, [153, 153, 153]);
        check(3, [102, 153, 204]);
        check(5, [0, 51, 102]);
    }

    #[test]
    fn a_saved_png_reads_back_and_leaves_no_partial_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        row(&[0.0, 0.2, 1.0]).save_png(&path).unwrap();
        let read = image::open(&path).unwrap().to_rgb8();
        assert_eq!(read.into_raw(), [0, 0, 0, 51, 51, 51, 255, 255, 255]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("picture.png");
        let message = row(&[0.5]).save_png(&path).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
}
