//! Writes pictures as JPEG, for pages that would be too large with anything else.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Compress};

use crate::error::panic_message;
use crate::image::{Image, Pixels};

/// Encodes a color image of bytes as JPEG, at a quality from 1 to 100.
///
/// # Errors
///
/// If the encoder fails.
///
/// # Panics
///
/// Panics if the image does not have bytes of three channels.
pub fn encode_jpeg(image: &Image, quality: u8) -> io::Result<Vec<u8>> {
    let Pixels::U8(pixels) = &image.pixels else { panic!("a JPEG has bytes") };
    assert_eq!(image.channels, 3, "channels of a color image");
    // libjpeg reports what it cannot do by unwinding
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        let mut jpeg = Compress::new(ColorSpace::JCS_RGB);
        jpeg.set_size(image.width, image.height);
        jpeg.set_quality(f32::from(quality));
        let mut jpeg = jpeg.start_compress(Vec::new())?;
        jpeg.write_scanlines(pixels)?;
        jpeg.finish()
    }));
    encoded.unwrap_or_else(|payload| Err(io::Error::other(panic_message(&*payload))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smooth_picture_comes_back_nearly_the_same() {
        let pixels: Vec<u8> = (0..40 * 56).flat_map(|at| [(at % 56 * 4) as u8, (at / 56 * 5) as u8, 90]).collect();
        let image = Image { channels: 3, height: 40, width: 56, pixels: Pixels::U8(pixels.clone()) };
        let decoded = crate::decode(&encode_jpeg(&image, 90).unwrap(), "encoded", 3).unwrap();
        assert_eq!((decoded.height, decoded.width), (40, 56));
        let Pixels::U8(found) = decoded.pixels else { panic!("a JPEG has bytes") };
        // quality 90 is off by a few levels in smooth areas
        assert!(found.iter().zip(&pixels).all(|(a, b)| a.abs_diff(*b) < 12));
        assert!(encode_jpeg(&image, 30).unwrap().len() < encode_jpeg(&image, 90).unwrap().len());
        let empty = Image { channels: 3, height: 0, width: 0, pixels: Pixels::U8(Vec::new()) };
        assert!(encode_jpeg(&empty, 90).is_err());
    }
}
