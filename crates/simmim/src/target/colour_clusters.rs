//! The nearest colour of a palette, as a class: iGPT's pixels (Chen et al., "Generative Pretraining from
//! Pixels", ICML 2020; arXiv:2111.09886, ablation of prediction targets).

use super::cells::{averaged, enlarged};
use super::{Cells, Colours, Layout, Palette, Target, Truth, most_likely};
use simmim_engine::Images;

/// Which of a palette's colours is nearest to each position, all channels in one class.
///
/// A prediction is shown as its most likely colour.
#[derive(Clone, Debug)]
pub struct ColourClusters {
    /// Colours of the palette, `K`.
    pub clusters: usize,
    /// Side of the square whose mean colour counts; 1 for full resolution.
    pub position_px: usize,
    /// What colours normalised values are, and the palette.
    pub colours: Colours,
}

impl ColourClusters {
    /// # Panics
    /// If nothing is known of the images: only shapes are then asked for.
    fn palette(&self) -> &Palette {
        self.colours.palette.as_ref().expect("a model that predicts knows its palette")
    }
}

impl Target for ColourClusters {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: 1, side: cells.side / self.position_px, classes: Some(self.clusters) }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let palette = self.palette();
        let means = averaged(images.pixels, images.width, self.position_px);
        let plane = means.len() / images.count / images.channels;
        let (mut colour, mut distances) = (vec![0.0; images.channels], Vec::new());
        let mut class = |means: &[f32], position: usize| {
            for (channel, share) in colour.iter_mut().enumerate() {
                *share = self.colours.share(channel, means[channel * plane + position]);
            }
            palette.nearest(&colour, &mut distances)
        };
        let of_image = means.chunks_exact(images.channels * plane);
        let places = of_image.flat_map(|means| (0..plane).map(move |position| (means, position)));
        Truth::Classes(places.map(|(means, position)| class(means, position)).collect())
    }

    fn picture(&self, cells: &Cells, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let palette = self.palette();
        let classes = most_likely(prediction, self.clusters);
        let of_channel = |channel: usize| {
            let value = move |class: &u32| self.colours.normalised(channel, palette.share(*class as usize, channel));
            classes.iter().map(value)
        };
        let colours: Vec<f32> = (0..cells.channels).flat_map(of_channel).collect();
        enlarged(&colours, cells.width / self.position_px, self.position_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Normalisation;

    #[test]
    fn two_by_two_pixels_have_the_class_of_the_nearest_colour() {
        let normalisation = Normalisation { mean: vec![0.5, 0.5], std: vec![0.5, 0.25] };
        let palette = Palette::new(2, &[0.0, 0.0, 1.0, 0.0, 0.5, 0.5]);
        let colours = Colours { normalisation, palette: Some(palette) };
        // shares 0.1 0.9 0.5 0.6 of the first channel and 0.1 0.0 0.5 0.3 of the second
        let pixels = [-0.8, 0.8, 0.0, 0.2, -1.6, -2.0, 0.0, -0.8];
        let images = Images { pixels: &pixels, count: 1, channels: 2, height: 2, width: 2 };
        let cells = Cells { channels: 2, height: 2, width: 2, side: 2 };
        let of = |position_px| ColourClusters { clusters: 3, position_px, colours: colours.clone() };
        for (position_px, expected) in [(1, vec![0, 1, 2, 2]), (2, vec![2])] {
            let Truth::Classes(classes) = of(position_px).truth(&images) else { panic!("colours are classes") };
            assert_eq!(classes, expected, "{position_px} px");
        }
        assert_eq!(of(1).layout(&cells), Layout { channels: 1, side: 2, classes: Some(3) });
        let picture = of(2).picture(&cells, &pixels, &[0.0, 1.0, 0.5]);
        assert_eq!(picture, [1.0, 1.0, 1.0, 1.0, -2.0, -2.0, -2.0, -2.0]); // all red: 1 and 0 as shares
    }
}
