//! Antialiased resize of a part of an image, as Pillow's `Image.resize` (`BILINEAR`, `BICUBIC`).

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32, U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use super::{Filter, Region};
use crate::image::{Image, Pixels};

/// Resizes `region` of `image` to `height` by `width`.
///
/// # Panics
///
/// Panics if `region` leaves the image, or the pixels are not of the size that the image says.
#[must_use]
pub fn resize(image: &Image, region: Region, height: usize, width: usize, filter: Filter) -> Image {
    let to = Target { region, height, width, filter };
    let plane = |plane: &[u8]| -> Vec<u8> {
        let pixels: Vec<U8> = plane.iter().map(|value| U8::new(*value)).collect();
        resample(image, &pixels, to).pixels().iter().map(|pixel| pixel.0).collect()
    };
    let pixels = match &image.pixels {
        // colour, the common case, in one go; every other number of channels plane by plane: each kind of
        // pixel costs seconds to compile
        Pixels::U8(pixels) if image.channels == 3 => {
            let (colours, _) = pixels.as_chunks::<3>();
            let pixels: Vec<U8x3> = colours.iter().map(|colour| U8x3::new(*colour)).collect();
            Pixels::U8(resample(image, &pixels, to).pixels().iter().flat_map(|pixel| pixel.0).collect())
        }
        Pixels::U8(pixels) => Pixels::U8(by_plane(pixels, image.channels, plane)),
        Pixels::F32(pixels) => Pixels::F32(by_plane(pixels, image.channels, |plane| {
            let pixels: Vec<F32> = plane.iter().map(|value| F32::new(*value)).collect();
            resample(image, &pixels, to).pixels().iter().map(|pixel| pixel.0).collect()
        })),
    };
    Image { channels: image.channels, height, width, pixels }
}

/// What is resized, to what, and how.
#[derive(Clone, Copy)]
struct Target {
    region: Region,
    height: usize,
    width: usize,
    filter: Filter,
}

/// Takes interleaved pixels apart, resizes every plane, and puts them together again.
fn by_plane<T: Copy + Default>(pixels: &[T], channels: usize, resize: impl Fn(&[T]) -> Vec<T>) -> Vec<T> {
    let mut resized = Vec::new();
    for channel in 0..channels {
        let plane: Vec<T> = pixels.iter().skip(channel).step_by(channels).copied().collect();
        let plane = resize(&plane);
        resized.resize(plane.len() * channels, T::default());
        for (out, value) in resized.iter_mut().skip(channel).step_by(channels).zip(plane) {
            *out = value;
        }
    }
    resized
}

/// Resizes a part of the pixels of an image as large as `image`.
fn resample<P: PixelTrait>(image: &Image, pixels: &[P], to: Target) -> TypedImage<'static, P> {
    let filter = match to.filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let source =
        TypedImageRef::new(image.width as u32, image.height as u32, pixels).expect("an image holds H·W pixels");
    // every channel by itself: alpha is one channel more, not a weight of the others
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    // what exists for the filter, and the window of it
    let (cut, [window_left, window_top, window_width, window_height]) = match to.region {
        Region::Cut { top, left, height, width } => {
            ([left, top, width, height].map(|side| side as u32), [0.0, 0.0, width as f64, height as f64])
        }
        Region::Window { top, left, height, width } => {
            ([0, 0, image.width as u32, image.height as u32], [left, top, width, height])
        }
    };
    let [left, top, cut_width, cut_height] = cut;
    let cut =
        TypedCroppedImage::from_ref(&source, left, top, cut_width, cut_height).expect("a region lies within its image");
    // rows before columns as in Pillow, whatever is faster: a cubic overshoots, and what the first pass cuts off
    // at black and white the second one never sees
    let (height, width) = (to.height as u32, to.width as u32);
    let rows = options.crop(window_left, 0.0, window_width, f64::from(cut_height));
    let columns = options.crop(0.0, window_top, f64::from(width), window_height);
    let (mut narrowed, mut resized) = (TypedImage::new(width, cut_height), TypedImage::new(width, height));
    let mut resizer = Resizer::new();
    resizer.resize_typed(&cut, &mut narrowed, &rows).expect("the window lies within the image");
    resizer.resize_typed(&narrowed, &mut resized, &columns).expect("the window lies within the image");
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: fn(usize, usize) -> Region = |height, width| Region::Cut { top: 0, left: 0, height, width };

    fn image(channels: usize, height: usize, width: usize, values: &[u8]) -> Image {
        Image { channels, height, width, pixels: Pixels::U8(values.to_vec()) }
    }

    /// The same resize of bytes and of floats, where bytes are the floats rounded.
    #[track_caller]
    fn check(image: &Image, region: Region, size: [usize; 2], expected: &[f32]) {
        let Pixels::U8(values) = &image.pixels else { panic!("cases are given in bytes") };
        let Pixels::U8(found) = resize(image, region, size[0], size[1], Filter::Bilinear).pixels else {
            panic!("bytes became floats")
        };
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            // one rounding after each of the two passes
            assert!((f32::from(*found) - expected).abs() <= 1.0, "{found} is not {expected}");
        }
        let floats = values.iter().map(|value| f32::from(*value)).collect();
        let image = Image { pixels: Pixels::F32(floats), ..image.clone() };
        let Pixels::F32(found) = resize(&image, region, size[0], size[1], Filter::Bilinear).pixels else {
            panic!("floats became bytes")
        };
        for (found, expected) in found.iter().zip(expected) {
            // a few sums of values up to 255 in f32
            assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
        }
    }

    #[test]
    fn halving_weighs_four_neighbours_by_a_triangle() {
        // pixel centres lie at 1/4 and 3/4 of the half-width: weights 1 3 3 1 over 8, and at the
        // borders 3 3 1 over 7 and 1 3 3 over 7
        let row = [0, 70, 140, 210, 35, 105];
        let expected = [
            (3.0 * 0.0 + 3.0 * 70.0 + 140.0) / 7.0,
            (70.0 + 3.0 * 140.0 + 3.0 * 210.0 + 35.0) / 8.0,
            (210.0 + 3.0 * 35.0 + 3.0 * 105.0) / 7.0,
        ];
        check(&image(1, 1, 6, &row), WHOLE(1, 6), [1, 3], &expected);
        check(&image(1, 6, 1, &row), WHOLE(6, 1), [3, 1], &expected);
    }

    #[test]
    fn two_by_two_of_a_four_by_four_is_the_product_of_its_axes() {
        let values: Vec<u8> = (0..16).map(|at| (at / 4) * 40 + (at % 4) * 10).collect();
        // along an axis of 0 1 2 3: (3·0 + 3·1 + 2) / 7 and (1 + 3·2 + 3·3) / 7
        let [low, high] = [5.0_f32 / 7.0, 16.0 / 7.0];
        let expected = [50.0 * low, 40.0 * low + 10.0 * high, 40.0 * high + 10.0 * low, 50.0 * high];
        check(&image(1, 4, 4, &values), WHOLE(4, 4), [2, 2], &expected);
    }

    #[test]
    fn a_cut_does_not_see_its_surroundings_and_a_window_does() {
        let row = image(1, 1, 8, &[255, 255, 0, 0, 0, 0, 255, 255]);
        let cut = Region::Cut { top: 0, left: 2, height: 1, width: 4 };
        check(&row, cut, [1, 2], &[0.0, 0.0]);
        let window = Region::Window { top: 0.0, left: 2.0, height: 1.0, width: 4.0 };
        check(&row, window, [1, 2], &[255.0 / 8.0, 255.0 / 8.0]);
    }

    #[test]
    fn channels_do_not_mix_whatever_their_number() {
        for channels in 1..=6 {
            let values: Vec<u8> = (0..16 * channels).map(|at| (at % channels * 40 + 3) as u8).collect();
            let expected: Vec<f32> = (0..4 * channels).map(|at| (at % channels * 40 + 3) as f32).collect();
            check(&image(channels, 4, 4, &values), WHOLE(4, 4), [2, 2], &expected);
        }
    }

    #[test]
    fn enlarging_is_plain_bilinear() {
        check(&image(1, 1, 2, &[0, 100]), WHOLE(1, 2), [1, 4], &[0.0, 25.0, 75.0, 100.0]);
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let bytes: Vec<u8> = (0..12).collect();
        check(&image(3, 2, 2, &bytes), WHOLE(2, 2), [2, 2], &values);
    }
}
