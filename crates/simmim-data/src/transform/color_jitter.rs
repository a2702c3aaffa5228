//! Random brightness, contrast and saturation, as in torchvision's `ColorJitter`
//! (`torchvision/transforms/transforms.py`).

use super::operation::Operation;
use crate::image::Image;
use crate::rng::{Rng, permutation, uniform_between};

/// How much brightness, contrast and saturation may change.
///
/// Each is multiplied by a random factor between `1 - range` and `1 + range`, but at least 0, and the three changes are
/// made in random order. Saturation changes only images with three channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitter {
    /// The range of the brightness.
    pub brightness: f64,
    /// The range of the contrast.
    pub contrast: f64,
    /// The range of the saturation.
    pub saturation: f64,
}

impl ColorJitter {
    /// Returns a color jitter with the same range for all three.
    #[must_use]
    pub fn uniform(range: f64) -> Self {
        Self { brightness: range, contrast: range, saturation: range }
    }

    /// Draws the three operations, in the order in which they are applied.
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> [Operation; 3] {
        let mut factor = |range: f64| uniform_between(rng, (1.0 - range).max(0.0), 1.0 + range);
        let operations = [
            Operation::Brightness { factor: factor(self.brightness) },
            Operation::Contrast { factor: factor(self.contrast) },
            Operation::Color { factor: factor(self.saturation) },
        ];
        let order = permutation(rng, 3);
        [0, 1, 2].map(|place: usize| operations[order[place]])
    }

    pub(super) fn apply(&self, image: &mut Image, rng: &mut Rng) {
        for operation in self.draw(rng) {
            operation.apply_colors(image);
        }
    }
}
