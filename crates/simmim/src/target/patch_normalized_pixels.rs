//! Pixels normalised by mean and deviation of their cell: the target of MAE
//! (facebookresearch/mae, `models_mae.py`, `forward_loss`).

use super::{Cells, Layout, Shows, Target, Truth};
use simmim_engine::Images;
use std::borrow::Cow;

/// Added to the variance.
const EPS: f64 = 1e-6;

/// `(x − mean) / deviation`, both over all channels of a feature's cell: ViT's patch.
///
/// A prediction is shown with mean and deviation of the true cells.
#[derive(Clone, Copy, Debug)]
pub struct PatchNormalizedPixels {
    /// Side of a cell in pixels.
    pub cell_px: usize,
}

impl PatchNormalizedPixels {
    /// Calls `change(mean, deviation, value)` for every pixel of an image, with those of `of` at its cell.
    fn map(
        &self,
        width: usize,
        channels: usize,
        of: &[f32],
        values: &mut [f32],
        change: impl Fn(f64, f64, f32) -> f32,
    ) {
        let plane = of.len() / channels;
        let columns = width / self.cell_px;
        for cell in 0..plane / (self.cell_px * self.cell_px) {
            let (top, left) = (cell / columns * self.cell_px, cell % columns * self.cell_px);
            let lines =
                (0..channels).flat_map(|c| (top..top + self.cell_px).map(move |y| c * plane + y * width + left));
            let places: Vec<usize> = lines.flat_map(|start| start..start + self.cell_px).collect();
            let n = places.len() as f64;
            let mean = places.iter().map(|i| of[*i] as f64).sum::<f64>() / n;
            let squares: f64 = places.iter().map(|i| (of[*i] as f64 - mean).powi(2)).sum();
            let deviation = (squares / (n - 1.0).max(1.0) + EPS).sqrt(); // the unbiased variance
            places.into_iter().for_each(|i| values[i] = change(mean, deviation, values[i]));
        }
    }
}

impl Target for PatchNormalizedPixels {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: cells.channels, side: cells.side, classes: None }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let mut values = images.pixels.to_vec();
        for (i, values) in values.chunks_exact_mut(images.image_len()).enumerate() {
            let normalise = |mean, deviation, value: f32| ((value as f64 - mean) / deviation) as f32;
            self.map(images.width, images.channels, images.image(i), values, normalise);
        }
        Truth::Values(Cow::Owned(values))
    }

    fn picture(&self, cells: &Cells, image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let mut picture = prediction.to_vec();
        let restore = |mean, deviation, value: f32| (value as f64 * deviation + mean) as f32;
        self.map(cells.width, cells.channels, image, &mut picture, restore);
        picture
    }

    fn shows(&self) -> Shows {
        Shows::Detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_pixels_of_two_channels_are_normalised_together() {
        // 0, 2, 2, 4 and 4, 4, 0, 0: mean 2, squares 4 + 0 + 0 + 4 + 4 + 4 + 4 + 4 = 24, variance 24/7
        let pixels = [0.0, 2.0, 2.0, 4.0, 4.0, 4.0, 0.0, 0.0];
        let images = Images { pixels: &pixels, count: 1, channels: 2, height: 2, width: 2 };
        let target = PatchNormalizedPixels { cell_px: 2 };
        let Truth::Values(values) = target.truth(&images) else { panic!("pixels are values") };
        let deviation = (24f32 / 7.0).sqrt();
        for (value, pixel) in values.iter().zip(pixels) {
            assert!((value - (pixel - 2.0) / deviation).abs() < 1e-5, "{value} of {pixel}"); // f32 output
        }
        let cells = Cells { channels: 2, height: 2, width: 2, side: 2 };
        let picture = target.picture(&cells, &pixels, &values);
        assert!(picture.iter().zip(pixels).all(|(a, b)| (a - b).abs() < 1e-5), "{picture:?}");
    }

    #[test]
    fn cells_do_not_see_each_other() {
        let pixels = [1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 2.0, 0.0];
        let images = Images { pixels: &pixels, count: 1, channels: 1, height: 2, width: 4 };
        let Truth::Values(values) = PatchNormalizedPixels { cell_px: 2 }.truth(&images) else {
            panic!("pixels are values")
        };
        assert_eq!([values[0], values[1], values[4], values[5]], [0.0; 4]);
        assert!(values[2] < -0.8 && values[3] > 0.8, "{values:?}"); // ±√¾
    }
}
