//! Operations that move pixels along straight lines, as Pillow's `Image.transform` and
//! `Image.rotate` (`PIL/Image.py`, `libImaging/Geometry.c`).

use std::array::from_fn;

use crate::image::{Image, Pixels};
use crate::transform::fine_tuning::Filter;

/// Where a place `(x, y)` of the result comes from: `(a·x + b·y + c, d·x + e·y + f)` of
/// `[a, b, c, d, e, f]`.
pub(super) type Source = [f64; 6];

/// Turns an image of `height` by `width` pixels anticlockwise around its middle.
pub(super) fn rotation(degrees: f64, height: f64, width: f64) -> Source {
    // rounded so that right angles are exact, as in Pillow
    let rounded = |value: f64| (value * 1e15).round_ties_even() / 1e15;
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (sin, cos) = (rounded(angle.sin()), rounded(angle.cos()));
    let (x, y) = (width / 2.0, height / 2.0);
    [cos, sin, -x * cos - y * sin + x, -sin, cos, x * sin - y * cos + y]
}

/// Makes `image` the one whose places come from `source`; what comes from outside takes the colour
/// `outside`, `[C]`, of pixels in `[0, 1]`.
pub(super) fn transform(image: &mut Image, source: Source, filter: Filter, outside: &[f32]) {
    let size = [image.height, image.width, image.channels];
    assert_eq!(outside.len(), image.channels, "channels of the colour outside and of the image");
    match &mut image.pixels {
        Pixels::U8(pixels) => {
            let outside: Vec<u8> =
                outside.iter().map(|value| (f64::from(*value) * 255.0).round_ties_even() as u8).collect();
            // cut off at both ends and rounded down
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

/// `curve` goes through the middle two of `N` neighbours along each axis.
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
        // the middle of a pixel is half a pixel from its border
        let (from_x, from_y) = (from_x - 0.5, from_y - 0.5);
        let (left, top) = (floor(from_x), floor(from_y));
        let (right, down) = (from_x - left as f64, from_y - top as f64);
        // beyond the border the outermost pixels go on
        let neighbour = |first: isize, step: usize, len: usize| {
            (first + step as isize - before as isize).clamp(0, len as isize - 1) as usize
        };
        let columns: [usize; N] = from_fn(|step| neighbour(left, step, width) * channels);
        let rows: [usize; N] = from_fn(|step| neighbour(top, step, height) * width * channels);
        for channel in 0..channels {
            let value = |row: usize, column: usize| -> f64 { pixels[row + column + channel].into() };
            // a curve at 0 is the value there: most operations move pixels along one axis only
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

/// The next whole number below a number above -1.
fn floor(value: f64) -> isize {
    if value < 0.0 { -1 } else { value as isize }
}

/// The straight line through two values, `at` of the way.
fn linear([from, to]: [f64; 2], at: f64) -> f64 {
    from + (to - from) * at
}

/// The cubic between the middle two of four values, `at` of the way, with the slope there that
/// each one's neighbours have over one step (Keys' kernel with a = -1, as in `Geometry.c`).
fn cubic([before, from, to, after]: [f64; 4], at: f64) -> f64 {
    let slope = to - before;
    let square = 2.0 * (before - from) + to - after;
    let cube = from - before - to + after;
    from + at * (slope + at * (square + at * cube))
}
