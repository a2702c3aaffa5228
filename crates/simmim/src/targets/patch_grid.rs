//! The layout of predictions.
//!
//! Each feature of the encoder covers a square of the image, a patch, which is divided into sub-patches. A head
//! predicts one row `[C·S·K]` per feature; targets are maps `[C, h, w]` of sub-patches over the whole image. This file
//! converts between the two.

/// The grid of patches of an image, one per feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGrid {
    /// Number of image channels.
    pub channels: usize,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Side of a patch in pixels: the stride of the encoder.
    pub side: usize,
}

impl PatchGrid {
    /// Number of patches along the height.
    pub fn rows(&self) -> usize {
        self.height / self.side
    }

    /// Number of patches along the width.
    pub fn columns(&self) -> usize {
        self.width / self.side
    }

    /// Number of patches of an image.
    pub fn count(&self) -> usize {
        self.rows() * self.columns()
    }

    /// The rows of some features from a map; `rows` are indices into the features `[B·h·w]`.
    ///
    /// A row is in the order of PyTorch's `pixel_unshuffle`: channel, row, column.
    ///
    /// # Shapes
    /// `map` `[B, C, h, w]` → `[R, C, S]`.
    pub fn pick<T: Copy>(&self, channels: usize, side: usize, map: &[T], rows: &[u32]) -> Vec<T> {
        let mut picked = Vec::with_capacity(rows.len() * channels * side * side);
        for row in rows {
            let (image, feature) = (*row as usize / self.count(), *row as usize % self.count());
            for start in self.lines(channels, side, feature) {
                let start = image * channels * self.count() * side * side + start;
                picked.extend_from_slice(&map[start..start + side]);
            }
        }
        picked
    }

    /// Arranges the predictions of one image as a map.
    ///
    /// # Shapes
    /// `prediction` `[features, C, S, K]` → `[C, h, w, K]`, where `K` is 1 for values.
    pub fn map(&self, layout: &Layout, prediction: &[f32]) -> Vec<f32> {
        let Layout { channels, side, .. } = *layout;
        let classes = layout.classes.unwrap_or(1);
        let mut map = vec![0.0; prediction.len()];
        for (feature, prediction) in prediction.chunks_exact(layout.outputs()).enumerate() {
            let lines = self.lines(channels, side, feature).zip(prediction.chunks_exact(side * classes));
            for (start, line) in lines {
                map[start * classes..][..line.len()].copy_from_slice(line);
            }
        }
        map
    }

    /// Offset in a map `[C, h, w]` of each line of sub-patches of a feature.
    fn lines(&self, channels: usize, side: usize, feature: usize) -> impl Iterator<Item = usize> {
        let (rows, columns) = (self.rows() * side, self.columns() * side);
        let (top, left) = (feature / self.columns() * side, feature % self.columns() * side);
        (0..channels * side).map(move |i| (i / side * rows + top + i % side) * columns + left)
    }
}

/// What a head predicts per feature: a value, or one of `K` classes, for each channel of each sub-patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Predictions per sub-patch, `C`; they share its weight in the loss.
    pub channels: usize,
    /// Sub-patches along each side of a patch; `S = side²`.
    pub side: usize,
    /// Number of classes, `K`; `None` if predictions are values.
    pub classes: Option<usize>,
}

impl Layout {
    /// Sub-patches per feature, `S`.
    pub fn sub_patches(&self) -> usize {
        self.side * self.side
    }

    /// Number of outputs of a head per feature, `C·S` or `C·S·K`.
    pub fn outputs(&self) -> usize {
        self.channels * self.sub_patches() * self.classes.unwrap_or(1)
    }
}

/// Averages squares of `px` × `px` pixels.
///
/// # Shapes
/// `planes` `[.., H, W]` → `[.., H/px, W/px]`; `width` is `W`.
pub fn averaged(planes: &[f32], width: usize, px: usize) -> Vec<f32> {
    let columns = width / px;
    let mut sums = vec![0.0; planes.len() / (px * px)];
    // the planes are contiguous, so no square mixes lines of different planes
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

/// Repeats every value of a map over a square of `px` × `px` pixels.
///
/// # Shapes
/// `map` `[.., h, w]` → `[.., h·px, w·px]`; `columns` is `w`.
pub(crate) fn enlarged(map: &[f32], columns: usize, px: usize) -> Vec<f32> {
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
        // two channels of 2×4 sub-patches in two patches of 2×2
        let grid = PatchGrid { channels: 2, height: 2, width: 4, side: 2 };
        let map: Vec<u32> = (0..16).collect();
        assert_eq!(grid.pick(2, 2, &map, &[1]), [2, 3, 6, 7, 10, 11, 14, 15]);

        let layout = Layout { channels: 2, side: 2, classes: None };
        let prediction: Vec<f32> = grid.pick(2, 2, &map, &[0, 1]).into_iter().map(|v| v as f32).collect();
        assert_eq!(grid.map(&layout, &prediction), (0..16).map(|v| v as f32).collect::<Vec<_>>());
    }

    #[test]
    fn the_logits_of_a_sub_patch_stay_together() {
        // one channel, two patches of one sub-patch, three classes; then the second image of a batch
        let grid = PatchGrid { channels: 3, height: 4, width: 8, side: 4 };
        let layout = Layout { channels: 1, side: 1, classes: Some(3) };
        assert_eq!(layout.outputs(), 3);
        assert_eq!(grid.map(&layout, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(grid.pick(1, 1, &[10, 11, 20, 21], &[0, 3]), [10, 21]);
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
