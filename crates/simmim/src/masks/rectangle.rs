//! A mask over an object: the units that overlap a rectangle (arXiv:2111.09886, figure 4).

use super::{Grid, Mask, MaskStrategy};
use simmim_data::rng::permutation;
use simmim_data::{Region, Rng};

/// A rectangle in pixels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBox {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

/// Hides a share of the units that overlap a rectangle.
#[derive(Clone, Copy, Debug)]
pub struct Rectangle {
    /// Top and bottom edge as shares of the input's height.
    rows: (f64, f64),
    /// Left and right edge as shares of the input's width.
    columns: (f64, f64),
    /// Share of the overlapping units to hide, chosen uniformly at random; 1 hides all of them.
    share: f64,
}

impl Rectangle {
    /// The rectangle `around` an object, in pixels of an image of size `image_px`. The model sees the center crop of
    /// that image with the size `input_px`. Sizes are `(height, width)`.
    pub fn new(around: PixelBox, image_px: (usize, usize), input_px: (usize, usize), share: f64) -> Self {
        let crop = Region::center(image_px.0, image_px.1, input_px.0, input_px.1);
        let [top, left, height, width] = crop.bounds();
        let edges = |start: usize, length: usize, crop_start: f64, crop_length: f64| {
            let share_of_crop = |px: usize| ((px as f64 - crop_start) / crop_length).clamp(0.0, 1.0);
            (share_of_crop(start), share_of_crop(start + length))
        };
        Self {
            rows: edges(around.y, around.height, top, height),
            columns: edges(around.x, around.width, left, width),
            share,
        }
    }
}

impl MaskStrategy for Rectangle {
    fn sample(&self, rng: &mut Rng, grid: Grid) -> Mask {
        let touches = |(from, to): (f64, f64), i: usize, count: usize| {
            from < to && from * (count as f64) < (i + 1) as f64 && to * count as f64 > i as f64
        };
        let is_touched = |cell: &usize| {
            touches(self.rows, cell / grid.columns, grid.rows)
                && touches(self.columns, cell % grid.columns, grid.columns)
        };
        let touched: Vec<usize> = (0..grid.cells()).filter(is_touched).collect();
        let count = ((touched.len() as f64 * self.share).ceil() as usize).min(touched.len());
        let mut hidden = vec![false; grid.cells()];
        for i in &permutation(rng, touched.len())[..count] {
            hidden[touched[*i]] = true;
        }
        Mask::new(grid, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Purpose;
    use simmim_data::rng::rng;

    const GRID: Grid = Grid { rows: 4, columns: 4 };

    fn mask(around: [usize; 4], image_px: (usize, usize), share: f64, index: u64) -> Mask {
        let [x, y, width, height] = around;
        let rectangle = Rectangle::new(PixelBox { x, y, width, height }, image_px, (64, 64), share);
        rectangle.sample(&mut rng(0, Purpose::Mask, 0, index), GRID)
    }

    #[track_caller]
    fn check(around: [usize; 4], image_px: (usize, usize), expected: &[usize]) {
        let mask = mask(around, image_px, 1.0, 0);
        let hidden: Vec<usize> = (0..16).filter(|i| mask.hidden()[*i]).collect();
        assert_eq!(hidden, expected, "{around:?} of {image_px:?}");
    }

    #[test]
    fn the_whole_object_is_every_unit_it_touches() {
        check([16, 32, 16, 16], (64, 64), &[9]); // exactly one unit
        check([15, 32, 17, 17], (64, 64), &[8, 9, 12, 13]); // one pixel over the edge on two sides
        check([0, 0, 9999, 1], (64, 64), &[0, 1, 2, 3]); // the part outside of the image does not count
        check([70, 0, 9, 9], (64, 64), &[]);
        check([5, 5, 0, 9], (64, 64), &[]);
    }

    #[test]
    fn a_rectangle_is_in_pixels_of_the_image_and_moves_with_its_crop() {
        check([32, 64, 32, 32], (128, 128), &[9]);
        check([32 + 16, 32, 16, 16], (64, 128), &[9]); // the outer 32 columns are cropped
        check([0, 0, 32, 64], (64, 128), &[]);
    }

    #[test]
    fn most_of_the_object_is_a_random_share_of_its_units() {
        let mut times = [0; 16];
        for index in 0..200 {
            let mask = mask([0, 0, 64, 32], (64, 64), 0.7, index);
            assert_eq!(mask.count(), 6); // of 8
            mask.hidden().iter().zip(&mut times).for_each(|(h, t)| *t += *h as u32);
        }
        assert!(times[..8].iter().all(|t| (100..200).contains(t)) && times[8..].iter().all(|t| *t == 0), "{times:?}");
    }
}
