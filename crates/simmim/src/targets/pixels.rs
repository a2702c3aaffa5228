//! Raw pixels at full or reduced resolution: the target of SimMIM (arXiv:2111.09886, section 3.4).

use super::patch_grid::{averaged, enlarged};
use super::{Layout, PatchGrid, Target, TargetValues};
use simmim_engine::Images;
use std::borrow::Cow;

/// Pixel values, normalized like the input.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Side in pixels of a sub-patch, whose mean is predicted; 1 for full resolution.
    pub sub_patch_px: usize,
}

impl Target for Pixels {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        Layout { channels: grid.channels, side: grid.side / self.sub_patch_px, classes: None }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        TargetValues::Values(match self.sub_patch_px {
            1 => Cow::Borrowed(images.pixels),
            px => Cow::Owned(averaged(images.pixels, images.width, px)),
        })
    }

    fn picture(&self, grid: &PatchGrid, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        enlarged(prediction, grid.width / self.sub_patch_px, self.sub_patch_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_pixels_are_themselves_or_their_mean() {
        let images = Images { pixels: &[1.0, 2.0, 3.0, 6.0], count: 1, channels: 1, height: 2, width: 2 };
        let grid = PatchGrid { channels: 1, height: 2, width: 2, side: 2 };
        for (sub_patch_px, expected) in [(1, vec![1.0, 2.0, 3.0, 6.0]), (2, vec![3.0])] {
            let target = Pixels { sub_patch_px };
            let TargetValues::Values(values) = target.values_of(&images) else { panic!("pixels are values") };
            assert_eq!(*values, expected);
            assert_eq!(target.layout(&grid).outputs(), expected.len());
        }
        assert_eq!(Pixels { sub_patch_px: 2 }.picture(&grid, images.pixels, &[3.0]), [3.0; 4]);
    }
}
