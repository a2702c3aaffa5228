//! Bins of each channel's brightness, as classes (arXiv:2111.09886, ablation of prediction targets: 8 and 256 bins).

use super::cells::{averaged, enlarged};
use super::{Cells, Colours, Layout, Target, Truth, most_likely};
use simmim_engine::Images;

/// Which of some equal bins from black to white each channel of each position lies in.
///
/// A prediction is shown as the middle of its most likely bin.
#[derive(Clone, Debug)]
pub struct ColourBins {
    /// Bins of a channel, `K`.
    pub bins: usize,
    /// Side of the square whose mean is binned; 1 for full resolution.
    pub position_px: usize,
    /// What brightness a normalised value is.
    pub colours: Colours,
}

impl Target for ColourBins {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: cells.channels, side: cells.side / self.position_px, classes: Some(self.bins) }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let means = averaged(images.pixels, images.width, self.position_px);
        let plane = images.height * images.width / (self.position_px * self.position_px);
        let bin = |(i, value): (usize, &f32)| {
            let share = self.colours.share(i / plane % images.channels, *value);
            ((share * self.bins as f32) as u32).min(self.bins as u32 - 1) // white is in the last bin
        };
        Truth::Classes(means.iter().enumerate().map(bin).collect())
    }

    fn picture(&self, cells: &Cells, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let bins = most_likely(prediction, self.bins);
        let plane = bins.len() / cells.channels;
        let middle =
            |(i, bin): (usize, &u32)| self.colours.normalised(i / plane, (*bin as f32 + 0.5) / self.bins as f32);
        let values: Vec<f32> = bins.iter().enumerate().map(middle).collect();
        enlarged(&values, cells.width / self.position_px, self.position_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Normalisation;

    fn target(bins: usize, position_px: usize) -> ColourBins {
        let colours =
            Colours { normalisation: Normalisation { mean: vec![0.5, 0.0], std: vec![0.25, 1.0] }, palette: None };
        ColourBins { bins, position_px, colours }
    }

    #[test]
    fn two_by_two_pixels_fall_into_their_bins() {
        // brightness 0, 0.5, 0.74, 1 of the first channel, 0.1, 0.3, 0.6, 0.9 of the second
        let pixels = [-2.0, 0.0, 0.96, 2.0, 0.1, 0.3, 0.6, 0.9];
        let images = Images { pixels: &pixels, count: 1, channels: 2, height: 2, width: 2 };
        let check = |bins, position_px, expected: &[u32]| {
            let Truth::Classes(found) = target(bins, position_px).truth(&images) else { panic!("bins are classes") };
            assert_eq!(found, expected, "{bins} bins of {position_px} px");
        };
        check(4, 1, &[0, 2, 2, 3, 0, 1, 2, 3]);
        check(256, 1, &[0, 128, 189, 255, 25, 76, 153, 230]);
        check(4, 2, &[2, 1]); // means 0.56 and 0.475
    }

    #[test]
    fn a_prediction_is_shown_as_the_middle_of_its_most_likely_bin() {
        let cells = Cells { channels: 2, height: 2, width: 2, side: 2 };
        assert_eq!(target(4, 2).layout(&cells), Layout { channels: 2, side: 1, classes: Some(4) });
        // bin 2 of four is around 0.625, bin 0 around 0.125
        let scores = [0.0, 0.0, 1.0, 0.5, 3.0, 0.0, 1.0, 0.5];
        assert_eq!(target(4, 2).picture(&cells, &[0.0; 8], &scores), [0.5, 0.5, 0.5, 0.5, 0.125, 0.125, 0.125, 0.125]);
    }
}
