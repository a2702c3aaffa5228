//! Which row of a relative position bias table each pair of tokens reads (microsoft/SimMIM,
//! `models/vision_transformer.py`).

/// Rows of a relative position bias table that belong to the class token.
pub(super) const CLASS_ROWS: usize = 3;

/// Rows of a relative position bias table for an `h × w` grid: one per offset, and three for the class token.
pub(super) fn relative_positions((h, w): (usize, usize)) -> usize {
    (2 * h - 1) * (2 * w - 1) + CLASS_ROWS
}

/// Row in the bias table for each pair of tokens (class token first), `[1 + N, 1 + N]`.
///
/// The last three rows are for class token to patch, patch to class token, and class token to itself.
pub(super) fn relative_position_index((h, w): (usize, usize)) -> Vec<u32> {
    let rows = relative_positions((h, w));
    let n = h * w;
    let pair = |i: usize, j: usize| match (i, j) {
        (0, 0) => rows - 1,
        (0, _) => rows - 3,
        (_, 0) => rows - 2,
        (i, j) => {
            let ((y1, x1), (y2, x2)) = (((i - 1) / w, (i - 1) % w), ((j - 1) / w, (j - 1) % w));
            (y1 + h - 1 - y2) * (2 * w - 1) + x1 + w - 1 - x2
        }
    };
    (0..=n).flat_map(|i| (0..=n).map(move |j| pair(i, j) as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_two_by_one_grid_is_that_of_the_official_code() {
        // offsets −1, 0, 1 are rows 0, 1, 2; class token rows 3, 4, 5
        assert_eq!(relative_position_index((2, 1)), [5, 3, 3, 4, 1, 0, 4, 2, 1]);
    }

    #[test]
    fn a_wide_grid_uses_every_row_of_its_table() {
        let (grid, mut used) = ((2, 3), [false; 3 * 5 + 3]);
        relative_position_index(grid).iter().for_each(|row| used[*row as usize] = true);
        assert!(used.iter().all(|u| *u));
    }
}
