//! Loading the position tables of other weights, which may be of another grid.

use super::super::resize::{resize_bias_table, resize_positions};
use super::super::{Fit, SourceTensor};
use super::Vit;
use super::relative_positions::CLASS_ROWS;
use simmim_engine::Parameter;

impl Vit {
    /// The fit of a relative position bias table, whose last three rows belong to the class token and are not resized.
    pub(super) fn fit_bias_table(&self, parameter: &Parameter, source: &SourceTensor) -> Fit {
        let ([rows, heads], own) = (source.shape, &parameter.shape) else { return Fit::Incompatible };
        if *heads != own[1] {
            return Fit::Reinitialized(format!("it is for {heads} heads, not {}", own[1]));
        }
        let offsets = |grid: (usize, usize)| (2 * grid.0 - 1, 2 * grid.1 - 1);
        let known = source.grid.map(offsets).filter(|(y, x)| y * x + CLASS_ROWS == *rows);
        let side = (rows - CLASS_ROWS).isqrt();
        let square = (side * side + CLASS_ROWS == *rows && side % 2 == 1).then_some((side, side));
        match known.or(square) {
            None => Fit::Reinitialized(format!("the grid of its {rows} rows is not known")),
            Some(from) if from == offsets(self.grid()) => Fit::Same,
            Some(from) => {
                let (table, class_rows) = source.values.split_at((rows - CLASS_ROWS) * heads);
                let mut resized = resize_bias_table(table, from, offsets(self.grid()));
                resized.extend(class_rows);
                Fit::Resized(resized)
            }
        }
    }

    /// The fit of absolute position embeddings, whose first row belongs to the class token and is not resized.
    pub(super) fn fit_positions(&self, parameter: &Parameter, source: &SourceTensor) -> Fit {
        let [1, rows, width] = *source.shape else { return Fit::Incompatible };
        if width != parameter.shape[2] {
            return Fit::Incompatible;
        }
        match source.grid_of(rows - 1) {
            None => Fit::Reinitialized(format!("the grid of its {rows} rows is not known")),
            Some(from) if from == self.grid() => Fit::Same,
            Some(from) => {
                let (class_row, table) = source.values.split_at(width);
                Fit::Resized([class_row, &resize_positions(table, from, self.grid())].concat())
            }
        }
    }
}
