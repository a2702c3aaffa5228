//! Which region of an image is used: a random resized crop or a center crop.

use super::resize::{Filter, Region};
use crate::rng::{Rng, below, uniform_between};

impl Region {
    /// Returns the largest region in the center of an image that has the shape of the target.
    ///
    /// This is the part that remains if the image is resized, without changing its shape, until it just covers
    /// `target_height` by `target_width` pixels, and a center crop of this size follows.
    #[must_use]
    pub fn center(height: usize, width: usize, target_height: usize, target_width: usize) -> Self {
        let target = [target_height, target_width];
        Self::center_of_resized([height, width], target, target)
    }

    /// Returns the part of an image that remains if it is resized, without changing its shape, until it just covers
    /// `covered` pixels, and a center crop of `target` pixels follows.
    ///
    /// Sizes and offsets are rounded as in torchvision's `Resize(shorter side)` and `CenterCrop`
    /// (`torchvision/transforms/functional.py`).
    fn center_of_resized([height, width]: [usize; 2], covered: [usize; 2], target: [usize; 2]) -> Self {
        // one side gets exactly the covered length; the other one follows from the shape and is rounded down
        let (covered_height, covered_width) = if height * covered[1] >= width * covered[0] {
            (height * covered[1] / width, covered[1])
        } else {
            (covered[0], width * covered[0] / height)
        };
        let top = ((covered_height - target[0]) as f64 / 2.0).round_ties_even();
        let left = ((covered_width - target[1]) as f64 / 2.0).round_ties_even();
        // multiplied before divided: the products are exact, so that rounding cannot move the window out of the image
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

/// A center crop of an image that is first resized to be a little larger than the crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CenterCrop {
    /// The size of the resized image relative to the crop, at least 1; sides are rounded down to whole pixels.
    pub enlargement: f64,
    /// The filter of the resize.
    pub filter: Filter,
}

impl Default for CenterCrop {
    /// The center crop of SimMIM's evaluation (public repository, `data/data_finetune.py`).
    fn default() -> Self {
        Self { enlargement: 256.0 / 224.0, filter: Filter::Bicubic }
    }
}

impl CenterCrop {
    /// The side that an image is resized to before the `target` is cut from it: rounded down, as by timm, unless the ratio of
    /// two whole numbers was rounded.
    #[must_use]
    pub fn resized(&self, target: usize) -> usize {
        ((self.enlargement * target as f64 + 1e-6) as usize).max(target)
    }

    /// Returns the region of an image of `height` by `width` pixels that is resized to the size of the target.
    #[must_use]
    pub fn region(&self, height: usize, width: usize, target_height: usize, target_width: usize) -> Region {
        let target = [target_height, target_width];
        let covered = target.map(|side| self.resized(side));
        Region::center_of_resized([height, width], covered, target)
    }
}

/// A crop of random size, shape and position, as in torchvision's `RandomResizedCrop`
/// (`torchvision/transforms/transforms.py`, `get_params`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// The smallest and the largest area, as a share of the area of the image.
    pub scale: (f64, f64),
    /// The smallest and the largest aspect ratio, width divided by height.
    pub ratio: (f64, f64),
    /// The probability that the crop is mirrored left to right.
    pub hflip: f64,
}

impl Default for RandomResizedCrop {
    /// The crop of SimMIM's pre-training (public repository, `data/data_simmim.py`).
    fn default() -> Self {
        Self { scale: (0.67, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0), hflip: 0.5 }
    }
}

/// How often torchvision draws before it falls back to a center crop.
const ATTEMPTS: usize = 10;

impl RandomResizedCrop {
    /// Draws a region within an image of `height` by `width` pixels.
    #[must_use]
    pub fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Region {
        let area = (height * width) as f64;
        let (log_low, log_high) = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..ATTEMPTS {
            let crop_area = area * uniform_between(rng, self.scale.0, self.scale.1);
            let ratio = uniform_between(rng, log_low, log_high).exp();
            let cut_width = (crop_area * ratio).sqrt().round_ties_even() as usize;
            let cut_height = (crop_area / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&cut_width) && (1..=height).contains(&cut_height) {
                let top = below(rng, height - cut_height + 1);
                let left = below(rng, width - cut_width + 1);
                return Region::Cut { top, left, height: cut_height, width: cut_width };
            }
        }
        self.fallback(height, width)
    }

    /// Returns the largest center crop with an allowed aspect ratio.
    fn fallback(&self, height: usize, width: usize) -> Region {
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

    /// Draws crops, checks that each lies within the image, and returns their top, left, height and width.
    fn draws(crop: RandomResizedCrop, height: usize, width: usize, draws: u64) -> Vec<[f64; 4]> {
        let draw = |index| match crop.draw(height, width, &mut rng(1, Purpose::Augment, 0, index)) {
            Region::Cut { top, left, height: rows, width: columns } => {
                assert!(rows > 0 && columns > 0);
                assert!(top + rows <= height && left + columns <= width);
                [top as f64, left as f64, rows as f64, columns as f64]
            }
            Region::Window { .. } => panic!("a random crop has whole pixels"),
        };
        (0..draws).map(draw).collect()
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        sum / count
    }

    #[test]
    fn sizes_before_a_center_crop_are_rounded_down_but_for_ratios_of_whole_numbers() {
        let resized = |enlargement: f64, side: usize| CenterCrop { enlargement, ..CenterCrop::default() }.resized(side);
        assert_eq!([96, 160, 224, 256, 384].map(|side| resized(1.0 / 0.875, side)), [109, 182, 256, 292, 438]);
        for (whole, crop) in [(256, 196), (230, 224), (256, 224), (248, 224)] {
            assert_eq!(resized(whole as f64 / crop as f64, crop), whole);
        }
        assert_eq!(resized(0.5, 224), 224);
    }

    #[test]
    fn random_crops_have_areas_and_aspect_ratios_within_their_ranges() {
        let crop = RandomResizedCrop { scale: (0.1, 0.3), ..RandomResizedCrop::default() };
        let drawn = draws(crop, 1000, 1000, 4000);
        let area = |[_, _, rows, columns]: &[f64; 4]| rows * columns / 1e6;
        let ratio = |[_, _, rows, columns]: &[f64; 4]| columns / rows;
        // sides of 270 pixels or more are rounded by up to half a pixel
        assert!(drawn.iter().all(|part| (0.099..0.301).contains(&area(part))));
        assert!(drawn.iter().all(|part| (0.746..1.338).contains(&ratio(part))));
        // five standard errors, which are 0.2 / √12 / √4000 and 2·ln(4/3) / √12 / √4000
        assert!((mean(drawn.iter().map(area)) - 0.2).abs() < 0.0046);
        assert!(mean(drawn.iter().map(|part| ratio(part).ln())).abs() < 0.0132);
        // positions are uniform over the possible ones: their mean is the center, and both ends are reached
        let place = |[top, _, rows, _]: &[f64; 4]| top / (1000.0 - rows);
        assert!((mean(drawn.iter().map(place)) - 0.5).abs() < 0.023);
        assert!(drawn.iter().any(|part| place(part) < 0.01));
        assert!(drawn.iter().any(|part| place(part) > 0.99));
    }

    #[track_caller]
    fn check_fallback(height: usize, width: usize, expected: [usize; 4]) {
        let [top, left, rows, columns] = expected;
        let expected = Region::Cut { top, left, height: rows, width: columns };
        // no crop of nine tenths of such a long image has an aspect ratio between 3/4 and 4/3
        let crop = RandomResizedCrop { scale: (0.9, 1.0), ..RandomResizedCrop::default() };
        for index in 0..20 {
            let region = crop.draw(height, width, &mut rng(1, Purpose::Augment, 0, index));
            assert_eq!(region, expected, "{height} by {width}");
        }
    }

    #[test]
    fn images_of_an_extreme_shape_fall_back_to_a_center_crop() {
        check_fallback(100, 1000, [0, 433, 100, 133]);
        check_fallback(1000, 100, [433, 0, 133, 100]);
        check_fallback(1, 10, [0, 4, 1, 1]);
    }

    #[test]
    fn random_crops_lie_within_images_of_any_size() {
        for (height, width) in [(1, 1), (1, 2), (2, 1), (3, 500), (500, 3), (7, 9)] {
            draws(RandomResizedCrop::default(), height, width, 50);
        }
    }

    #[test]
    fn center_crops_lie_within_images_of_any_size() {
        for size in 0..40_usize.pow(2) {
            let (height, width) = (size / 40 + 1, size % 40 + 1);
            for (target_height, target_width) in [(1, 1), (7, 7), (49, 49), (31, 17), (3, 64)] {
                let Region::Window { top, left, height: rows, width: columns } =
                    Region::center(height, width, target_height, target_width)
                else {
                    panic!("a center crop is a window")
                };
                assert!(top >= 0.0 && top + rows <= height as f64, "{height} to {target_height}");
                assert!(left >= 0.0 && left + columns <= width as f64, "{width} to {target_width}");
            }
        }
    }

    #[track_caller]
    fn check_center(size: [usize; 2], target: [usize; 2], expected: [f64; 4]) {
        let Region::Window { top, left, height, width } = Region::center(size[0], size[1], target[0], target[1]) else {
            panic!("a center crop is a window")
        };
        for (actual, expected) in [top, left, height, width].into_iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-9, "{size:?} to {target:?}: {actual} is not {expected}");
        }
    }

    #[test]
    fn center_crops_have_the_shape_of_the_target() {
        check_center([8, 8], [4, 4], [0.0, 0.0, 8.0, 8.0]);
        check_center([8, 16], [4, 4], [0.0, 4.0, 8.0, 8.0]);
        check_center([16, 8], [4, 4], [4.0, 0.0, 8.0, 8.0]);
        check_center([8, 8], [4, 2], [0.0, 2.0, 8.0, 4.0]);
        check_center([2, 2], [4, 4], [0.0, 0.0, 2.0, 2.0]);
        // 5 by 7 is resized to 4 by 5 (5.6 is rounded down); the offset of 0.5 is rounded to 0
        check_center([5, 7], [4, 4], [0.0, 0.0, 5.0, 5.6]);
    }
}
