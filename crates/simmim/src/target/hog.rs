//! Histograms of oriented gradients: the target of MaskFeat (arXiv:2112.09133).
//!
//! As in facebookresearch/SlowFast, `slowfast/models/operators.py`: differences of the neighbours on
//! both sides (the border mirrored), nine unsigned orientations into which a gradient falls with its whole
//! length, each histogram scaled to length 1. Unlike there, a histogram's pixels all count the same.

use super::cells::enlarged;
use super::{Cells, Layout, Shows, Target, Truth};
use simmim_engine::Images;
use std::borrow::Cow;
use std::f32::consts::PI;

/// Orientations between 0 and 180 degrees (arXiv:2112.09133).
const BINS: usize = 9;

/// A histogram of gradients for each channel of each position.
#[derive(Clone, Copy, Debug)]
pub struct Hog {
    /// Side of the square that a histogram is of.
    pub position_px: usize,
}

impl Hog {
    /// Predicted values of a position.
    pub fn values(channels: usize) -> usize {
        BINS * channels
    }

    /// Adds the histograms of one channel, `[H, W]`, to `maps`, `[9, h, w]`.
    fn add(&self, plane: &[f32], width: usize, maps: &mut [f32]) {
        let height = plane.len() / width;
        let (columns, positions) = (width / self.position_px, maps.len() / BINS);
        // what lies beyond the border is what lies on this side of it
        let before = |i: usize, len: usize| if i == 0 { 1.min(len - 1) } else { i - 1 };
        let behind = |i: usize, len: usize| if i + 1 == len { len.saturating_sub(2) } else { i + 1 };
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let d_x = plane[y * width + behind(x, width)] - plane[y * width + before(x, width)];
            let d_y = plane[behind(y, height) * width + x] - plane[before(y, height) * width + x];
            let bin = bin_of(d_y.atan2(d_x));
            let position = y / self.position_px * columns + x / self.position_px;
            maps[bin * positions + position] += (d_x * d_x + d_y * d_y).sqrt();
        }
        for position in 0..positions {
            let places = (0..BINS).map(|bin| bin * positions + position);
            let length: f32 = places.clone().map(|i| maps[i] * maps[i]).sum::<f32>().sqrt();
            places.for_each(|i| maps[i] /= length.max(1e-12));
        }
    }
}

/// The orientation that an angle falls into.
fn bin_of(angle: f32) -> usize {
    ((angle.rem_euclid(PI) / PI * BINS as f32) as usize) % BINS
}

impl Target for Hog {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: Self::values(cells.channels), side: cells.side / self.position_px, classes: None }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let plane = images.height * images.width;
        let positions = plane / (self.position_px * self.position_px);
        let mut maps = vec![0.0; images.pixels.len() / plane * BINS * positions]; // [B, C·9, h, w]
        for (plane, maps) in images.pixels.chunks_exact(plane).zip(maps.chunks_exact_mut(BINS * positions)) {
            self.add(plane, images.width, maps);
        }
        Truth::Values(Cow::Owned(maps))
    }

    /// Each position as a star: bright along the edges that its histogram knows, which run across
    /// gradients; brightness from the mean of a channel up to two deviations above it.
    fn picture(&self, cells: &Cells, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let px = self.position_px;
        let positions = cells.height * cells.width / (px * px);
        let bins = enlarged(prediction, cells.width / px, px); // [C·9, H, W]
        let plane = positions * px * px;
        let middle = (px as f32 - 1.0) / 2.0;
        let value = |i: usize| {
            let (channel, pixel) = (i / plane, i % plane);
            let (y, x) = ((pixel / cells.width % px) as f32 - middle, (pixel % cells.width % px) as f32 - middle);
            let bin = bin_of(y.atan2(x) + PI / 2.0);
            2.0 * bins[(channel * BINS + bin) * plane + pixel]
        };
        (0..cells.channels * plane).map(value).collect()
    }

    fn shows(&self) -> Shows {
        Shows::Drawing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histograms(pixels: &[f32], position_px: usize, width: usize) -> Vec<f32> {
        let images = Images { pixels, count: 1, channels: 1, height: pixels.len() / width, width };
        let Truth::Values(values) = (Hog { position_px }).truth(&images) else { panic!("histograms are values") };
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
        // two squares of 2×2: columns 0 0 3 0 in both rows. Mirrored, every difference along y is 0; those along x
        // are 0 − 0, 3 − 0, 0 − 0 and 3 − 3: one orientation on the left, nothing on the right
        let histogram = histograms(&[0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 3.0, 0.0], 2, 4);
        let [left, right] = [0, 1].map(|position| (0..BINS).map(|bin| histogram[bin * 2 + position]).sum::<f32>());
        assert_eq!((histogram[0], left, right), (1.0, 1.0, 0.0));
    }

    #[test]
    fn a_star_is_bright_across_its_gradient() {
        let cells = Cells { channels: 1, height: 5, width: 5, side: 5 };
        let mut histogram = vec![0.0; BINS];
        histogram[0] = 1.0; // gradients along x: a vertical edge
        let picture = Hog { position_px: 5 }.picture(&cells, &[0.0; 25], &histogram);
        assert_eq!((picture[2], picture[22], picture[10], picture[14]), (2.0, 2.0, 0.0, 0.0));
    }
}
