//! Antialiased resize of a region of an image, as in Pillow's `Image.resize` (`BILINEAR`, `BICUBIC`).

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32, U8, U8x3};
use fast_image_resize::{FilterType, ImageView as _, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::image::{Image, Pixels};
use crate::rng::{Rng, below};

/// How a value between pixels is computed from its neighbors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Linear interpolation, from two neighbors along each axis; a resize to a smaller size uses more.
    Bilinear,
    /// Cubic interpolation, from four neighbors along each axis; a resize to a smaller size uses more.
    Bicubic,
}

/// Which filter a random transform uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Always the bilinear one.
    Bilinear,
    /// Always the bicubic one.
    Bicubic,
    /// One of the two, drawn for the crop and again for every operation.
    Random,
}

impl Interpolation {
    /// Returns the filter to use next; only [`Random`](Self::Random) draws from `rng`.
    #[must_use]
    pub fn filter(self, rng: &mut Rng) -> Filter {
        match self {
            Self::Bilinear => Filter::Bilinear,
            Self::Bicubic => Filter::Bicubic,
            Self::Random => [Filter::Bilinear, Filter::Bicubic][below(rng, 2)],
        }
    }
}

/// A rectangle of an image that is resized, in pixels of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Region {
    /// A crop before the resize. It has whole pixels, and the filter does not see pixels outside of it.
    Cut {
        /// The first row.
        top: usize,
        /// The first column.
        left: usize,
        /// The number of rows.
        height: usize,
        /// The number of columns.
        width: usize,
    },
    /// A crop after the resize. Its borders may lie within pixels, and the filter sees pixels outside of it.
    Window {
        /// The upper border.
        top: f64,
        /// The left border.
        left: f64,
        /// The distance between the upper and the lower border.
        height: f64,
        /// The distance between the left and the right border.
        width: f64,
    },
}

impl Region {
    /// Returns top, left, height and width.
    #[must_use]
    pub fn bounds(self) -> [f64; 4] {
        match self {
            Self::Cut { top, left, height, width } => [top, left, height, width].map(|side| side as f64),
            Self::Window { top, left, height, width } => [top, left, height, width],
        }
    }

    /// Returns the number, 1, 2, 4 or 8, that the sides of the image may be divided by so that a cut keeps at least
    /// `target_height` by `target_width` pixels, as in Pillow's `Image.draft`. It is 1 for a window: that is for
    /// evaluation, whose pixels are to be those of other programs.
    pub(super) fn reduction(self, target_height: usize, target_width: usize) -> usize {
        match self {
            Self::Cut { height, width, .. } => {
                let most = (height / target_height).min(width / target_width);
                [8, 4, 2].into_iter().find(|reduction| *reduction <= most).unwrap_or(1)
            }
            Self::Window { .. } => 1,
        }
    }

    /// Returns the same region of the same image at another size, both as height and width. A cut gets whole pixels.
    pub(super) fn scaled(self, from: [usize; 2], to: [usize; 2]) -> Self {
        let part = |border: f64, axis: usize| border * to[axis] as f64 / from[axis] as f64;
        match self {
            _ if from == to => self,
            Self::Cut { top, left, height, width } => {
                let borders = |start: usize, length: usize, axis: usize| {
                    let [start, end] = [start, start + length].map(|border| part(border as f64, axis).round() as usize);
                    let start = start.min(to[axis] - 1);
                    (start, end.clamp(start + 1, to[axis]) - start)
                };
                let ((top, height), (left, width)) = (borders(top, height, 0), borders(left, width, 1));
                Self::Cut { top, left, height, width }
            }
            Self::Window { top, left, height, width } => {
                Self::Window { top: part(top, 0), left: part(left, 1), height: part(height, 0), width: part(width, 1) }
            }
        }
    }
}

/// Resizes `region` of `image` to `height` by `width` pixels.
///
/// # Panics
///
/// Panics if `region` is not within the image, or the number of pixels is not H·W.
#[must_use]
pub fn resize(image: &Image, region: Region, height: usize, width: usize, filter: Filter) -> Image {
    let to = Target { region, height, width, filter };
    let pixels = match &image.pixels {
        // three channels are the common case and are resized together. Other numbers of channels are resized plane by
        // plane, because the code for each type of pixel takes seconds to compile
        Pixels::U8(pixels) if image.channels == 3 => Pixels::U8(resample_bytes::<U8x3>(image, pixels, to)),
        Pixels::U8(pixels) if image.channels == 1 => Pixels::U8(resample_bytes::<U8>(image, pixels, to)),
        Pixels::U8(pixels) => {
            Pixels::U8(by_plane(pixels, image.channels, |plane| resample_bytes::<U8>(image, plane, to)))
        }
        Pixels::F32(pixels) => Pixels::F32(by_plane(pixels, image.channels, |plane| {
            let pixels: Vec<F32> = plane.iter().map(|value| F32::new(*value)).collect();
            let mut resized = TypedImage::new(width as u32, height as u32);
            let source = TypedImageRef::new(image.width as u32, image.height as u32, &pixels).expect(HOLDS);
            resample(&source, to, &mut resized);
            resized.pixels().iter().map(|pixel| pixel.0).collect()
        })),
    };
    Image { channels: image.channels, height, width, pixels }
}

/// The region to resize, its new size and the filter.
#[derive(Clone, Copy)]
struct Target {
    region: Region,
    height: usize,
    width: usize,
    filter: Filter,
}

/// Separates interleaved pixels into planes, resizes each plane, and interleaves the results.
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

const HOLDS: &str = "an image holds H·W pixels";

/// Resizes a region of pixels of bytes, which have the size of `image`.
fn resample_bytes<P: PixelTrait>(image: &Image, pixels: &[u8], to: Target) -> Vec<u8> {
    let mut resized = vec![0; to.height * to.width * size_of::<P>()];
    let source = TypedImageRef::<P>::from_buffer(image.width as u32, image.height as u32, pixels).expect(HOLDS);
    let mut target = TypedImage::from_buffer(to.width as u32, to.height as u32, &mut resized).expect(HOLDS);
    resample(&source, to, &mut target);
    resized
}

/// Resizes a region of an image.
fn resample<P: PixelTrait>(source: &TypedImageRef<'_, P>, to: Target, resized: &mut TypedImage<'_, P>) {
    let filter = match to.filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    // a channel with alpha is resized like the others; otherwise it would be a weight for them
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    // the pixels that the filter sees, and the window within them
    let (cut, [window_left, window_top, window_width, window_height]) = match to.region {
        Region::Cut { top, left, height, width } => {
            ([left, top, width, height].map(|side| side as u32), [0.0, 0.0, width as f64, height as f64])
        }
        Region::Window { top, left, height, width } => {
            ([0, 0, source.width(), source.height()], [left, top, width, height])
        }
    };
    let [left, top, cut_width, cut_height] = cut;
    let cut =
        TypedCroppedImage::from_ref(source, left, top, cut_width, cut_height).expect("a region lies within its image");
    // first along rows, then along columns, as in Pillow. The order matters, because values of a cubic beyond black and
    // white are clipped after the first pass
    let width = to.width as u32;
    let rows = options.crop(window_left, 0.0, window_width, f64::from(cut_height));
    let columns = options.crop(0.0, window_top, f64::from(width), window_height);
    let mut narrowed = TypedImage::new(width, cut_height);
    let mut resizer = Resizer::new();
    resizer.resize_typed(&cut, &mut narrowed, &rows).expect("the window lies within the image");
    resizer.resize_typed(&narrowed, resized, &columns).expect("the window lies within the image");
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: fn(usize, usize) -> Region = |height, width| Region::Cut { top: 0, left: 0, height, width };

    fn image(channels: usize, height: usize, width: usize, values: &[u8]) -> Image {
        Image { channels, height, width, pixels: Pixels::U8(values.to_vec()) }
    }

    /// Checks the same resize of bytes and of floats; the bytes are the floats rounded.
    #[track_caller]
    fn check(image: &Image, region: Region, size: [usize; 2], expected: &[f32]) {
        let Pixels::U8(values) = &image.pixels else { panic!("cases are given in bytes") };
        let Pixels::U8(actual) = resize(image, region, size[0], size[1], Filter::Bilinear).pixels else {
            panic!("bytes became floats")
        };
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            // values are rounded after each of the two passes
            assert!((f32::from(*actual) - expected).abs() <= 1.0, "{actual} is not {expected}");
        }
        let floats = values.iter().map(|value| f32::from(*value)).collect();
        let image = Image { pixels: Pixels::F32(floats), ..image.clone() };
        let Pixels::F32(actual) = resize(&image, region, size[0], size[1], Filter::Bilinear).pixels else {
            panic!("floats became bytes")
        };
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            // a few values up to 255 are summed in f32
            assert!((actual - expected).abs() < 1e-3, "{actual} is not {expected}");
        }
    }

    #[test]
    fn halving_weighs_four_neighbors_by_a_triangle() {
        // the centers of the four pixels lie at 1/4 and 3/4 of the half-width of the triangle on either side, so the
        // weights are 1 3 3 1 over 8, and at the borders, where one pixel is missing, 3 3 1 and 1 3 3 over 7
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
    fn both_axes_are_resized_independently() {
        let values: Vec<u8> = (0..16).map(|at| (at / 4) * 40 + (at % 4) * 10).collect();
        // halving 0 1 2 3 along an axis gives (3·0 + 3·1 + 2) / 7 and (1 + 3·2 + 3·3) / 7
        let [low, high] = [5.0_f32 / 7.0, 16.0 / 7.0];
        let expected = [50.0 * low, 40.0 * low + 10.0 * high, 40.0 * high + 10.0 * low, 50.0 * high];
        check(&image(1, 4, 4, &values), WHOLE(4, 4), [2, 2], &expected);
    }

    #[test]
    fn the_filter_sees_the_surroundings_of_a_window_but_not_of_a_cut() {
        let row = image(1, 1, 8, &[255, 255, 0, 0, 0, 0, 255, 255]);
        let cut = Region::Cut { top: 0, left: 2, height: 1, width: 4 };
        check(&row, cut, [1, 2], &[0.0, 0.0]);
        let window = Region::Window { top: 0.0, left: 2.0, height: 1.0, width: 4.0 };
        check(&row, window, [1, 2], &[255.0 / 8.0, 255.0 / 8.0]);
    }

    #[test]
    fn channels_do_not_mix_for_any_number_of_channels() {
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
