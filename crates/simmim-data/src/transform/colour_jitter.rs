//! Random brightness, contrast and saturation, as torchvision's `ColorJitter`
//! (`torchvision/transforms/transforms.py`).

use super::operation::Operation;
use crate::image::Image;
use crate::rng::{Rng, permutation, uniform_between};

/// How far brightness, contrast and saturation may be from those of the image.
///
/// Each takes a factor between `1 - value` and `1 + value`, at least 0; the three come in random
/// order. Saturation changes images of three channels only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColourJitter {
    /// The range of the brightness.
    pub brightness: f64,
    /// The range of the contrast.
    pub contrast: f64,
    /// The range of the saturation.
    pub saturation: f64,
}

impl ColourJitter {
    /// Returns the same range for all three.
    #[must_use]
    pub fn uniform(range: f64) -> Self {
        Self { brightness: range, contrast: range, saturation: range }
    }

    /// Draws the three operations in their order.
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> [Operation; 3] {
        let mut factor = |range: f64| uniform_between(rng, (1.0 - range).max(0.0), 1.0 + range);
        let operations = [
            Operation::Brightness { factor: factor(self.brightness) },
            Operation::Contrast { factor: factor(self.contrast) },
            Operation::Colour { factor: factor(self.saturation) },
        ];
        let order = permutation(rng, 3);
        [0, 1, 2].map(|place: usize| operations[order[place]])
    }

    pub(super) fn apply(&self, image: &mut Image, rng: &mut Rng) {
        for operation in self.draw(rng) {
            operation.apply_colours(image);
        }
    }
}
