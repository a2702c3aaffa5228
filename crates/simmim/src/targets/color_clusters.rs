//! Color clusters: the nearest color of a palette, a classification target of iGPT (Chen et al., "Generative
//! Pretraining from Pixels", ICML 2020; arXiv:2111.09886, ablation of prediction targets).

use super::patch_grid::{averaged, enlarged};
use super::{Colors, Layout, Palette, PatchGrid, Target, TargetValues, most_likely};
use simmim_engine::Images;

/// The nearest color of the palette for each sub-patch; all channels together are one class.
///
/// A picture of a prediction shows the most likely color.
#[derive(Clone, Debug)]
pub struct ColorClusters {
    /// Number of colors of the palette, `K`.
    pub clusters: usize,
    /// Side in pixels of a sub-patch, whose mean color is used; 1 for full resolution.
    pub sub_patch_px: usize,
    /// Conversion of normalized values to values from 0 to 1, and the palette.
    pub colors: Colors,
}

impl ColorClusters {
    /// The palette.
    ///
    /// # Panics
    /// If there is none, as in a model that is built only for its shapes.
    fn palette(&self) -> &Palette {
        self.colors.palette.as_ref().expect("a model that predicts has a palette")
    }
}

impl Target for ColorClusters {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: 1, side: grid.side / self.sub_patch_px, classes: Some(self.clusters) }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let palette = self.palette();
        let means = averaged(images.pixels, images.width, self.sub_patch_px);
        let plane = means.len() / images.count / images.channels;
        let (mut color, mut distances) = (vec![0.0; images.channels], Vec::new());
        let mut class = |means: &[f32], sub_patch: usize| {
            for (channel, share) in color.iter_mut().enumerate() {
                *share = self.colors.share(channel, means[channel * plane + sub_patch]);
            }
            palette.nearest(&color, &mut distances)
        };
        let of_image = means.chunks_exact(images.channels * plane);
        let sub_patches = of_image.flat_map(|means| (0..plane).map(move |sub_patch| (means, sub_patch)));
        TargetValues::Classes(sub_patches.map(|(means, sub_patch)| class(means, sub_patch)).collect())
    }

    fn picture(&self, grid: &PatchGrid, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let palette = self.palette();
        let classes = most_likely(prediction, self.clusters);
        let of_channel = |channel: usize| {
            let value = move |class: &u32| self.colors.normalized(channel, palette.share(*class as usize, channel));
            classes.iter().map(value)
        };
        let colors: Vec<f32> = (0..grid.channels).flat_map(of_channel).collect();
        enlarged(&colors, grid.width / self.sub_patch_px, self.sub_patch_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Normalization;

    #[test]
    fn two_by_two_pixels_have_the_class_of_the_nearest_color() {
        let normalization = Normalization { mean: vec![0.5, 0.5], std: vec![0.5, 0.25] };
        let palette = Palette::new(2, &[0.0, 0.0, 1.0, 0.0, 0.5, 0.5]);
        let colors = Colors { normalization, palette: Some(palette) };
        // values from 0 to 1: 0.1, 0.9, 0.5, 0.6 in the first channel; 0.1, 0, 0.5, 0.3 in the second
        let pixels = [-0.8, 0.8, 0.0, 0.2, -1.6, -2.0, 0.0, -0.8];
        let images = Images { pixels: &pixels, count: 1, channels: 2, height: 2, width: 2 };
        let grid = PatchGrid { channels: 2, height: 2, width: 2, side: 2 };
        let of = |sub_patch_px| ColorClusters { clusters: 3, sub_patch_px, colors: colors.clone() };
        for (sub_patch_px, expected) in [(1, vec![0, 1, 2, 2]), (2, vec![2])] {
            let TargetValues::Classes(classes) = of(sub_patch_px).values_of(&images) else {
                panic!("colors are classes")
            };
            assert_eq!(classes, expected, "{sub_patch_px} px");
        }
        assert_eq!(of(1).layout(&grid), Layout { channels: 1, side: 2, classes: Some(3) });
        let picture = of(2).picture(&grid, &pixels, &[0.0, 1.0, 0.5]);
        assert_eq!(picture, [1.0, 1.0, 1.0, 1.0, -2.0, -2.0, -2.0, -2.0]); // all of the color (1, 0)
    }
}
