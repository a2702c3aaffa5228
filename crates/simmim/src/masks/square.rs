//! Square masking: one square block at a random place, as in context encoders (arXiv:1604.07379) and in SimMIM's
//! comparison of masking strategies (arXiv:2111.09886, section 3.2).

use super::{Grid, Mask, MaskStrategy};
use simmim_data::Rng;
use simmim_data::rng::below;

/// Hides one square block of units, at a place chosen uniformly at random.
#[derive(Clone, Copy, Debug)]
pub struct Square {
    /// Share of units to hide; the block has the square area that is nearest to it.
    pub ratio: f64,
}

impl Square {
    /// Side of the block in units.
    pub fn side(&self, grid: Grid) -> usize {
        let target_area = grid.cells() as f64 * self.ratio;
        let difference = |side: &usize| ((side * side) as f64 - target_area).abs();
        (1..=grid.rows.min(grid.columns)).min_by(|a, b| difference(a).total_cmp(&difference(b))).unwrap_or(0)
    }
}

impl MaskStrategy for Square {
    fn sample(&self, rng: &mut Rng, grid: Grid) -> Mask {
        let side = self.side(grid);
        let top = below(rng, grid.rows - side + 1);
        let left = below(rng, grid.columns - side + 1);
        let mut hidden = vec![false; grid.cells()];
        for row in top..top + side {
            hidden[row * grid.columns + left..][..side].fill(true);
        }
        Mask::new(grid, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Purpose;
    use simmim_data::rng::rng;

    #[test]
    fn the_side_is_that_of_the_nearest_area() {
        // rows, columns, ratio -> side
        for (rows, columns, ratio, expected) in
            [(6, 6, 0.6, 5), (6, 6, 0.4, 4), (7, 7, 0.25, 3), (4, 8, 0.9, 4), (4, 4, 0.01, 1), (4, 4, 1.0, 4)]
        {
            assert_eq!(Square { ratio }.side(Grid { rows, columns }), expected, "{ratio} of {rows}×{columns}");
        }
    }

    #[test]
    fn a_mask_is_one_square_block() {
        let (grid, square) = (Grid { rows: 5, columns: 7 }, Square { ratio: 0.25 });
        for index in 0..50 {
            let mask = square.sample(&mut rng(0, Purpose::Mask, 0, index), grid);
            let first = mask.hidden().iter().position(|h| *h).unwrap();
            let (top, left) = (first / 7, first % 7);
            let is_inside = |i: usize| (top..top + 3).contains(&(i / 7)) && (left..left + 3).contains(&(i % 7));
            assert!((0..grid.cells()).all(|i| mask.hidden()[i] == is_inside(i)), "{mask:?}");
        }
    }

    #[test]
    fn a_cell_is_hidden_as_often_as_there_are_places_that_cover_it() {
        let (grid, draws) = (Grid { rows: 4, columns: 5 }, 4000);
        let mut times = vec![0u64; grid.cells()];
        for index in 0..draws {
            let mask = Square { ratio: 0.2 }.sample(&mut rng(1, Purpose::Mask, 0, index), grid);
            mask.hidden().iter().zip(&mut times).for_each(|(h, t)| *t += *h as u64);
        }
        // blocks of 2×2 have 3 × 4 places; a row is covered by 1, 2, 2, 1 of 3, a column by 1, 2, 2, 2, 1 of 4
        let (rows, columns) = ([1, 2, 2, 1], [1, 2, 2, 2, 1]);
        for (i, times) in times.iter().enumerate() {
            let expected = draws * rows[i / 5] * columns[i % 5] / 12;
            // binomial with p up to 1/3: five standard deviations are 150
            assert!(times.abs_diff(expected) < 150, "cell {i}: {times}, expected {expected}");
        }
    }
}
