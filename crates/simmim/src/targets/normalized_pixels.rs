//! Pixels normalized by mean and standard deviation of the window around each pixel: the target of SwinV2
//! (microsoft/Swin-Transformer, `models/simmim.py`, `norm_targets`).

use super::{Layout, PatchGrid, PictureKind, Target, TargetValues};
use simmim_engine::Images;
use std::borrow::Cow;

/// Added to the variance (microsoft/Swin-Transformer, `models/simmim.py`, `norm_targets`).
const EPS: f64 = 1e-6;

/// `(x − mean) / std`, both over the window around the pixel, per channel.
///
/// A picture of a prediction uses mean and standard deviation of the original image. So its color and contrast at the
/// scale of a window are the original ones, and only the detail within is predicted.
#[derive(Clone, Copy, Debug)]
pub struct NormalizedPixels {
    /// Side of the window in pixels, odd; at the border only the part inside the image counts.
    pub window_px: usize,
}

/// Mean and standard deviation of the window around one pixel.
#[derive(Clone, Copy)]
struct Local {
    mean: f64,
    deviation: f64,
}

impl Local {
    /// Computes them from the sum and the sum of squares of `count` values, with the unbiased variance.
    fn new(sum: f64, squares: f64, count: usize) -> Self {
        let n = count as f64;
        let mean = sum / n;
        let variance = (squares / n - mean * mean) * n / (n - 1.0).max(1.0);
        Self { mean, deviation: (variance.max(0.0) + EPS).sqrt() }
    }
}

impl NormalizedPixels {
    /// Statistics of the window around every pixel of one channel, `[H, W]`, by a summed-area table.
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
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: grid.channels, side: grid.side, classes: None }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let normalize = |plane: &[f32]| -> Vec<f32> {
            let locals = self.statistics(images.width, plane);
            plane.iter().zip(locals).map(|(v, l)| ((*v as f64 - l.mean) / l.deviation) as f32).collect()
        };
        TargetValues::Values(Cow::Owned(
            images.pixels.chunks_exact(images.height * images.width).flat_map(normalize).collect(),
        ))
    }

    fn picture(&self, grid: &PatchGrid, image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let plane = grid.height * grid.width;
        let restore = |(prediction, image): (&[f32], &[f32])| -> Vec<f32> {
            let locals = self.statistics(grid.width, image);
            prediction.iter().zip(locals).map(|(v, l)| (*v as f64 * l.deviation + l.mean) as f32).collect()
        };
        prediction.chunks_exact(plane).zip(image.chunks_exact(plane)).flat_map(restore).collect()
    }

    fn picture_kind(&self) -> PictureKind {
        PictureKind::Detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: PatchGrid = PatchGrid { channels: 2, height: 6, width: 8, side: 2 };

    fn image() -> Vec<f32> {
        (0..GRID.channels * GRID.height * GRID.width).map(|i| ((i * 37) % 19) as f32 / 7.0 - 1.0).collect()
    }

    fn normalized(window_px: usize, image: &[f32]) -> Vec<f32> {
        let PatchGrid { channels, height, width, .. } = GRID;
        let images = Images { pixels: image, count: 1, channels, height, width };
        let TargetValues::Values(values) = NormalizedPixels { window_px }.values_of(&images) else {
            panic!("pixels are values")
        };
        values.into_owned()
    }

    /// The definition: a loop over the window of each pixel.
    fn naive(image: &[f32], window_px: usize) -> Vec<f32> {
        let (height, width, reach) = (GRID.height as isize, GRID.width as isize, window_px as isize / 2);
        let mut out = Vec::new();
        for c in 0..GRID.channels as isize {
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
    fn the_summed_area_table_equals_the_definition() {
        for window_px in [3, 5, 47] {
            let got = normalized(window_px, &image());
            for (got, expected) in got.iter().zip(naive(&image(), window_px)) {
                assert!((got - expected).abs() < 1e-5, "window {window_px}: {got}, {expected}"); // f32 output
            }
        }
    }

    #[test]
    fn a_flat_image_is_zero() {
        let flat = vec![0.7; image().len()];
        assert!(normalized(5, &flat).iter().all(|v| v.abs() < 1e-3));
    }

    #[test]
    fn restoring_the_normalized_image_gives_the_image() {
        let target = NormalizedPixels { window_px: 5 };
        let picture = target.picture(&GRID, &image(), &normalized(5, &image()));
        assert!(picture.iter().zip(image()).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
