//! Thumbnails as PNG files.

use super::picture::{Picture, encode_png};
use image::{Rgb, RgbImage};
use simmim_data::{Image, Pixels};
use std::io;

/// A gray or color image of bytes as a picture for a sheet.
///
/// # Panics
/// If it has floats.
pub(crate) fn picture_of_bytes(image: &Image) -> Picture {
    let Pixels::U8(pixels) = &image.pixels else { panic!("a thumbnail has bytes") };
    let Image { channels, height, width, .. } = *image;
    let plane = |channel: usize| pixels[channel..].iter().step_by(channels).map(|value| f32::from(*value) / 255.0);
    Picture { channels, height, width, pixels: (0..channels).flat_map(plane).collect() }
}

/// The PNG of a gray or color image of bytes, as `simmim_data::thumbnail` makes it.
///
/// # Errors
/// If the image has no pixels.
///
/// # Panics
/// If it has floats, or neither one nor three channels.
pub(crate) fn png_of_bytes(image: &Image) -> io::Result<Vec<u8>> {
    let Pixels::U8(pixels) = &image.pixels else { panic!("a thumbnail has bytes") };
    let shown: [usize; 3] = match image.channels {
        1 => [0; 3],
        3 => [0, 1, 2],
        other => panic!("a thumbnail has one or three channels, not {other}"),
    };
    encode_png(&RgbImage::from_fn(image.width as u32, image.height as u32, |x, y| {
        let at = (y as usize * image.width + x as usize) * image.channels;
        Rgb(shown.map(|channel| pixels[at + channel]))
    }))
}
