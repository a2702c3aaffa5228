//! A rectangle of noise, as Random Erasing (arXiv:1708.04896) in timm 0.4.12
//! (`timm/data/random_erasing.py`, mode `pixel`).

use crate::rng::{Rng, below, normal_pair, uniform};

/// Replaces a rectangle of a normalised image by normal noise, every value drawn by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErasing {
    /// The probability that an image is erased at all.
    pub probability: f64,
    /// The least and the greatest share of the image's area.
    pub area: (f64, f64),
    /// The least and the greatest height over width.
    pub aspect: (f64, f64),
}

impl Default for RandomErasing {
    /// What SimMIM fine-tunes with (public repository, `config.py`).
    fn default() -> Self {
        Self { probability: 0.25, area: (0.02, 1.0 / 3.0), aspect: (0.3, 1.0 / 0.3) }
    }
}

/// A rectangle to erase, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// How many rows.
    pub height: usize,
    /// How many columns.
    pub width: usize,
}

/// How often timm draws before it gives up.
const ATTEMPTS: usize = 10;

impl RandomErasing {
    /// Draws the rectangle of an image of `height` by `width` pixels; `None` if it stays whole.
    #[must_use]
    pub fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Option<Rectangle> {
        if uniform(rng) >= self.probability {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let places = [uniform(rng), uniform(rng)];
            if let Some([rows, columns]) = self.sides(height, width, places) {
                let top = below(rng, height - rows + 1);
                let left = below(rng, width - columns + 1);
                return Some(Rectangle { top, left, height: rows, width: columns });
            }
        }
        None
    }

    /// Returns height and width of the rectangle whose area and aspect lie at `places`, in
    /// `[0, 1)`, of their ranges, the aspect in its logarithm; `None` if one of them is not below
    /// that of the image.
    #[must_use]
    pub fn sides(&self, height: usize, width: usize, places: [f64; 2]) -> Option<[usize; 2]> {
        let area = uniform_at(self.area, places[0]) * (height * width) as f64;
        let aspect = uniform_at((self.aspect.0.ln(), self.aspect.1.ln()), places[1]).exp();
        let side = |square: f64| square.sqrt().round_ties_even() as usize;
        let (rows, columns) = (side(area * aspect), side(area / aspect));
        (rows < height && columns < width).then_some([rows, columns])
    }

    /// Erases a rectangle of `image`, or nothing.
    ///
    /// # Shapes
    ///
    /// `image`: normalised, `[C, H, W]`.
    pub(super) fn apply(&self, image: &mut [f32], height: usize, width: usize, rng: &mut Rng) {
        let Some(hole) = self.draw(height, width, rng) else { return };
        for plane in image.chunks_exact_mut(height * width) {
            for row in plane.chunks_exact_mut(width).skip(hole.top).take(hole.height) {
                for pair in row[hole.left..][..hole.width].chunks_mut(2) {
                    for (value, noise) in pair.iter_mut().zip(normal_pair(rng)) {
                        *value = noise as f32;
                    }
                }
            }
        }
    }
}

/// What lies at `place`, in `[0, 1)`, of a range.
fn uniform_at((low, high): (f64, f64), place: f64) -> f64 {
    low + (high - low) * place
}
