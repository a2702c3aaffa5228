//! Raw pixels at full resolution: the paper's target (section 3.4).
//!
//! The order of a cell's values is that of a pixel shuffle: channel, row, column.

use super::{Cells, Target};

/// Normalised pixel values.
#[derive(Clone, Copy, Debug)]
pub struct Pixels;

/// Calls `visit(pixel offset in a plane, offset in the cell)` for each row of pixels of a cell.
fn rows(cells: &Cells, cell: usize, mut visit: impl FnMut(usize, usize)) {
    let (top, left) = (cell / cells.columns() * cells.side, cell % cells.columns() * cells.side);
    for i in 0..cells.side {
        visit((top + i) * cells.width + left, i * cells.side);
    }
}

impl Target for Pixels {
    fn outputs(&self, cells: &Cells) -> usize {
        cells.channels * cells.side * cells.side
    }

    fn values(&self, cells: &Cells, image: &[f32], cell: usize, values: &mut [f32]) {
        let planes =
            image.chunks_exact(cells.height * cells.width).zip(values.chunks_exact_mut(cells.side * cells.side));
        for (plane, values) in planes {
            rows(cells, cell, |from, to| values[to..to + cells.side].copy_from_slice(&plane[from..from + cells.side]));
        }
    }

    fn weights(&self, cells: &Cells, pixel_weight: &[f32], cell: usize, weight: &mut [f32]) {
        rows(cells, cell, |from, to| {
            weight[to..to + cells.side].copy_from_slice(&pixel_weight[from..from + cells.side]);
        });
    }

    fn paint(&self, cells: &Cells, prediction: &[f32], cell: usize, picture: &mut [f32]) {
        let planes =
            picture.chunks_exact_mut(cells.height * cells.width).zip(prediction.chunks_exact(cells.side * cells.side));
        for (plane, values) in planes {
            rows(cells, cell, |to, from| plane[to..to + cells.side].copy_from_slice(&values[from..from + cells.side]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_channel_by_channel_and_painted_back() {
        // two channels of 2×4 pixels in two 2×2 cells
        let cells = Cells { channels: 2, height: 2, width: 4, side: 2 };
        let image: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let mut values = [0.0; 8];
        Pixels.values(&cells, &image, 1, &mut values);
        assert_eq!(values, [2.0, 3.0, 6.0, 7.0, 10.0, 11.0, 14.0, 15.0]);

        let mut picture = vec![-1.0; 16];
        Pixels.paint(&cells, &values, 1, &mut picture);
        assert_eq!(picture[..8], [-1.0, -1.0, 2.0, 3.0, -1.0, -1.0, 6.0, 7.0]);

        let mut weight = [0.0; 4];
        Pixels.weights(&cells, &image[..8], 0, &mut weight);
        assert_eq!(weight, [0.0, 1.0, 4.0, 5.0]);
    }
}
