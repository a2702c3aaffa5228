//! Pixels normalized by mean and standard deviation of their patch: the target of MAE (arXiv:2111.06377;
//! facebookresearch/mae, `models_mae.py`, `forward_loss`).

use super::{Layout, PatchGrid, PictureKind, Target, TargetValues};
use simmim_engine::Images;
use std::borrow::Cow;

/// Added to the variance (facebookresearch/mae, `models_mae.py`, `forward_loss`).
const EPS: f64 = 1e-6;

/// `(x − mean) / std`, both over all channels of the patch that a feature covers.
///
/// A picture of a prediction uses mean and standard deviation of the original patches.
#[derive(Clone, Copy, Debug)]
pub struct PatchNormalizedPixels {
    /// Side of a patch in pixels: the stride of the encoder.
    pub stride_px: usize,
}

impl PatchNormalizedPixels {
    /// Replaces each of `values` with `change(mean, std, value)`, where mean and standard deviation are those of the
    /// patch in the image `of`, `[C, H, W]`.
    fn map(
        &self,
        width: usize,
        channels: usize,
        of: &[f32],
        values: &mut [f32],
        change: impl Fn(f64, f64, f32) -> f32,
    ) {
        let plane = of.len() / channels;
        let columns = width / self.stride_px;
        for patch in 0..plane / (self.stride_px * self.stride_px) {
            let (top, left) = (patch / columns * self.stride_px, patch % columns * self.stride_px);
            let lines =
                (0..channels).flat_map(|c| (top..top + self.stride_px).map(move |y| c * plane + y * width + left));
            let indices: Vec<usize> = lines.flat_map(|start| start..start + self.stride_px).collect();
            let n = indices.len() as f64;
            let mean = indices.iter().map(|i| of[*i] as f64).sum::<f64>() / n;
            let squares: f64 = indices.iter().map(|i| (of[*i] as f64 - mean).powi(2)).sum();
            let deviation = (squares / (n - 1.0).max(1.0) + EPS).sqrt(); // with the unbiased variance
            indices.into_iter().for_each(|i| values[i] = change(mean, deviation, values[i]));
        }
    }
}

impl Target for PatchNormalizedPixels {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: grid.channels, side: grid.side, classes: None }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let mut values = images.pixels.to_vec();
        for (i, values) in values.chunks_exact_mut(images.image_len()).enumerate() {
            let normalize = |mean, deviation, value: f32| ((value as f64 - mean) / deviation) as f32;
            self.map(images.width, images.channels, images.image(i), values, normalize);
        }
        TargetValues::Values(Cow::Owned(values))
    }

    fn picture(&self, grid: &PatchGrid, image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let mut picture = prediction.to_vec();
        let restore = |mean, deviation, value: f32| (value as f64 * deviation + mean) as f32;
        self.map(grid.width, grid.channels, image, &mut picture, restore);
        picture
    }

    fn picture_kind(&self) -> PictureKind {
        PictureKind::Detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_pixels_of_two_channels_are_normalized_together() {
        // 0, 2, 2, 4 and 4, 4, 0, 0: mean 2, squares 4 + 0 + 0 + 4 + 4 + 4 + 4 + 4 = 24, variance 24/7
        let pixels = [0.0, 2.0, 2.0, 4.0, 4.0, 4.0, 0.0, 0.0];
        let images = Images { pixels: &pixels, count: 1, channels: 2, height: 2, width: 2 };
        let target = PatchNormalizedPixels { stride_px: 2 };
        let TargetValues::Values(values) = target.values_of(&images) else { panic!("pixels are values") };
        let deviation = (24f32 / 7.0).sqrt();
        for (value, pixel) in values.iter().zip(pixels) {
            assert!((value - (pixel - 2.0) / deviation).abs() < 1e-5, "{value} of {pixel}"); // f32 output
        }
        let grid = PatchGrid { channels: 2, height: 2, width: 2, side: 2 };
        let picture = target.picture(&grid, &pixels, &values);
        assert!(picture.iter().zip(pixels).all(|(a, b)| (a - b).abs() < 1e-5), "{picture:?}");
    }

    #[test]
    fn patches_are_normalized_independently() {
        let pixels = [1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 2.0, 0.0];
        let images = Images { pixels: &pixels, count: 1, channels: 1, height: 2, width: 4 };
        let TargetValues::Values(values) = PatchNormalizedPixels { stride_px: 2 }.values_of(&images) else {
            panic!("pixels are values")
        };
        assert_eq!([values[0], values[1], values[4], values[5]], [0.0; 4]);
        assert!(values[2] < -0.8 && values[3] > 0.8, "{values:?}"); // ±√¾
    }
}
