//! Where predictions lie: cells of an image, and positions in a cell.
//!
//! A head predicts cell by cell; a target thinks in maps of positions over the whole image. What
//! brings one to the other is here, for every target.

/// The feature cells of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Image channels.
    pub channels: usize,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Side of a cell in pixels: the encoder's stride.
    pub side: usize,
}

impl Cells {
    /// Cells along the vertical axis.
    pub fn rows(&self) -> usize {
        self.height / self.side
    }

    /// Cells along the horizontal axis.
    pub fn columns(&self) -> usize {
        self.width / self.side
    }

    /// Cells of one image.
    pub fn count(&self) -> usize {
        self.rows() * self.columns()
    }

    /// What a map says of some cells, `rows` being indices into `[B·cells]`.
    ///
    /// The order in a cell is that of a pixel shuffle: channel, row, column.
    ///
    /// # Shapes
    /// `map` `[B, C, h, w]` → `[R, C, S]`.
    pub fn pick<T: Copy>(&self, channels: usize, side: usize, map: &[T], rows: &[u32]) -> Vec<T> {
        let mut picked = Vec::with_capacity(rows.len() * channels * side * side);
        for row in rows {
            let (image, cell) = (*row as usize / self.count(), *row as usize % self.count());
            for start in self.lines(channels, side, cell) {
                let start = image * channels * self.count() * side * side + start;
                picked.extend_from_slice(&map[start..start + side]);
            }
        }
        picked
    }

    /// One image's predictions as a map.
    ///
    /// # Shapes
    /// `prediction` `[cells, C, S, K]` → `[C, h, w, K]`, `K` being 1 for values.
    pub fn map(&self, layout: &Layout, prediction: &[f32]) -> Vec<f32> {
        let Layout { channels, side, .. } = *layout;
        let classes = layout.classes.unwrap_or(1);
        let mut map = vec![0.0; prediction.len()];
        for (cell, prediction) in prediction.chunks_exact(layout.outputs()).enumerate() {
            let lines = self.lines(channels, side, cell).zip(prediction.chunks_exact(side * classes));
            for (start, line) in lines {
                map[start * classes..][..line.len()].copy_from_slice(line);
            }
        }
        map
    }

    /// Where each line of a cell's positions begins in a map `[C, h, w]`.
    fn lines(&self, channels: usize, side: usize, cell: usize) -> impl Iterator<Item = usize> {
        let (rows, columns) = (self.rows() * side, self.columns() * side);
        let (top, left) = (cell / self.columns() * side, cell % self.columns() * side);
        (0..channels * side).map(move |i| (i / side * rows + top + i % side) * columns + left)
    }
}

/// What is predicted of a cell: a value or one of some classes, for each channel of each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Predictions of a position, `C`; they share its loss weight.
    pub channels: usize,
    /// Positions along each axis of a cell; `S` is its square.
    pub side: usize,
    /// Classes of a prediction, `K`; none if it is a value.
    pub classes: Option<usize>,
}

impl Layout {
    /// Positions of a cell, `S`.
    pub fn positions(&self) -> usize {
        self.side * self.side
    }

    /// Numbers that a head predicts for a cell, `C·S` or `C·S·K`.
    pub fn outputs(&self) -> usize {
        self.channels * self.positions() * self.classes.unwrap_or(1)
    }
}

/// Averages squares of `px` × `px` pixels.
///
/// # Shapes
/// `planes` `[.., H, W]` → `[.., H/px, W/px]`; `width` is `W`.
pub fn averaged(planes: &[f32], width: usize, px: usize) -> Vec<f32> {
    let columns = width / px;
    let mut sums = vec![0.0; planes.len() / (px * px)];
    // lines of pixels of different planes follow each other, so squares never mix planes
    for (y, line) in planes.chunks_exact(width).enumerate() {
        let sums = &mut sums[y / px * columns..][..columns];
        for (sum, pixels) in sums.iter_mut().zip(line.chunks_exact(px)) {
            *sum += pixels.iter().sum::<f32>();
        }
    }
    let share = 1.0 / (px * px) as f32;
    sums.iter_mut().for_each(|sum| *sum *= share);
    sums
}

/// Repeats every position over a square of `px` × `px` pixels.
///
/// # Shapes
/// `map` `[.., h, w]` → `[.., h·px, w·px]`; `columns` is `w`.
pub(super) fn enlarged(map: &[f32], columns: usize, px: usize) -> Vec<f32> {
    let mut pixels = Vec::with_capacity(map.len() * px * px);
    for line in map.chunks_exact(columns) {
        for _ in 0..px {
            pixels.extend(line.iter().flat_map(|value| std::iter::repeat_n(*value, px)));
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_picked_channel_by_channel_and_laid_back() {
        // two channels of 2×4 positions in two 2×2 cells
        let cells = Cells { channels: 2, height: 2, width: 4, side: 2 };
        let map: Vec<u32> = (0..16).collect();
        assert_eq!(cells.pick(2, 2, &map, &[1]), [2, 3, 6, 7, 10, 11, 14, 15]);

        let layout = Layout { channels: 2, side: 2, classes: None };
        let prediction: Vec<f32> = cells.pick(2, 2, &map, &[0, 1]).into_iter().map(|v| v as f32).collect();
        assert_eq!(cells.map(&layout, &prediction), (0..16).map(|v| v as f32).collect::<Vec<_>>());
    }

    #[test]
    fn the_scores_of_a_position_stay_together() {
        // one channel, two cells of one position, three classes; then the second image of a batch
        let cells = Cells { channels: 3, height: 4, width: 8, side: 4 };
        let layout = Layout { channels: 1, side: 1, classes: Some(3) };
        assert_eq!(layout.outputs(), 3);
        assert_eq!(cells.map(&layout, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(cells.pick(1, 1, &[10, 11, 20, 21], &[0, 3]), [10, 21]);
    }

    #[test]
    fn squares_are_averaged_and_enlarged_again() {
        // two planes of 2×4
        let planes = [0.0, 2.0, 8.0, 8.0, 4.0, 6.0, 8.0, 0.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0];
        assert_eq!(averaged(&planes, 4, 2), [3.0, 6.0, 1.0, 2.0]);
        assert_eq!(averaged(&planes, 4, 1), planes);
        assert_eq!(enlarged(&[3.0, 6.0], 2, 2), [3.0, 3.0, 6.0, 6.0, 3.0, 3.0, 6.0, 6.0]);
    }
}
