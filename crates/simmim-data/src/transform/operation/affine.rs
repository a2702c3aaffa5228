//! Affine transforms of an image, as Pillow's `Image.transform` and `Image.rotate` (`PIL/Image.py`,
//! `libImaging/Geometry.c`).

use std::array::from_fn;

use crate::image::{Image, Pixels};
use crate::transform::resize::Filter;

/// The coefficients `[a, b, c, d, e, f]` of a transform: the point `(x, y)` of the result comes from the point
/// `(a·x + b·y + c, d·x + e·y + f)` of the image.
pub(super) type Source = [f64; 6];

/// Returns the rotation of an image of `height` by `width` pixels counterclockwise around its center.
pub(super) fn rotation(degrees: f64, height: f64, width: f64) -> Source {
    // rounded as in Pillow, so that rotations by right angles are exact
    let rounded = |value: f64| (value * 1e15).round_ties_even() / 1e15;
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (sin, cos) = (rounded(angle.sin()), rounded(angle.cos()));
    let (x, y) = (width / 2.0, height / 2.0);
    [cos, sin, -x * cos - y * sin + x, -sin, cos, x * sin - y * cos + y]
}

/// Transforms `image`; pixels that come from outside of it get the color `outside`, `[C]`, for pixels in `[0, 1]`.
pub(super) fn transform(image: &mut Image, source: Source, filter: Filter, outside: &[f32]) {
    let size = [image.height, image.width, image.channels];
    assert_eq!(outside.len(), image.channels, "channels of the color outside and of the image");
    match &mut image.pixels {
        Pixels::U8(pixels) => {
            let outside: Vec<u8> =
                outside.iter().map(|value| (f64::from(*value) * 255.0).round_ties_even() as u8).collect();
            // the conversion clips to 0 to 255 and rounds down
            *pixels = filtered(pixels, size, source, filter, &outside, |value| value as u8);
        }
        Pixels::F32(pixels) => *pixels = filtered(pixels, size, source, filter, outside, |value| value as f32),
    }
}

fn filtered<T: Copy + Into<f64>>(
    pixels: &[T],
    size: [usize; 3],
    source: Source,
    filter: Filter,
    outside: &[T],
    of: impl Fn(f64) -> T,
) -> Vec<T> {
    match filter {
        Filter::Bilinear => warp(pixels, size, source, linear, outside, of),
        Filter::Bicubic => warp(pixels, size, source, cubic, outside, of),
    }
}

/// Transforms pixels: `curve` interpolates between the middle two of `N` neighbors along each axis, and `of` converts
/// the result to a pixel value.
fn warp<T: Copy + Into<f64>, const N: usize>(
    pixels: &[T],
    [height, width, channels]: [usize; 3],
    [a, b, c, d, e, f]: Source,
    curve: impl Fn([f64; N], f64) -> f64,
    outside: &[T],
    of: impl Fn(f64) -> T,
) -> Vec<T> {
    assert_eq!(pixels.len(), height * width * channels, "pixels of [{height}, {width}, {channels}]");
    let before = N / 2 - 1;
    let mut warped = Vec::with_capacity(pixels.len());
    for place in 0..height * width {
        let (y, x) = ((place / width) as f64 + 0.5, (place % width) as f64 + 0.5);
        let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
        if !(0.0..width as f64).contains(&from_x) || !(0.0..height as f64).contains(&from_y) {
            warped.extend_from_slice(outside);
            continue;
        }
        // coordinates of pixel centers instead of pixel borders
        let (from_x, from_y) = (from_x - 0.5, from_y - 0.5);
        let (left, top) = (floor(from_x), floor(from_y));
        let (right, down) = (from_x - left as f64, from_y - top as f64);
        // pixels beyond the border have the value of the nearest pixel at the border
        let neighbor = |first: isize, i: usize, len: usize| {
            (first + i as isize - before as isize).clamp(0, len as isize - 1) as usize
        };
        let columns: [usize; N] = from_fn(|i| neighbor(left, i, width) * channels);
        let rows: [usize; N] = from_fn(|i| neighbor(top, i, height) * width * channels);
        for channel in 0..channels {
            let value = |row: usize, column: usize| -> f64 { pixels[row + column + channel].into() };
            // at 0 the curve has the value of the pixel, so it is not computed; this saves time, because most
            // operations move pixels along one axis only
            let along = |row: usize| {
                if right == 0.0 {
                    value(row, columns[before])
                } else {
                    curve(columns.map(|column| value(row, column)), right)
                }
            };
            warped.push(of(if down == 0.0 { along(rows[before]) } else { curve(rows.map(along), down) }));
        }
    }
    warped
}

/// Rounds a number above -1 down.
fn floor(value: f64) -> isize {
    if value < 0.0 { -1 } else { value as isize }
}

/// The linear interpolation between two values; `at` is 0 at the first and 1 at the second.
fn linear([from, to]: [f64; 2], at: f64) -> f64 {
    from + (to - from) * at
}

/// The cubic interpolation between the middle two of four values; `at` is 0 at the second and 1 at the third.
///
/// This is Keys' kernel with a = -1, as in `Geometry.c`: its slope at each of the two is the difference of the neighbors.
fn cubic([before, from, to, after]: [f64; 4], at: f64) -> f64 {
    let slope = to - before;
    let square = 2.0 * (before - from) + to - after;
    let cube = from - before - to + after;
    from + at * (slope + at * (square + at * cube))
}
