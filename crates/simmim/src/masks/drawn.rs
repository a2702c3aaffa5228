//! A mask drawn by hand as a black-and-white image: white is hidden.

use super::{Grid, Mask, MaskStrategy};
use simmim_data::{Image, Pixels, Region, Rng};

/// A black-and-white drawing of any size. A unit is hidden if more than half of its area is white.
#[derive(Clone, Debug)]
pub struct Drawn {
    height: usize,
    width: usize,
    /// `[H, W]`.
    is_white: Vec<bool>,
    /// The part of the drawing that the model sees after the crop, in pixels: top, left, height, width.
    crop: [f64; 4],
}

impl Drawn {
    /// A mask from a grayscale drawing. The drawing is cropped like an image for an input of `height` × `width` pixels,
    /// so a drawing with the size of a photo is aligned with the photo.
    ///
    /// # Panics
    /// If the drawing has more than one channel.
    pub fn new(drawing: &Image, (height, width): (usize, usize)) -> Self {
        assert_eq!(drawing.channels, 1, "a drawing is grayscale");
        let is_white = match &drawing.pixels {
            Pixels::U8(values) => values.iter().map(|v| *v > 127).collect(),
            Pixels::F32(values) => values.iter().map(|v| *v > 0.5).collect(),
        };
        let crop = Region::center(drawing.height, drawing.width, height, width).bounds();
        Self { height: drawing.height, width: drawing.width, is_white, crop }
    }
}

impl MaskStrategy for Drawn {
    fn sample(&self, _: &mut Rng, grid: Grid) -> Mask {
        let [top, left, height, width] = self.crop;
        let row = |i: usize| top + height * i as f64 / grid.rows as f64;
        let column = |i: usize| left + width * i as f64 / grid.columns as f64;
        let is_hidden = |cell: usize| {
            let (i, j) = (cell / grid.columns, cell % grid.columns);
            let (mut white, mut area) = (0.0, 0.0);
            for (y, part_y) in overlaps(row(i), row(i + 1), self.height) {
                for (x, part_x) in overlaps(column(j), column(j + 1), self.width) {
                    area += part_y * part_x;
                    white += if self.is_white[y * self.width + x] { part_y * part_x } else { 0.0 };
                }
            }
            white > 0.5 * area
        };
        Mask::new(grid, (0..grid.cells()).map(is_hidden).collect())
    }
}

/// The pixels of `0..pixels` that overlap the interval `from..to`, each with the length of the overlap.
fn overlaps(from: f64, to: f64, pixels: usize) -> impl Iterator<Item = (usize, f64)> {
    let last = (to.ceil() as usize).min(pixels);
    (from.floor() as usize..last).map(move |i| (i, to.min(i as f64 + 1.0) - from.max(i as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Purpose;
    use simmim_data::rng::rng;

    /// Checks the mask of a drawing of `#` (white) and `.` (black) on a grid.
    #[track_caller]
    fn check(drawing: &[&str], grid: Grid, input: (usize, usize), expected: &[&str]) {
        let pixels = drawing.concat().bytes().map(|b| if b == b'#' { 255 } else { 0 }).collect();
        let image = Image { channels: 1, height: drawing.len(), width: drawing[0].len(), pixels: Pixels::U8(pixels) };
        let mask = Drawn::new(&image, input).sample(&mut rng(0, Purpose::Mask, 0, 0), grid);
        let found: String = mask.hidden().iter().map(|h| if *h { '#' } else { '.' }).collect();
        assert_eq!(found, expected.concat());
    }

    const TWO: Grid = Grid { rows: 2, columns: 2 };

    #[test]
    fn a_unit_is_hidden_if_more_than_half_of_it_is_white() {
        check(&["#...", "##..", "#.##", "..##"], TWO, (64, 64), &["#.", ".#"]);
        check(&["##..", "....", "....", "...."], TWO, (64, 64), &["..", ".."]); // exactly half is not more than half
    }

    #[test]
    fn a_drawing_of_any_size_fits_any_grid() {
        check(&["#.", ".#"], Grid { rows: 4, columns: 4 }, (64, 64), &["##..", "##..", "..##", "..##"]);
        // three pixels on two units: each unit covers half of the middle one
        check(&["##.", "##.", "..."], TWO, (64, 64), &["#.", ".."]);
        check(&["#"], TWO, (64, 64), &["##", "##"]);
    }

    #[test]
    fn a_drawing_is_cropped_as_its_photo_is() {
        // twice as wide as the input: the outer quarters are cropped
        check(&["..##..##", "..##..##", "##....##", "##....##"], TWO, (64, 64), &["#.", ".."]);
        // for a wide input, the upper and lower rows are cropped
        check(&["####", "##..", "##..", "####"], Grid { rows: 1, columns: 2 }, (32, 64), &["#."]);
    }
}
