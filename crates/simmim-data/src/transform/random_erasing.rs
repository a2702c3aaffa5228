//! Random Erasing (arXiv:1708.04896) as in timm 0.4.12 (`timm/data/random_erasing.py`, mode `pixel`).

use crate::rng::{Rng, below, normal_pair, uniform};

/// Replaces a rectangle of a normalized image by noise; every value is drawn from the standard normal distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErasing {
    /// The probability that an image is erased at all.
    pub probability: f64,
    /// The smallest and the largest area, as a share of the area of the image.
    pub area: (f64, f64),
    /// The smallest and the largest aspect ratio, height divided by width.
    pub aspect: (f64, f64),
}

impl Default for RandomErasing {
    /// The setting of SimMIM's fine-tuning (public repository, `config.py`).
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
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
}

/// How often timm draws before it gives up.
const ATTEMPTS: usize = 10;

impl RandomErasing {
    /// Draws the rectangle to erase in an image of `height` by `width` pixels; `None` if nothing is erased.
    #[must_use]
    pub fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Option<Rectangle> {
        if uniform(rng) >= self.probability {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let quantiles = [uniform(rng), uniform(rng)];
            if let Some([rows, columns]) = self.sides(height, width, quantiles) {
                let top = below(rng, height - rows + 1);
                let left = below(rng, width - columns + 1);
                return Some(Rectangle { top, left, height: rows, width: columns });
            }
        }
        None
    }

    /// Returns the height and width of the rectangle for two numbers in `[0, 1)`; `None` if they are not below those of
    /// the image.
    ///
    /// The first number chooses the area and the second one the logarithm of the aspect ratio, where 0 is the lower end
    /// of the range and 1 the upper end.
    #[must_use]
    pub fn sides(&self, height: usize, width: usize, quantiles: [f64; 2]) -> Option<[usize; 2]> {
        let area = interpolate(self.area, quantiles[0]) * (height * width) as f64;
        let aspect = interpolate((self.aspect.0.ln(), self.aspect.1.ln()), quantiles[1]).exp();
        let side = |square: f64| square.sqrt().round_ties_even() as usize;
        let (rows, columns) = (side(area * aspect), side(area / aspect));
        (rows < height && columns < width).then_some([rows, columns])
    }

    /// Erases a random rectangle of `image`, or nothing.
    ///
    /// # Shapes
    ///
    /// `image`: normalized, `[C, H, W]`.
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

/// Returns the value between `low`, at 0, and `high`, at 1.
fn interpolate((low, high): (f64, f64), at: f64) -> f64 {
    low + (high - low) * at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, rng};

    #[test]
    fn a_quarter_of_the_images_have_a_hole_with_a_size_within_its_range() {
        let erasing = RandomErasing::default();
        let draw = |index| erasing.draw(200, 300, &mut rng(2, Purpose::Augment, 0, index));
        let holes: Vec<Rectangle> = (0..4000).filter_map(draw).collect();
        // five standard deviations of a binomial distribution of 4,000 draws at one quarter
        assert!(holes.len().abs_diff(1000) < 137, "{} of 4000", holes.len());
        for Rectangle { top, left, height, width } in holes {
            assert!(top + height <= 200 && left + width <= 300);
            let share = (height * width) as f64 / 6e4;
            let aspect = height as f64 / width as f64;
            // sides of 19 pixels or more are rounded by up to half a pixel
            assert!((0.0195..0.339).contains(&share), "{height} by {width}");
            assert!((0.29..3.45).contains(&aspect), "{height} by {width}");
        }
    }

    #[test]
    fn a_hole_is_normal_noise_and_the_rest_does_not_change() {
        let erasing = RandomErasing { probability: 1.0, area: (0.3, 0.3), aspect: (0.5, 0.5) };
        let mut image = vec![9.0; 3 * 100 * 101];
        erasing.apply(&mut image, 100, 101, &mut rng(1, Purpose::Augment, 0, 0));
        let hole = erasing.draw(100, 101, &mut rng(1, Purpose::Augment, 0, 0)).unwrap();
        assert_eq!([hole.height, hole.width], erasing.sides(100, 101, [0.0; 2]).unwrap());
        let mut noise = Vec::new();
        for (at, value) in image.into_iter().enumerate() {
            let (row, column) = (at / 101 % 100, at % 101);
            let is_in = (hole.top..hole.top + hole.height).contains(&row)
                && (hole.left..hole.left + hole.width).contains(&column);
            if is_in { noise.push(f64::from(value)) } else { assert_eq!(value, 9.0) }
        }
        let moment = |power: i32| noise.iter().map(|value| value.powi(power)).sum::<f64>() / noise.len() as f64;
        // five standard errors, which for about 9,000 values are 1/95 and √2/95
        assert!(moment(1).abs() < 0.053 && (moment(2) - 1.0).abs() < 0.075, "{} {}", moment(1), moment(2));
    }

    #[test]
    fn an_image_of_one_pixel_is_not_erased() {
        let erasing = RandomErasing { probability: 1.0, ..RandomErasing::default() };
        for index in 0..20 {
            let mut image = [5.0];
            erasing.apply(&mut image, 1, 1, &mut rng(1, Purpose::Augment, 0, index));
            assert_eq!(image, [5.0]);
        }
    }
}
