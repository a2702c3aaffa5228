//! The mean color of a patch with three bits per channel, as one class: the masked patch prediction of ViT
//! (arXiv:2010.11929, appendix B.1.2).

use super::patch_grid::{averaged, enlarged};
use super::{Colors, Layout, PatchGrid, Target, TargetValues, most_likely};
use simmim_engine::Images;

/// Bits per channel: 512 classes for three channels (arXiv:2010.11929, appendix B.1.2).
const BITS: u32 = 3;

/// The mean of each channel over the square of a feature, as one of 8 levels; all channels together are one class.
///
/// A picture of a prediction shows the centers of the levels of the most likely class.
#[derive(Clone, Debug)]
pub struct MeanColor {
    /// Side in pixels of the square of a feature.
    pub stride_px: usize,
    /// Conversion of normalized values to values from 0 to 1.
    pub colors: Colors,
}

impl MeanColor {
    /// Number of classes for images with this number of channels.
    pub fn classes(channels: usize) -> usize {
        1 << (BITS as usize * channels)
    }
}

impl Target for MeanColor {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: 1, side: 1, classes: Some(Self::classes(grid.channels)) }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let means = averaged(images.pixels, images.width, self.stride_px);
        let plane = images.height * images.width / (self.stride_px * self.stride_px);
        let class = |(image, sub_patch): (usize, usize)| {
            (0..images.channels).fold(0, |class, channel| {
                let share = self.colors.share(channel, means[(image * images.channels + channel) * plane + sub_patch]);
                let level = ((share * (1 << BITS) as f32) as u32).min((1 << BITS) - 1);
                class << BITS | level // the first channel has the highest bits
            })
        };
        let sub_patches = (0..images.count).flat_map(|image| (0..plane).map(move |sub_patch| (image, sub_patch)));
        TargetValues::Classes(sub_patches.map(class).collect())
    }

    fn picture(&self, grid: &PatchGrid, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let classes = most_likely(prediction, Self::classes(grid.channels));
        let middle = |channel: usize, class: u32| {
            let level = class >> (BITS as usize * (grid.channels - 1 - channel)) & ((1 << BITS) - 1);
            self.colors.normalized(channel, (level as f32 + 0.5) / (1 << BITS) as f32)
        };
        let colors: Vec<f32> =
            (0..grid.channels).flat_map(|channel| classes.iter().map(move |class| middle(channel, *class))).collect();
        enlarged(&colors, grid.columns(), self.stride_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_pixels_have_the_class_of_their_mean() {
        // means 0.5, 0.1 and 0.95: levels 4, 0 and 7
        let pixels = [0.0, 1.0, 0.4, 0.6, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 1.0, 1.0];
        let images = Images { pixels: &pixels, count: 1, channels: 3, height: 2, width: 2 };
        let target = MeanColor { stride_px: 2, colors: Colors::unknown(3) };
        let TargetValues::Classes(classes) = target.values_of(&images) else { panic!("colors are classes") };
        let class = 4 * 64 + 7;
        assert_eq!(classes, [class]);

        let grid = PatchGrid { channels: 3, height: 2, width: 2, side: 2 };
        assert_eq!(target.layout(&grid), Layout { channels: 1, side: 1, classes: Some(512) });
        let mut scores = vec![0.0; 512];
        scores[class as usize] = 1.0;
        let middles = [4.5 / 8.0, 0.5 / 8.0, 7.5 / 8.0];
        assert_eq!(target.picture(&grid, &pixels, &scores), middles.map(|m| [m; 4]).concat());
    }
}
