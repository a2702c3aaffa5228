//! Operations that move every value away from a poorer image, or towards it, as Pillow's
//! `ImageEnhance` (`PIL/ImageEnhance.py`, `libImaging/Blend.c`, `libImaging/Filter.c`).

use crate::image::{Image, Pixels, luma_f32, luma_u8};

/// Blends with the grey image; other than three channels have no colour.
pub(super) fn colour(image: &mut Image, factor: f32) {
    if image.channels != 3 {
        return;
    }
    match &mut image.pixels {
        Pixels::U8(pixels) => grey_blend(pixels, factor),
        Pixels::F32(pixels) => grey_blend(pixels, factor),
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

/// Blends with a smooth image.
pub(super) fn sharpness(image: &mut Image, factor: f32) {
    let (width, channels) = (image.width, image.channels);
    match &mut image.pixels {
        Pixels::U8(pixels) => smooth_blend(pixels, width, channels, factor),
        Pixels::F32(pixels) => smooth_blend(pixels, width, channels, factor),
    }
}

/// A value that is blended: bytes are rounded and cut off as in Pillow, floats are not.
trait Value: Copy {
    /// What is added to a sum that is to be rounded to the nearest value.
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

    /// Rounds down, and cuts off at both ends.
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

/// From `poor` at factor 0 over `value` at 1 and beyond.
fn blend<T: Value>(poor: T, value: T, factor: f32) -> T {
    T::of(poor.float() + factor * (value.float() - poor.float()))
}

fn grey_blend<T: Value>(pixels: &mut [T], factor: f32) {
    let (colours, _) = pixels.as_chunks_mut::<3>();
    for colour in colours {
        let grey = T::luma(colour[0], colour[1], colour[2]);
        *colour = colour.map(|value| blend(grey, value, factor));
    }
}

fn mean_blend<T: Value>(pixels: &mut [T], channels: usize, factor: f32) {
    if channels == 3 {
        let (colours, _) = pixels.as_chunks::<3>();
        let mean = T::mean(colours.iter().map(|[red, green, blue]| T::luma(*red, *green, *blue)));
        pixels.iter_mut().for_each(|value| *value = blend(mean, *value, factor));
        return;
    }
    for channel in 0..channels {
        let mean = T::mean(pixels.iter().skip(channel).step_by(channels).copied());
        let values = pixels.iter_mut().skip(channel).step_by(channels);
        values.for_each(|value| *value = blend(mean, *value, factor));
    }
}

/// The smooth image weighs a pixel by 5/13 and each of its eight neighbours by 1/13; along the
/// border, where some are missing, it is the image itself.
fn smooth_blend<T: Value>(pixels: &mut [T], width: usize, channels: usize, factor: f32) {
    const MIDDLE: f32 = 5.0 / 13.0;
    const AROUND: f32 = 1.0 / 13.0;
    let (row, original) = (width * channels, pixels.to_vec());
    let height = original.len() / row;
    for y in 1..height.max(2) - 1 {
        for at in y * row + channels..((y + 1) * row).saturating_sub(channels) {
            let weighted = |at: usize, middle: f32| {
                let [left, here, right] = [at - channels, at, at + channels].map(|at| original[at].float());
                left * AROUND + here * middle + right * AROUND
            };
            // this order of the sums decides how they are rounded
            let sum = T::HALF + weighted(at + row, AROUND) + weighted(at, MIDDLE) + weighted(at - row, AROUND);
            pixels[at] = blend(T::of(sum), original[at], factor);
        }
    }
}
