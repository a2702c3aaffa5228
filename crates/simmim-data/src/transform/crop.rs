//! Which part of an image is used: a random one, or the middle.

use super::fine_tuning::Filter;
use crate::rng::{Rng, below, uniform_between};

/// A rectangle of an image, in pixels of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Region {
    /// Whole pixels; what lies outside does not exist, as after a crop.
    Cut {
        /// The first row.
        top: usize,
        /// The first column.
        left: usize,
        /// How many rows.
        height: usize,
        /// How many columns.
        width: usize,
    },
    /// Parts of pixels; the resize sees what lies outside, as if the crop came after it.
    Window {
        /// The upper border.
        top: f64,
        /// The left border.
        left: f64,
        /// The distance of the borders.
        height: f64,
        /// The distance of the borders.
        width: f64,
    },
}

impl Region {
    /// Returns what is left of an image if it is resized to cover `target_height` by
    /// `target_width` pixels, keeping its shape, and its middle of that size is cut out.
    #[must_use]
    pub fn centre(height: usize, width: usize, target_height: usize, target_width: usize) -> Self {
        let target = [target_height, target_width];
        Self::middle([height, width], target, target)
    }

    /// What is left of an image that is resized to cover `covered` pixels, of whose middle `target`
    /// pixels are cut out.
    ///
    /// Sizes and offsets are rounded as torchvision's `Resize(shorter side)` and `CenterCrop` do
    /// (`torchvision/transforms/functional.py`).
    fn middle([height, width]: [usize; 2], covered: [usize; 2], target: [usize; 2]) -> Self {
        // the side that fits tightly keeps its length, the other one follows, rounded down
        let (covered_height, covered_width) = if height * covered[1] >= width * covered[0] {
            (height * covered[1] / width, covered[1])
        } else {
            (covered[0], width * covered[0] / height)
        };
        let top = ((covered_height - target[0]) as f64 / 2.0).round_ties_even();
        let left = ((covered_width - target[1]) as f64 / 2.0).round_ties_even();
        // products before quotients: they are exact, so that the window never leaves the image
        let rows = |rows: usize| (rows * height) as f64 / covered_height as f64;
        let columns = |columns: usize| (columns * width) as f64 / covered_width as f64;
        Self::Window {
            top: rows(top as usize),
            left: columns(left as usize),
            height: rows(target[0]),
            width: columns(target[1]),
        }
    }
}

/// The middle of an image that was resized to be a little larger than wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CentreCrop {
    /// How much larger, at least 1; sides are rounded down to whole pixels.
    pub enlargement: f64,
    /// How it is resized.
    pub filter: Filter,
}

impl Default for CentreCrop {
    /// What SimMIM evaluates with (public repository, `data/data_finetune.py`).
    fn default() -> Self {
        Self { enlargement: 256.0 / 224.0, filter: Filter::Bicubic }
    }
}

impl CentreCrop {
    /// Returns the part of an image of `height` by `width` pixels that becomes the wanted size.
    #[must_use]
    pub fn region(&self, height: usize, width: usize, target_height: usize, target_width: usize) -> Region {
        let target = [target_height, target_width];
        let covered = target.map(|side| ((self.enlargement * side as f64) as usize).max(side));
        Region::middle([height, width], covered, target)
    }
}

/// A random part of an image of random shape, as torchvision's `RandomResizedCrop`
/// (`torchvision/transforms/transforms.py`, `get_params`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// The least and the greatest share of the image's area.
    pub scale: (f64, f64),
    /// The least and the greatest width over height.
    pub ratio: (f64, f64),
    /// The probability that the part is mirrored left to right.
    pub hflip: f64,
}

impl Default for RandomResizedCrop {
    /// What SimMIM pre-trains with (public repository, `data/data_simmim.py`).
    fn default() -> Self {
        Self { scale: (0.67, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0), hflip: 0.5 }
    }
}

/// How often torchvision draws before it takes the middle.
const ATTEMPTS: usize = 10;

impl RandomResizedCrop {
    /// Draws a part of an image of `height` by `width` pixels; it lies within the image.
    #[must_use]
    pub fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Region {
        let area = (height * width) as f64;
        let (log_low, log_high) = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..ATTEMPTS {
            let part = area * uniform_between(rng, self.scale.0, self.scale.1);
            let ratio = uniform_between(rng, log_low, log_high).exp();
            let cut_width = (part * ratio).sqrt().round_ties_even() as usize;
            let cut_height = (part / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&cut_width) && (1..=height).contains(&cut_height) {
                let top = below(rng, height - cut_height + 1);
                let left = below(rng, width - cut_width + 1);
                return Region::Cut { top, left, height: cut_height, width: cut_width };
            }
        }
        self.middle(height, width)
    }

    /// The largest part in the middle whose ratio is allowed.
    fn middle(&self, height: usize, width: usize) -> Region {
        let ratio = width as f64 / height as f64;
        let (cut_height, cut_width) = if ratio < self.ratio.0 {
            ((width as f64 / self.ratio.0).round_ties_even() as usize, width)
        } else if ratio > self.ratio.1 {
            (height, (height as f64 * self.ratio.1).round_ties_even() as usize)
        } else {
            (height, width)
        };
        let (cut_height, cut_width) = (cut_height.clamp(1, height), cut_width.clamp(1, width));
        let (top, left) = ((height - cut_height) / 2, (width - cut_width) / 2);
        Region::Cut { top, left, height: cut_height, width: cut_width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, rng};

    /// The rows and columns of `draws` parts, each of which lies within the image.
    fn draws(crop: RandomResizedCrop, height: usize, width: usize, draws: u64) -> Vec<[f64; 4]> {
        let draw = |index| match crop.draw(height, width, &mut rng(1, Purpose::Augment, 0, index)) {
            Region::Cut { top, left, height: rows, width: columns } => {
                assert!(rows > 0 && columns > 0);
                assert!(top + rows <= height && left + columns <= width);
                [top as f64, left as f64, rows as f64, columns as f64]
            }
            Region::Window { .. } => panic!("a random part is of whole pixels"),
        };
        (0..draws).map(draw).collect()
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        sum / count
    }

    #[test]
    fn parts_have_the_area_and_shape_asked_for() {
        let crop = RandomResizedCrop { scale: (0.1, 0.3), ..RandomResizedCrop::default() };
        let drawn = draws(crop, 1000, 1000, 4000);
        let area = |[_, _, rows, columns]: &[f64; 4]| rows * columns / 1e6;
        let ratio = |[_, _, rows, columns]: &[f64; 4]| columns / rows;
        // half a pixel of rounding in sides of 270 or more
        assert!(drawn.iter().all(|part| (0.099..0.301).contains(&area(part))));
        assert!(drawn.iter().all(|part| (0.746..1.338).contains(&ratio(part))));
        // five standard errors: deviation 0.2 / √12 / √4000, and 2·ln(4/3) / √12 / √4000
        assert!((mean(drawn.iter().map(area)) - 0.2).abs() < 0.0046);
        assert!(mean(drawn.iter().map(|part| ratio(part).ln())).abs() < 0.0132);
        // positions are uniform over what is left: the middle one in the mean, both ends reached
        let place = |[top, _, rows, _]: &[f64; 4]| top / (1000.0 - rows);
        assert!((mean(drawn.iter().map(place)) - 0.5).abs() < 0.023);
        assert!(drawn.iter().any(|part| place(part) < 0.01));
        assert!(drawn.iter().any(|part| place(part) > 0.99));
    }

    #[track_caller]
    fn check_middle(height: usize, width: usize, expected: [usize; 4]) {
        let [top, left, rows, columns] = expected;
        let expected = Region::Cut { top, left, height: rows, width: columns };
        // nine tenths of an image this long cannot have a ratio of at most 4/3
        let crop = RandomResizedCrop { scale: (0.9, 1.0), ..RandomResizedCrop::default() };
        for index in 0..20 {
            let found = crop.draw(height, width, &mut rng(1, Purpose::Augment, 0, index));
            assert_eq!(found, expected, "{height} by {width}");
        }
    }

    #[test]
    fn images_of_an_extreme_shape_fall_back_to_their_middle() {
        check_middle(100, 1000, [0, 433, 100, 133]);
        check_middle(1000, 100, [433, 0, 133, 100]);
        check_middle(1, 10, [0, 4, 1, 1]);
    }

    #[test]
    fn any_size_of_image_gives_a_part_within_it() {
        for (height, width) in [(1, 1), (1, 2), (2, 1), (3, 500), (500, 3), (7, 9)] {
            draws(RandomResizedCrop::default(), height, width, 50);
        }
    }

    #[test]
    fn the_middle_never_leaves_the_image() {
        for size in 0..40_usize.pow(2) {
            let (height, width) = (size / 40 + 1, size % 40 + 1);
            for (target_height, target_width) in [(1, 1), (7, 7), (49, 49), (31, 17), (3, 64)] {
                let Region::Window { top, left, height: rows, width: columns } =
                    Region::centre(height, width, target_height, target_width)
                else {
                    panic!("the middle is a window")
                };
                assert!(top >= 0.0 && top + rows <= height as f64, "{height} to {target_height}");
                assert!(left >= 0.0 && left + columns <= width as f64, "{width} to {target_width}");
            }
        }
    }

    #[track_caller]
    fn check_centre(size: [usize; 2], target: [usize; 2], expected: [f64; 4]) {
        let Region::Window { top, left, height, width } = Region::centre(size[0], size[1], target[0], target[1]) else {
            panic!("the middle is a window")
        };
        for (found, expected) in [top, left, height, width].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{size:?} to {target:?}: {found} {expected}");
        }
    }

    #[test]
    fn the_middle_covers_the_target() {
        check_centre([8, 8], [4, 4], [0.0, 0.0, 8.0, 8.0]);
        check_centre([8, 16], [4, 4], [0.0, 4.0, 8.0, 8.0]);
        check_centre([16, 8], [4, 4], [4.0, 0.0, 8.0, 8.0]);
        check_centre([8, 8], [4, 2], [0.0, 2.0, 8.0, 4.0]);
        check_centre([2, 2], [4, 4], [0.0, 0.0, 2.0, 2.0]);
        // 5 by 7 becomes 4 by 5 (5.6 rounded down); an offset of 0.5 rounds to 0
        check_centre([5, 7], [4, 4], [0.0, 0.0, 5.0, 5.6]);
    }
}
