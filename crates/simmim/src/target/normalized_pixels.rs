//! Pixels normalised by mean and deviation of the window around each: SwinV2's target
//! (microsoft/Swin-Transformer, `models/simmim.py`, `norm_targets`).

use super::{Cells, Pixels, Target};
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
    fn statistics(&self, cells: &Cells, plane: &[f32]) -> Vec<Local> {
        let (height, width) = (cells.height, cells.width);
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
    fn outputs(&self, cells: &Cells) -> usize {
        Pixels.outputs(cells)
    }

    fn prepare<'a>(&self, cells: &Cells, image: &'a [f32]) -> Cow<'a, [f32]> {
        let normalise = |plane: &[f32]| -> Vec<f32> {
            let locals = self.statistics(cells, plane);
            plane.iter().zip(locals).map(|(v, l)| ((*v as f64 - l.mean) / l.deviation) as f32).collect()
        };
        Cow::Owned(image.chunks_exact(cells.height * cells.width).flat_map(normalise).collect())
    }

    fn values(&self, cells: &Cells, prepared: &[f32], cell: usize, values: &mut [f32]) {
        Pixels.values(cells, prepared, cell, values);
    }

    fn weights(&self, cells: &Cells, pixel_weight: &[f32], cell: usize, weight: &mut [f32]) {
        Pixels.weights(cells, pixel_weight, cell, weight);
    }

    fn paint(&self, cells: &Cells, prediction: &[f32], cell: usize, picture: &mut [f32]) {
        Pixels.paint(cells, prediction, cell, picture);
    }

    fn restore(&self, cells: &Cells, image: &[f32], picture: &mut [f32]) {
        let plane = cells.height * cells.width;
        for (picture, image) in picture.chunks_exact_mut(plane).zip(image.chunks_exact(plane)) {
            for (value, local) in picture.iter_mut().zip(self.statistics(cells, image)) {
                *value = (*value as f64 * local.deviation + local.mean) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELLS: Cells = Cells { channels: 2, height: 6, width: 8, side: 2 };

    fn image() -> Vec<f32> {
        (0..CELLS.channels * CELLS.height * CELLS.width).map(|i| ((i * 37) % 19) as f32 / 7.0 - 1.0).collect()
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
            let got = NormalizedPixels { window_px }.prepare(&CELLS, &image()).into_owned();
            for (got, expected) in got.iter().zip(naive(&image(), window_px)) {
                assert!((got - expected).abs() < 1e-5, "window {window_px}: {got}, {expected}"); // f32 output
            }
        }
    }

    #[test]
    fn a_flat_image_is_zero() {
        let flat = vec![0.7; image().len()];
        assert!(NormalizedPixels { window_px: 5 }.prepare(&CELLS, &flat).iter().all(|v| v.abs() < 1e-3));
    }

    #[test]
    fn restoring_the_normalised_image_gives_the_image() {
        let target = NormalizedPixels { window_px: 5 };
        let mut picture = target.prepare(&CELLS, &image()).into_owned();
        target.restore(&CELLS, &image(), &mut picture);
        assert!(picture.iter().zip(image()).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
