//! Block-wise masking of BEiT (arXiv:2106.08254, algorithm 1): blocks of random area and aspect ratio.

use super::{Grid, Mask, MaskStrategy, Random};
use simmim_data::Rng;
use simmim_data::rng::{below, uniform_between};

/// Hides random blocks of units until exactly a fixed share is hidden.
#[derive(Clone, Copy, Debug)]
pub struct Blockwise {
    /// Share of units to hide, rounded as in [`Random::count`].
    pub ratio: f64,
    /// Units of the smallest block, unless fewer are still to be hidden.
    pub min_block_units: usize,
    /// Aspect ratio (height / width) of a block, `(low, high)`, before it is rounded to whole units.
    pub aspect: (f64, f64),
}

impl Blockwise {
    /// Draws the rows and columns of a block of about `min_block_units` to `remaining` units, at most those of the grid.
    ///
    /// The logarithm of the aspect ratio is uniform, so that wide and tall blocks are equally likely.
    fn block(&self, rng: &mut Rng, remaining: usize, grid: Grid) -> (usize, usize) {
        let area = uniform_between(rng, self.min_block_units.min(remaining) as f64, remaining as f64);
        let aspect = uniform_between(rng, self.aspect.0.ln(), self.aspect.1.ln()).exp();
        let whole = |side: f64, most: usize| (side.round() as usize).clamp(1, most);
        (whole((area * aspect).sqrt(), grid.rows), whole((area / aspect).sqrt(), grid.columns))
    }
}

impl MaskStrategy for Blockwise {
    fn sample(&self, rng: &mut Rng, grid: Grid) -> Mask {
        let mut hidden = vec![false; grid.cells()];
        let mut remaining = Random { ratio: self.ratio }.count(grid.cells());
        while remaining > 0 {
            let (rows, columns) = self.block(rng, remaining, grid);
            let top = below(rng, grid.rows - rows + 1);
            let left = below(rng, grid.columns - columns + 1);
            let cells = (0..rows * columns).map(|i| (top + i / columns) * grid.columns + left + i % columns);
            // the last block is cut off at its lower end if it would hide too many units
            for cell in cells {
                if remaining > 0 && !hidden[cell] {
                    hidden[cell] = true;
                    remaining -= 1;
                }
            }
        }
        Mask::new(grid, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Purpose;
    use simmim_data::rng::rng;

    /// The values of BEiT.
    const BEIT: Blockwise = Blockwise { ratio: 0.4, min_block_units: 16, aspect: (0.3, 1.0 / 0.3) };

    #[test]
    fn the_ratio_is_exact_on_any_grid() {
        for (rows, columns, ratio, expected) in
            [(14, 14, 0.4, 79), (6, 6, 0.6, 22), (1, 9, 0.5, 5), (3, 3, 0.9, 9), (48, 48, 0.9, 2074), (7, 2, 1.0, 14)]
        {
            for index in 0..20 {
                let grid = Grid { rows, columns };
                let mask = Blockwise { ratio, ..BEIT }.sample(&mut rng(0, Purpose::Mask, 0, index), grid);
                assert_eq!(mask.count(), expected, "{ratio} of {rows}×{columns}");
            }
        }
    }

    #[test]
    fn blocks_keep_to_their_area_and_aspect() {
        let grid = Grid { rows: 100, columns: 100 };
        let mut rng = rng(0, Purpose::Mask, 0, 0);
        let (mut tall_minus_wide, draws) = (0, 2000);
        for _ in 0..draws {
            let (rows, columns) = BEIT.block(&mut rng, 400, grid);
            let (rows, columns) = (rows as f64, columns as f64);
            // rounding changes each side by at most half a unit
            assert!((rows + 0.5) * (columns + 0.5) >= 16.0 && (rows - 0.5) * (columns - 0.5) <= 400.0);
            assert!((rows + 0.5) / (columns - 0.5) >= 0.3 && (rows - 0.5) / (columns + 0.5) <= 1.0 / 0.3);
            tall_minus_wide += (rows > columns) as i32 - (rows < columns) as i32;
        }
        // as many are tall as are wide, within five standard deviations
        assert!(tall_minus_wide.abs() < 5 * (draws as f64).sqrt() as i32, "{tall_minus_wide}");
    }

    #[test]
    fn every_cell_is_hidden_at_times_and_none_always() {
        let (grid, draws) = (Grid { rows: 6, columns: 6 }, 500);
        let mut times = [0; 36];
        for index in 0..draws {
            let mask = Blockwise { ratio: 0.5, ..BEIT }.sample(&mut rng(1, Purpose::Mask, 0, index), grid);
            mask.hidden().iter().zip(&mut times).for_each(|(h, t)| *t += *h as u64);
        }
        assert_eq!(times.iter().sum::<u64>(), 18 * draws);
        assert!(times.iter().all(|t| (1..draws).contains(t)), "{times:?}");
    }

    #[test]
    fn hidden_units_are_more_connected_than_random_ones() {
        let grid = Grid { rows: 14, columns: 14 };
        // pairs of neighbors of which exactly one is hidden
        let borders = |strategy: &dyn MaskStrategy| -> usize {
            let of = |index| {
                let mask = strategy.sample(&mut rng(2, Purpose::Mask, 0, index), grid);
                let h = mask.hidden();
                let across = (0..196).filter(|i| i % 14 < 13 && h[*i] != h[i + 1]).count();
                across + (0..182).filter(|i| h[*i] != h[i + 14]).count()
            };
            (0..20).map(of).sum()
        };
        assert!(borders(&BEIT) * 2 < borders(&Random { ratio: 0.4 }));
    }
}
