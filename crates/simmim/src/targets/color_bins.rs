//! Color discretization: the value of each channel as one of `K` bins, a classification target (arXiv:2111.09886,
//! ablation of prediction targets with 8 and 256 bins).

use super::patch_grid::{averaged, enlarged};
use super::{Colors, Layout, PatchGrid, Target, TargetValues, most_likely};
use simmim_engine::Images;

/// The bin of each channel of each sub-patch; the bins divide the range from 0 to 1 equally.
///
/// A picture of a prediction shows the center of the most likely bin.
#[derive(Clone, Debug)]
pub struct ColorBins {
    /// Number of bins per channel, `K`.
    pub bins: usize,
    /// Side in pixels of a sub-patch, whose mean is binned; 1 for full resolution.
    pub sub_patch_px: usize,
    /// Conversion of normalized values to values from 0 to 1.
    pub colors: Colors,
}

impl Target for ColorBins {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: grid.channels, side: grid.side / self.sub_patch_px, classes: Some(self.bins) }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let means = averaged(images.pixels, images.width, self.sub_patch_px);
        let plane = images.height * images.width / (self.sub_patch_px * self.sub_patch_px);
        let bin = |(i, value): (usize, &f32)| {
            let share = self.colors.share(i / plane % images.channels, *value);
            ((share * self.bins as f32) as u32).min(self.bins as u32 - 1) // 1 is in the last bin
        };
        TargetValues::Classes(means.iter().enumerate().map(bin).collect())
    }

    fn picture(&self, grid: &PatchGrid, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let bins = most_likely(prediction, self.bins);
        let plane = bins.len() / grid.channels;
        let center =
            |(i, bin): (usize, &u32)| self.colors.normalized(i / plane, (*bin as f32 + 0.5) / self.bins as f32);
        let values: Vec<f32> = bins.iter().enumerate().map(center).collect();
        enlarged(&values, grid.width / self.sub_patch_px, self.sub_patch_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Normalization;

    fn target(bins: usize, sub_patch_px: usize) -> ColorBins {
        let colors =
            Colors { normalization: Normalization { mean: vec![0.5, 0.0], std: vec![0.25, 1.0] }, palette: None };
        ColorBins { bins, sub_patch_px, colors }
    }

    #[test]
    fn two_by_two_pixels_fall_into_their_bins() {
        // values from 0 to 1: 0, 0.5, 0.74, 1 in the first channel; 0.1, 0.3, 0.6, 0.9 in the second
        let pixels = [-2.0, 0.0, 0.96, 2.0, 0.1, 0.3, 0.6, 0.9];
        let images = Images { pixels: &pixels, count: 1, channels: 2, height: 2, width: 2 };
        let check = |bins, sub_patch_px, expected: &[u32]| {
            let TargetValues::Classes(found) = target(bins, sub_patch_px).values_of(&images) else {
                panic!("bins are classes")
            };
            assert_eq!(found, expected, "{bins} bins of {sub_patch_px} px");
        };
        check(4, 1, &[0, 2, 2, 3, 0, 1, 2, 3]);
        check(256, 1, &[0, 128, 189, 255, 25, 76, 153, 230]);
        check(4, 2, &[2, 1]); // means 0.56 and 0.475
    }

    #[test]
    fn a_prediction_is_shown_as_the_center_of_its_most_likely_bin() {
        let grid = PatchGrid { channels: 2, height: 2, width: 2, side: 2 };
        assert_eq!(target(4, 2).layout(&grid), Layout { channels: 2, side: 1, classes: Some(4) });
        // of four bins, the center of bin 2 is 0.625 and that of bin 0 is 0.125
        let scores = [0.0, 0.0, 1.0, 0.5, 3.0, 0.0, 1.0, 0.5];
        assert_eq!(target(4, 2).picture(&grid, &[0.0; 8], &scores), [0.5, 0.5, 0.5, 0.5, 0.125, 0.125, 0.125, 0.125]);
    }
}
