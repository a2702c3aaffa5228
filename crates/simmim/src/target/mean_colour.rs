//! The mean colour of a patch in three bits a channel, as one class: what ViT was pre-trained with
//! (arXiv:2010.11929, appendix B.1.2).

use super::cells::{averaged, enlarged};
use super::{Cells, Colours, Layout, Target, Truth, most_likely};
use simmim_engine::Images;

/// Bits of a channel: 512 classes of three channels.
const BITS: u32 = 3;

/// Which of 8 levels each channel's mean over a feature's cell has, all channels in one class.
///
/// A prediction is shown as the middle of the most likely class's levels.
#[derive(Clone, Debug)]
pub struct MeanColour {
    /// Side of a cell in pixels.
    pub cell_px: usize,
    /// What brightness a normalised value is.
    pub colours: Colours,
}

impl MeanColour {
    /// Classes of colours of so many channels.
    pub fn classes(channels: usize) -> usize {
        1 << (BITS as usize * channels)
    }
}

impl Target for MeanColour {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: 1, side: 1, classes: Some(Self::classes(cells.channels)) }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let means = averaged(images.pixels, images.width, self.cell_px);
        let plane = images.height * images.width / (self.cell_px * self.cell_px);
        let class = |(image, position): (usize, usize)| {
            (0..images.channels).fold(0, |class, channel| {
                let share = self.colours.share(channel, means[(image * images.channels + channel) * plane + position]);
                let level = ((share * (1 << BITS) as f32) as u32).min((1 << BITS) - 1);
                class << BITS | level // the first channel is the highest
            })
        };
        let positions = (0..images.count).flat_map(|image| (0..plane).map(move |position| (image, position)));
        Truth::Classes(positions.map(class).collect())
    }

    fn picture(&self, cells: &Cells, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let classes = most_likely(prediction, Self::classes(cells.channels));
        let middle = |channel: usize, class: u32| {
            let level = class >> (BITS as usize * (cells.channels - 1 - channel)) & ((1 << BITS) - 1);
            self.colours.normalised(channel, (level as f32 + 0.5) / (1 << BITS) as f32)
        };
        let colours: Vec<f32> =
            (0..cells.channels).flat_map(|channel| classes.iter().map(move |class| middle(channel, *class))).collect();
        enlarged(&colours, cells.columns(), self.cell_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_pixels_have_the_class_of_their_mean() {
        // means of brightness 0.5, 0.1 and 0.95: levels 4, 0 and 7
        let pixels = [0.0, 1.0, 0.4, 0.6, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 1.0, 1.0];
        let images = Images { pixels: &pixels, count: 1, channels: 3, height: 2, width: 2 };
        let target = MeanColour { cell_px: 2, colours: Colours::unknown(3) };
        let Truth::Classes(classes) = target.truth(&images) else { panic!("colours are classes") };
        let class = 4 * 64 + 7;
        assert_eq!(classes, [class]);

        let cells = Cells { channels: 3, height: 2, width: 2, side: 2 };
        assert_eq!(target.layout(&cells), Layout { channels: 1, side: 1, classes: Some(512) });
        let mut scores = vec![0.0; 512];
        scores[class as usize] = 1.0;
        let middles = [4.5 / 8.0, 0.5 / 8.0, 7.5 / 8.0];
        assert_eq!(target.picture(&cells, &pixels, &scores), middles.map(|m| [m; 4]).concat());
    }
}
