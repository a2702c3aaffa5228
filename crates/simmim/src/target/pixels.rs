//! Raw pixels, at full resolution or averaged over squares: the paper's target (section 3.4).

use super::cells::{averaged, enlarged};
use super::{Cells, Layout, Target, Truth};
use simmim_engine::Images;
use std::borrow::Cow;

/// Normalised pixel values.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Side of the square that a predicted value is the mean of; 1 for full resolution.
    pub position_px: usize,
}

impl Target for Pixels {
    fn layout(&self, cells: &Cells) -> Layout {
        Layout { channels: cells.channels, side: cells.side / self.position_px, classes: None }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        Truth::Values(match self.position_px {
            1 => Cow::Borrowed(images.pixels),
            px => Cow::Owned(averaged(images.pixels, images.width, px)),
        })
    }

    fn picture(&self, cells: &Cells, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        enlarged(prediction, cells.width / self.position_px, self.position_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_pixels_are_themselves_or_their_mean() {
        let images = Images { pixels: &[1.0, 2.0, 3.0, 6.0], count: 1, channels: 1, height: 2, width: 2 };
        let cells = Cells { channels: 1, height: 2, width: 2, side: 2 };
        for (position_px, expected) in [(1, vec![1.0, 2.0, 3.0, 6.0]), (2, vec![3.0])] {
            let target = Pixels { position_px };
            let Truth::Values(values) = target.truth(&images) else { panic!("pixels are values") };
            assert_eq!(*values, expected);
            assert_eq!(target.layout(&cells).outputs(), expected.len());
        }
        assert_eq!(Pixels { position_px: 2 }.picture(&cells, images.pixels, &[3.0]), [3.0; 4]);
    }
}
