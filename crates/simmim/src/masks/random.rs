//! Patch-aligned random masking, the default of SimMIM (arXiv:2111.09886, section 3.2).

use super::{Grid, Mask, MaskStrategy};
use simmim_data::Rng;
use simmim_data::rng::permutation;

/// Hides a fixed share of the units, chosen uniformly at random.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// Share of units to hide.
    pub ratio: f64,
}

impl Random {
    /// Number of hidden units of `cells`, rounded up as in the official mask generator (microsoft/SimMIM,
    /// `data/data_simmim.py`).
    pub fn count(&self, cells: usize) -> usize {
        ((cells as f64 * self.ratio).ceil() as usize).min(cells)
    }
}

impl MaskStrategy for Random {
    fn sample(&self, rng: &mut Rng, grid: Grid) -> Mask {
        let mut hidden = vec![false; grid.cells()];
        for cell in &permutation(rng, grid.cells())[..self.count(grid.cells())] {
            hidden[*cell] = true;
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
    fn counts_are_the_official_ones() {
        // input px, unit px, ratio -> hidden units, from the official generator's formula
        for (input, unit, ratio, expected) in
            [(192, 32, 0.6, 22), (224, 32, 0.6, 30), (192, 4, 0.6, 1383), (32, 8, 0.6, 10)]
        {
            let side: usize = input / unit;
            assert_eq!(Random { ratio }.count(side * side), expected, "{input} / {unit}");
        }
    }

    #[test]
    fn every_mask_hides_exactly_the_count() {
        let grid = Grid { rows: 5, columns: 7 };
        for index in 0..50 {
            let mask = Random { ratio: 0.6 }.sample(&mut rng(0, Purpose::Mask, 0, index), grid);
            assert_eq!(mask.count(), 21);
        }
    }

    #[test]
    fn every_cell_is_hidden_equally_often() {
        let (grid, draws) = (Grid { rows: 4, columns: 4 }, 4000);
        let mut times = [0; 16];
        for index in 0..draws {
            let mask = Random { ratio: 0.5 }.sample(&mut rng(1, Purpose::Mask, 0, index), grid);
            mask.hidden().iter().zip(&mut times).for_each(|(h, t)| *t += *h as u64);
        }
        // binomial with n = 4000, p = 1/2: five standard deviations are 158
        assert!(times.iter().all(|t| t.abs_diff(draws / 2) < 158), "{times:?}");
    }
}
