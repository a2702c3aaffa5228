//! Histograms of oriented gradients (HOG): the target of MaskFeat (arXiv:2112.09133).
//!
//! As in facebookresearch/SlowFast, `slowfast/models/operators.py`: gradients are central differences with mirrored
//! borders, a gradient adds its magnitude to one of nine unsigned orientations, and each histogram is scaled to unit
//! length. Unlike there, all pixels of a histogram have the same weight.

use super::patch_grid::enlarged;
use super::{Layout, PatchGrid, PictureKind, Target, TargetValues};
use simmim_engine::Images;
use std::borrow::Cow;
use std::f32::consts::PI;

/// Number of orientation bins between 0 and 180 degrees (arXiv:2112.09133).
const BINS: usize = 9;

/// A histogram of gradients for each channel of each sub-patch.
#[derive(Clone, Copy, Debug)]
pub struct Hog {
    /// Side in pixels of a sub-patch, over which a histogram is computed.
    pub sub_patch_px: usize,
}

impl Hog {
    /// Number of predicted values per sub-patch.
    pub fn values(channels: usize) -> usize {
        BINS * channels
    }

    /// Adds the histograms of one channel, `[H, W]`, to `maps`, `[9, h, w]`.
    fn add(&self, plane: &[f32], width: usize, maps: &mut [f32]) {
        let height = plane.len() / width;
        let (columns, sub_patches) = (width / self.sub_patch_px, maps.len() / BINS);
        // mirrored border
        let before = |i: usize, len: usize| if i == 0 { 1.min(len - 1) } else { i - 1 };
        let after = |i: usize, len: usize| if i + 1 == len { len.saturating_sub(2) } else { i + 1 };
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let d_x = plane[y * width + after(x, width)] - plane[y * width + before(x, width)];
            let d_y = plane[after(y, height) * width + x] - plane[before(y, height) * width + x];
            let bin = bin_of(d_y.atan2(d_x));
            let sub_patch = y / self.sub_patch_px * columns + x / self.sub_patch_px;
            maps[bin * sub_patches + sub_patch] += (d_x * d_x + d_y * d_y).sqrt();
        }
        for sub_patch in 0..sub_patches {
            let indices = (0..BINS).map(|bin| bin * sub_patches + sub_patch);
            let length: f32 = indices.clone().map(|i| maps[i] * maps[i]).sum::<f32>().sqrt();
            indices.for_each(|i| maps[i] /= length.max(1e-12));
        }
    }
}

/// The orientation bin of an angle in radians.
fn bin_of(angle: f32) -> usize {
    ((angle.rem_euclid(PI) / PI * BINS as f32) as usize) % BINS
}

impl Target for Hog {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: Self::values(grid.channels), side: grid.side / self.sub_patch_px, classes: None }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let plane = images.height * images.width;
        let sub_patches = plane / (self.sub_patch_px * self.sub_patch_px);
        let mut maps = vec![0.0; images.pixels.len() / plane * BINS * sub_patches]; // [B, C·9, h, w]
        for (plane, maps) in images.pixels.chunks_exact(plane).zip(maps.chunks_exact_mut(BINS * sub_patches)) {
            self.add(plane, images.width, maps);
        }
        TargetValues::Values(Cow::Owned(maps))
    }

    /// Each sub-patch as a star with one ray per orientation. Rays are perpendicular to gradients, along edges, and
    /// range in brightness from the mean of the channel to two standard deviations above it.
    fn picture(&self, grid: &PatchGrid, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let px = self.sub_patch_px;
        let sub_patches = grid.height * grid.width / (px * px);
        let bins = enlarged(prediction, grid.width / px, px); // [C·9, H, W]
        let plane = sub_patches * px * px;
        let middle = (px as f32 - 1.0) / 2.0;
        let value = |i: usize| {
            let (channel, pixel) = (i / plane, i % plane);
            let (y, x) = ((pixel / grid.width % px) as f32 - middle, (pixel % grid.width % px) as f32 - middle);
            let bin = bin_of(y.atan2(x) + PI / 2.0);
            2.0 * bins[(channel * BINS + bin) * plane + pixel]
        };
        (0..grid.channels * plane).map(value).collect()
    }

    fn picture_kind(&self) -> PictureKind {
        PictureKind::Drawing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histograms(pixels: &[f32], sub_patch_px: usize, width: usize) -> Vec<f32> {
        let images = Images { pixels, count: 1, channels: 1, height: pixels.len() / width, width };
        let TargetValues::Values(values) = (Hog { sub_patch_px }).values_of(&images) else {
            panic!("histograms are values")
        };
        values.into_owned()
    }

    #[test]
    fn a_ramp_has_one_orientation() {
        let along_x: Vec<f32> = (0..16).map(|i| (i % 4) as f32).collect();
        let along_y: Vec<f32> = (0..16).map(|i| (i / 4) as f32).collect();
        let only = |bin: usize| (0..BINS).map(|i| (i == bin) as u8 as f32).collect::<Vec<_>>();
        assert_eq!(histograms(&along_x, 4, 4), only(0)); // 0 degrees
        assert_eq!(histograms(&along_y, 4, 4), only(4)); // 90 of 180 degrees in nine bins of 20
        assert_eq!(histograms(&[0.5; 16], 4, 4), [0.0; BINS]);
    }

    #[test]
    fn two_by_two_pixels_by_hand() {
        // two sub-patches of 2×2 pixels with the values 0 0 3 0 in both rows. Every difference along y is 0; those along x
        // are 0 − 0, 3 − 0, 0 − 0 and 3 − 3: one orientation on the left, no gradient on the right
        let histogram = histograms(&[0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 3.0, 0.0], 2, 4);
        let [left, right] = [0, 1].map(|sub_patch| (0..BINS).map(|bin| histogram[bin * 2 + sub_patch]).sum::<f32>());
        assert_eq!((histogram[0], left, right), (1.0, 1.0, 0.0));
    }

    #[test]
    fn a_star_is_bright_across_its_gradient() {
        let grid = PatchGrid { channels: 1, height: 5, width: 5, side: 5 };
        let mut histogram = vec![0.0; BINS];
        histogram[0] = 1.0; // gradients along x: a vertical edge
        let picture = Hog { sub_patch_px: 5 }.picture(&grid, &[0.0; 25], &histogram);
        assert_eq!((picture[2], picture[22], picture[10], picture[14]), (2.0, 2.0, 0.0, 0.0));
    }
}
