//! Operations that blend an image with a degenerate version of it, for example a gray one, as Pillow's `ImageEnhance`
//! (`PIL/ImageEnhance.py`, `libImaging/Blend.c`, `libImaging/Filter.c`).

use crate::image::{Image, Pixels, luma_f32, luma_u8};

/// Blends with the gray image, if the image has three channels; others have no color.
pub(super) fn color(image: &mut Image, factor: f32) {
    if image.channels != 3 {
        return;
    }
    match &mut image.pixels {
        Pixels::U8(pixels) => gray_blend(pixels, factor),
        Pixels::F32(pixels) => gray_blend(pixels, factor),
    }
}

/// Blends with the mean.
pub(super) fn contrast(image: &mut Image, factor: f32) {
    match &mut image.pixels {
        Pixels::U8(pixels) => mean_blend(pixels, image.channels, factor),
        Pixels::F32(pixels) => mean_blend(pixels, image.channels, factor),
    }
}

/// Blends with black.
pub(super) fn brightness(image: &mut Image, factor: f32) {
    match &mut image.pixels {
        Pixels::U8(pixels) => pixels.iter_mut().for_each(|value| *value = blend(0, *value, factor)),
        Pixels::F32(pixels) => pixels.iter_mut().for_each(|value| *value = blend(0.0, *value, factor)),
    }
}

/// Blends with a smoothed image.
pub(super) fn sharpness(image: &mut Image, factor: f32) {
    let (width, channels) = (image.width, image.channels);
    match &mut image.pixels {
        Pixels::U8(pixels) => smooth_blend(pixels, width, channels, factor),
        Pixels::F32(pixels) => smooth_blend(pixels, width, channels, factor),
    }
}

/// A value that is blended: bytes are rounded and clipped as in Pillow, floats are not.
trait Value: Copy {
    /// The number that is added to a sum before [`of`](Self::of), to round to the nearest value.
    const HALF: f32;
    fn float(self) -> f32;
    fn of(float: f32) -> Self;
    fn luma(red: Self, green: Self, blue: Self) -> Self;
    fn mean(values: impl Iterator<Item = Self>) -> Self;
}

impl Value for u8 {
    const HALF: f32 = 0.5;

    fn float(self) -> f32 {
        f32::from(self)
    }

    /// Rounds down and clips to 0 to 255.
    fn of(float: f32) -> Self {
        float as Self
    }

    fn luma(red: Self, green: Self, blue: Self) -> Self {
        luma_u8(red, green, blue)
    }

    fn mean(values: impl Iterator<Item = Self>) -> Self {
        let (count, sum) = values.fold((0_u64, 0_u64), |(count, sum), value| (count + 1, sum + u64::from(value)));
        (sum as f64 / count as f64 + 0.5) as Self
    }
}

impl Value for f32 {
    const HALF: f32 = 0.0;

    fn float(self) -> f32 {
        self
    }

    fn of(float: f32) -> Self {
        float
    }

    fn luma(red: Self, green: Self, blue: Self) -> Self {
        luma_f32(red, green, blue)
    }

    fn mean(values: impl Iterator<Item = Self>) -> Self {
        let (count, sum) = values.fold((0_u64, 0.0), |(count, sum), value| (count + 1, sum + f64::from(value)));
        (sum / count as f64) as Self
    }
}

/// Returns `degenerate` at factor 0 and `value` at factor 1, and extrapolates at larger factors.
fn blend<T: Value>(degenerate: T, value: T, factor: f32) -> T {
    T::of(degenerate.float() + factor * (value.float() - degenerate.float()))
}

fn gray_blend<T: Value>(pixels: &mut [T], factor: f32) {
    let (colors, _) = pixels.as_chunks_mut::<3>();
    for color in colors {
        let gray = T::luma(color[0], color[1], color[2]);
        *color = color.map(|value| blend(gray, value, factor));
    }
}

fn mean_blend<T: Value>(pixels: &mut [T], channels: usize, factor: f32) {
    if channels == 3 {
        let (colors, _) = pixels.as_chunks::<3>();
        let mean = T::mean(colors.iter().map(|[red, green, blue]| T::luma(*red, *green, *blue)));
        pixels.iter_mut().for_each(|value| *value = blend(mean, *value, factor));
        return;
    }
    for channel in 0..channels {
        let mean = T::mean(pixels.iter().skip(channel).step_by(channels).copied());
        let values = pixels.iter_mut().skip(channel).step_by(channels);
        values.for_each(|value| *value = blend(mean, *value, factor));
    }
}

/// In the smoothed image a pixel has the weight 5/13 and each of its eight neighbors 1/13, as in Pillow's
/// `ImageFilter.SMOOTH`. Pixels at the border, where neighbors are missing, are not smoothed.
fn smooth_blend<T: Value>(pixels: &mut [T], width: usize, channels: usize, factor: f32) {
    const CENTER: f32 = 5.0 / 13.0;
    const AROUND: f32 = 1.0 / 13.0;
    let (row, original) = (width * channels, pixels.to_vec());
    let height = original.len() / row;
    for y in 1..height.max(2) - 1 {
        for at in y * row + channels..((y + 1) * row).saturating_sub(channels) {
            let weighted = |at: usize, center: f32| {
                let [left, here, right] = [at - channels, at, at + channels].map(|at| original[at].float());
                left * AROUND + here * center + right * AROUND
            };
            // summed in the order of Pillow, because the order decides how the sum is rounded
            let sum = T::HALF + weighted(at + row, AROUND) + weighted(at, CENTER) + weighted(at - row, AROUND);
            pixels[at] = blend(T::of(sum), original[at], factor);
        }
    }
}
