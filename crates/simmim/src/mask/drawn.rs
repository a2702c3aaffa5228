//! A mask drawn by hand: white is hidden, each unit as the greater part of it.

use super::{Grid, Mask, MaskStrategy};
use simmim_data::{Image, Pixels, Region, Rng};

/// A drawing in black and white, of any size.
#[derive(Clone, Debug)]
pub struct Drawn {
    height: usize,
    width: usize,
    /// `[H, W]`.
    is_white: Vec<bool>,
    /// The part the model sees: top, left, height, width.
    seen: [f64; 4],
}

impl Drawn {
    /// The mask of a grey drawing that is cropped as an image is that fills `height` × `width` input
    /// pixels, so that a drawing of a photo's size fits the photo.
    ///
    /// # Panics
    /// If the drawing has more than one channel.
    pub fn new(drawing: &Image, (height, width): (usize, usize)) -> Self {
        assert_eq!(drawing.channels, 1, "a drawing is grey");
        let is_white = match &drawing.pixels {
            Pixels::U8(values) => values.iter().map(|v| *v > 127).collect(),
            Pixels::F32(values) => values.iter().map(|v| *v > 0.5).collect(),
        };
        let seen = match Region::centre(drawing.height, drawing.width, height, width) {
            Region::Cut { top, left, height, width } => [top, left, height, width].map(|v| v as f64),
            Region::Window { top, left, height, width } => [top, left, height, width],
        };
        Self { height: drawing.height, width: drawing.width, is_white, seen }
    }
}

impl MaskStrategy for Drawn {
    fn sample(&self, _: &mut Rng, grid: Grid) -> Mask {
        let [top, left, height, width] = self.seen;
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

/// The pixels of `0..pixels` that the interval touches, each with the length it shares with it.
fn overlaps(from: f64, to: f64, pixels: usize) -> impl Iterator<Item = (usize, f64)> {
    let last = (to.ceil() as usize).min(pixels);
    (from.floor() as usize..last).map(move |i| (i, to.min(i as f64 + 1.0) - from.max(i as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Purpose;
    use simmim_data::rng::rng;

    /// The mask of a drawing of `#` (white) and `.` on a grid over a square input.
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
        check(&["##..", "....", "....", "...."], TWO, (64, 64), &["..", ".."]); // just half is not more
    }

    #[test]
    fn a_drawing_of_any_size_fits_any_grid() {
        check(&["#.", ".#"], Grid { rows: 4, columns: 4 }, (64, 64), &["##..", "##..", "..##", "..##"]);
        // three pixels on two units: the middle one counts half to each
        check(&["##.", "##.", "..."], TWO, (64, 64), &["#.", ".."]);
        check(&["#"], TWO, (64, 64), &["##", "##"]);
    }

    #[test]
    fn a_drawing_is_cropped_as_its_photo_is() {
        // twice as wide as the input: the outer quarters are not seen
        check(&["..##..##", "..##..##", "##....##", "##....##"], TWO, (64, 64), &["#.", ".."]);
        // a wide input sees the middle rows
        check(&["####", "##..", "##..", "####"], Grid { rows: 1, columns: 2 }, (32, 64), &["#."]);
    }
}
