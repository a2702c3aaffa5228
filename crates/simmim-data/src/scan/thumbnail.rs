//! Small pictures of images of any kind, as bytes.

use std::borrow::Cow;

use crate::image::{Image, Pixels};
use crate::transform::{Filter, Region, resize};

/// Returns a gray or color picture whose sides have at most `most_px` pixels; a smaller image keeps its size.
///
/// Of two channels the first is shown, of more the first three. Floats beyond 0 to 1 are shown by the range of their image.
///
/// # Panics
///
/// Panics if `most_px` is 0.
#[must_use]
pub fn thumbnail(image: &Image, most_px: usize) -> Image {
    let [height, width] = size_of_thumbnail([image.height, image.width], most_px);
    small(image, height, width)
}

/// Height and width of the [`thumbnail`] of an image of this height and width.
///
/// # Panics
///
/// Panics if `most_px` is 0.
pub(crate) fn size_of_thumbnail(size: [usize; 2], most_px: usize) -> [usize; 2] {
    assert!(most_px > 0, "a thumbnail has pixels");
    let longer = size[0].max(size[1]);
    size.map(|px| if longer <= most_px { px } else { (px * most_px / longer).max(1) })
}

/// Resizes a whole image to bytes of one or three channels.
pub(super) fn small(image: &Image, height: usize, width: usize) -> Image {
    let whole = Region::Cut { top: 0, left: 0, height: image.height, width: image.width };
    let resized = if (image.height, image.width) == (height, width) {
        Cow::Borrowed(image)
    } else {
        Cow::Owned(resize(image, whole, height, width, Filter::Bilinear))
    };
    let shown = if image.channels < 3 { 1 } else { 3 };
    let pixels = match &resized.pixels {
        Pixels::U8(pixels) => first(pixels, image.channels, shown, |value| value),
        Pixels::F32(pixels) => {
            let (low, high) = range(image);
            let scale = 255.0 / (high - low);
            first(pixels, image.channels, shown, |value| ((value - low) * scale).round() as u8)
        }
    };
    Image { channels: shown, height, width, pixels: Pixels::U8(pixels) }
}

/// Keeps the first `shown` of the channels as bytes.
fn first<T: Copy>(pixels: &[T], channels: usize, shown: usize, byte: impl Fn(T) -> u8) -> Vec<u8> {
    pixels.chunks_exact(channels).flat_map(|pixel| &pixel[..shown]).map(|value| byte(*value)).collect()
}

/// Returns the values that are shown as black and white: 0 and 1 if all values lie between, else the lowest and the highest.
fn range(image: &Image) -> (f32, f32) {
    match &image.pixels {
        Pixels::U8(_) => (0.0, 1.0),
        Pixels::F32(pixels) => {
            let extremes = |(low, high): (f32, f32), value: &f32| (low.min(*value), high.max(*value));
            let (low, high) = pixels.iter().fold((f32::INFINITY, f32::NEG_INFINITY), extremes);
            if (0.0..=1.0).contains(&low) && high <= 1.0 {
                (0.0, 1.0)
            } else {
                // an image of one value is black; so is one whose range overflows
                (low, if high > low { high } else { low + 1.0 })
            }
        }
    }
}
