//! Masks over a grid of units, `true` = hidden, and the strategies that draw them.
//!
//! A strategy is one file with one type that implements [`MaskStrategy`], and one arm in [`strategy`] if recipes can
//! name it. [`Drawn`] and [`Rectangle`] have none, because they depend on a single image.

mod avg_dist;
mod blockwise;
mod drawn;
mod random;
mod rectangle;
mod square;

pub use avg_dist::avg_dist;
pub use blockwise::Blockwise;
pub use drawn::Drawn;
pub use random::Random;
pub use rectangle::{PixelBox, Rectangle};
pub use square::Square;

use crate::recipe::{MaskRecipe, MaskStrategyName};
use simmim_data::Rng;

/// A grid of mask units (or of patches) over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Number of cells along the height.
    pub rows: usize,
    /// Number of cells along the width.
    pub columns: usize,
}

impl Grid {
    /// Number of cells, `rows · columns`.
    pub fn cells(&self) -> usize {
        self.rows * self.columns
    }
}

/// A mask: which cells of a grid are hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    grid: Grid,
    hidden: Vec<bool>,
}

impl Mask {
    /// A mask from one flag per cell in row-major order, `true` = hidden.
    ///
    /// # Panics
    /// If `hidden` does not have one flag per cell.
    pub fn new(grid: Grid, hidden: Vec<bool>) -> Self {
        assert_eq!(hidden.len(), grid.cells(), "one flag per cell");
        Self { grid, hidden }
    }

    /// The mask's grid.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// One flag per cell in row-major order, `true` = hidden.
    pub fn hidden(&self) -> &[bool] {
        &self.hidden
    }

    /// Number of hidden cells.
    pub fn count(&self) -> usize {
        self.hidden.iter().filter(|h| **h).count()
    }

    /// The same mask on a grid that is `factor` times finer along each axis.
    pub fn refined(&self, factor: usize) -> Mask {
        let grid = Grid { rows: self.grid.rows * factor, columns: self.grid.columns * factor };
        let cell = |i: usize| (i / grid.columns / factor) * self.grid.columns + i % grid.columns / factor;
        Mask { grid, hidden: (0..grid.cells()).map(|i| self.hidden[cell(i)]).collect() }
    }
}

/// A strategy that draws masks.
pub trait MaskStrategy: Send + Sync {
    /// Draws a mask for one image; it depends on nothing but the state of `rng` and the grid.
    fn sample(&self, rng: &mut Rng, grid: Grid) -> Mask;
}

/// The strategy of a recipe.
pub fn strategy(recipe: &MaskRecipe) -> Box<dyn MaskStrategy> {
    match recipe.strategy {
        MaskStrategyName::Random => Box::new(Random { ratio: recipe.ratio }),
        MaskStrategyName::Square => Box::new(Square { ratio: recipe.ratio }),
        MaskStrategyName::Blockwise => {
            Box::new(Blockwise { ratio: recipe.ratio, min_block_units: recipe.min_block_units, aspect: recipe.aspect })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refining_repeats_each_cell() {
        let mask = Mask::new(Grid { rows: 1, columns: 2 }, vec![true, false]);
        let fine = mask.refined(2);
        assert_eq!(fine.grid(), Grid { rows: 2, columns: 4 });
        assert_eq!(fine.hidden(), [true, true, false, false, true, true, false, false]);
    }
}
