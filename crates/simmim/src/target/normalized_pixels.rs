//! Pixels normalised by mean and deviation of the window around each: SwinV2's target
//! (microsoft/Swin-Transformer, `models/simmim.py`, `norm_targets`).

use super::{Cells, Layout, Shows, Target, Truth};
use simmim_engine::Images;
use std::borrow::Cow;

/// Added to the variance.
const EPS: f64 = 1e-6;

/// `(x − mean) / deviation`, both over the window around the pixel, channel by channel.
///
/// A prediction is shown with mean and deviation of the true image: its colours and contrast at the
/// window's scale are the true ones, what lies within is predicted.
#[derive(Clone, Copy, Debug)]
pub struct NormalizedPixels {
    /// Side of the window, odd; at the border only the part inside of the image counts.
    pub window_px: usize,
}

/// Mean and deviation of the window around one pixel.
#[derive(Clone, Copy)]
struct Local {
    mean: f64,
    deviation: f64,
}

impl Local {
    /// From the sum and the sum of squares of `count` values; the variance is the unbiased one.
    fn new(sum: f64, squares: f64, count: usize) -> Self {
        let n = count as f64;
        let mean = sum / n;
        let variance = (squares / n - mean * mean) * n / (n - 1.0).max(1.0);
        Self { mean, deviation: (variance.max(0.0) + EPS).sqrt() }
    }
}

impl NormalizedPixels {
    /// Statistics around every pixel of one channel, `[H, W]`, by a table of sums over all pixels above
    /// and to the left.
    fn statistics(&self, width: usize, plane: &[f32]) -> Vec<Local> {
        let height = plane.len() / width;
        let stride = width + 1;
        let mut sums = vec![[0.0f64; 2]; (height + 1) * stride];
        for y in 0..height {
            let mut row = [0.0; 2];
            for x in 0..width {
                let value = plane[y * width + x] as f64;
                row = [row[0] + value, row[1] + value * value];
                let above = sums[y * stride + x + 1];
                sums[(y + 1) * stride + x + 1] = [above[0] + row[0], above[1] + row[1]];
            }
        }
        let reach = self.window_px / 2;
        let span = |at: usize, len: usize| (at.saturating_sub(reach), (at + reach + 1).min(len));
        let local = |i: usize| {
            let ((top, bottom), (left, right)) = (span(i / width, height), span(i % width, width));
            let corner = |y: usize, x: usize, of: usize| sums[y * stride + x][of];
            let [sum, squares] = [0, 1].map(|of| {
                corner(bottom, right, of) - corner(top, right, of) - corner(bottom, left, of) + corner(top, left, of)
            });
            Local::new(sum, squares, (bottom - top) * (right - left))
        };
        (0..height * width).map(local).collect()
    }
}

impl Target for NormalizedPixels {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: cells.channels, side: cells.side, classes: None }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let normalise = |plane: &[f32]| -> Vec<f32> {
            let locals = self.statistics(images.width, plane);
            plane.iter().zip(locals).map(|(v, l)| ((*v as f64 - l.mean) / l.deviation) as f32).collect()
        };
        Truth::Values(Cow::Owned(
            images.pixels.chunks_exact(images.height * images.width).flat_map(normalise).collect(),
        ))
    }

    fn picture(&self, cells: &Cells, image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let plane = cells.height * cells.width;
        let restore = |(prediction, image): (&[f32], &[f32])| -> Vec<f32> {
            let locals = self.statistics(cells.width, image);
            prediction.iter().zip(locals).map(|(v, l)| (*v as f64 * l.deviation + l.mean) as f32).collect()
        };
        prediction.chunks_exact(plane).zip(image.chunks_exact(plane)).flat_map(restore).collect()
    }

    fn shows(&self) -> Shows {
        Shows::Detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELLS: Cells = Cells { channels: 2, height: 6, width: 8, side: 2 };

    fn image() -> Vec<f32> {
        (0..CELLS.channels * CELLS.height * CELLS.width).map(|i| ((i * 37) % 19) as f32 / 7.0 - 1.0).collect()
    }

    fn normalised(window_px: usize, image: &[f32]) -> Vec<f32> {
        let Cells { channels, height, width, .. } = CELLS;
        let images = Images { pixels: image, count: 1, channels, height, width };
        let Truth::Values(values) = NormalizedPixels { window_px }.truth(&images) else { panic!("pixels are values") };
        values.into_owned()
    }

    /// The definition: a loop over the window of every pixel.
    fn naive(image: &[f32], window_px: usize) -> Vec<f32> {
        let (height, width, reach) = (CELLS.height as isize, CELLS.width as isize, window_px as isize / 2);
        let mut out = Vec::new();
        for c in 0..CELLS.channels as isize {
            let pixel = |y: isize, x: isize| image[((c * height + y) * width + x) as usize] as f64;
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let inside = |i: isize, j: isize| (0..height).contains(&i) && (0..width).contains(&j);
                let around = (y - reach..=y + reach).flat_map(|i| (x - reach..=x + reach).map(move |j| (i, j)));
                let values: Vec<f64> = around.filter(|(i, j)| inside(*i, *j)).map(|(i, j)| pixel(i, j)).collect();
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
                out.push(((pixel(y, x) - mean) / (variance + 1e-6).sqrt()) as f32);
            }
        }
        out
    }

    #[test]
    fn the_table_of_sums_equals_the_definition() {
        for window_px in [3, 5, 47] {
            let got = normalised(window_px, &image());
            for (got, expected) in got.iter().zip(naive(&image(), window_px)) {
                assert!((got - expected).abs() < 1e-5, "window {window_px}: {got}, {expected}"); // f32 output
            }
        }
    }

    #[test]
    fn a_flat_image_is_zero() {
        let flat = vec![0.7; image().len()];
        assert!(normalised(5, &flat).iter().all(|v| v.abs() < 1e-3));
    }

    #[test]
    fn restoring_the_normalised_image_gives_the_image() {
        let target = NormalizedPixels { window_px: 5 };
        let picture = target.picture(&CELLS, &image(), &normalised(5, &image()));
        assert!(picture.iter().zip(image()).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
