//! Windows over a token grid, regular or shifted, as index maps (arXiv:2103.14030, section 3.2).
//!
//! The attention branch reads the tokens of each window through the map, and writes them back through it.

use crate::encoders::check_pairs;
use crate::error::Result;
use simmim_engine::Windows;
use std::rc::Rc;

/// Added to the attention score of two tokens of a window that are not neighbors in the image
/// (microsoft/Swin-Transformer, `models/swin_transformer.py`).
const MASKED_SCORE: f32 = -100.0;

/// The windows of a stage, shared by its blocks.
#[derive(Clone, Debug)]
pub(super) struct StageWindows {
    /// Side of a window in tokens.
    pub(super) side: usize,
    /// Row in the bias table for each pair of slots of a window, `[side², side²]`.
    pub(super) bias_index: Rc<[u32]>,
    regular: Windows,
    shifted: Windows,
}

impl StageWindows {
    /// Checks that there is memory for what [`StageWindows::new`] makes.
    ///
    /// # Errors
    /// If the system does not give it.
    pub(super) fn check_memory(grid: (usize, usize), window: usize) -> Result<()> {
        let (side, shift) = side_and_shift(grid, window);
        // the index, once as it is computed and once as it is shared; the right, the lower and the last window are masked
        check_pairs(side * side, if shift > 0 { 2 + 3 } else { 2 })
    }

    /// Windows of `window` × `window` tokens. If the shorter side of the grid is not larger than that, windows have
    /// that side and are not shifted.
    pub(super) fn new(grid: (usize, usize), window: usize) -> Self {
        let (side, shift) = side_and_shift(grid, window);
        Self {
            side,
            bias_index: relative_position_index(side),
            regular: windows(grid, side, 0),
            shifted: windows(grid, side, shift),
        }
    }

    /// The windows of a block of the stage, counted from 0; those of odd blocks are shifted by half a window.
    pub(super) fn of_block(&self, block: usize) -> Windows {
        if block % 2 == 1 { self.shifted.clone() } else { self.regular.clone() }
    }

    /// Rows of the relative position bias table: one per pair of offsets.
    pub(super) fn relative_positions(&self) -> usize {
        (2 * self.side - 1) * (2 * self.side - 1)
    }
}

fn side_and_shift((h, w): (usize, usize), window: usize) -> (usize, usize) {
    let smallest = h.min(w);
    if smallest <= window { (smallest, 0) } else { (window, window / 2) }
}

/// Windows of `side²` tokens over an `h × w` grid that is cyclically shifted up and left by `shift`.
///
/// A grid that the window does not divide is padded with zeros at the bottom and on the right before the shift, as in
/// SwinTransformer/Swin-Transformer-Object-Detection, `mmdet/models/backbones/swin_transformer.py`.
fn windows((h, w): (usize, usize), side: usize, shift: usize) -> Windows {
    let (rows, columns) = (h.div_ceil(side), w.div_ceil(side));
    let padding = h * w;
    let token = |y: usize, x: usize| match ((y + shift) % (rows * side), (x + shift) % (columns * side)) {
        (y, x) if y < h && x < w => y * w + x,
        _ => padding,
    };
    // tokens of different regions are neighbors only because of the cyclic shift
    let region = |y: usize, x: usize| {
        (region_on_axis(y, rows * side, side, shift), region_on_axis(x, columns * side, side, shift))
    };
    let (mut slots, mut masks, mut mask_of) = (Vec::new(), Vec::<Vec<f32>>::new(), Vec::new());
    for window in 0..rows * columns {
        let (top, left) = (window / columns * side, window % columns * side);
        let coordinates = || (0..side * side).map(|slot| (top + slot / side, left + slot % side));
        slots.extend(coordinates().map(|(y, x)| token(y, x) as u32));
        let regions: Vec<_> = coordinates().map(|(y, x)| region(y, x)).collect();
        if regions.iter().all(|r| *r == regions[0]) {
            mask_of.push(None);
            continue;
        }
        let score = |(a, b)| if a == b { 0.0 } else { MASKED_SCORE };
        let mask: Vec<f32> = regions.iter().flat_map(|a| regions.iter().map(move |b| score((a, b)))).collect();
        let index = masks.iter().position(|m| *m == mask).unwrap_or_else(|| {
            masks.push(mask);
            masks.len() - 1
        });
        mask_of.push(Some(index as u32));
    }
    Windows { tokens: side * side, slots: slots.into(), masks: masks.into(), mask_of: mask_of.into() }
}

/// The region of a position on a shifted axis: 0 outside of the last window, and in the last window 1 for positions
/// that were there before the shift and 2 for those that wrapped around.
fn region_on_axis(position: usize, length: usize, side: usize, shift: usize) -> usize {
    usize::from(position >= length - side) + usize::from(position >= length - shift)
}

fn relative_position_index(side: usize) -> Rc<[u32]> {
    let row = |i: usize, j: usize| {
        let (dy, dx) = (i / side + side - 1 - j / side, i % side + side - 1 - j % side);
        (dy * (2 * side - 1) + dx) as u32
    };
    (0..side * side).flat_map(|i| (0..side * side).map(move |j| row(i, j))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_windows_need_no_mask() {
        let windows = windows((2, 4), 2, 0);
        assert_eq!(*windows.slots, [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!((windows.masks.len(), &*windows.mask_of), (0, &[None, None][..]));
    }

    #[test]
    fn shifted_windows_mask_tokens_that_wrapped_around() {
        let windows = windows((4, 4), 2, 1);
        assert_eq!(windows.slots[..4], [5, 6, 9, 10]);
        assert_eq!(windows.slots[12..], [15, 12, 3, 0]);
        assert_eq!(*windows.mask_of, [None, Some(0), Some(1), Some(2)]);
        let hidden = |mask: usize| windows.masks[mask].iter().filter(|m| **m == MASKED_SCORE).count();
        // the windows hold two regions side by side, two regions above each other, and four regions of one token
        assert_eq!([hidden(0), hidden(1), hidden(2)], [8, 8, 12]);
    }

    #[test]
    fn a_grid_that_windows_do_not_divide_is_padded_at_the_bottom_and_on_the_right() {
        let windows = windows((3, 2), 2, 0);
        assert_eq!(*windows.slots, [0, 1, 2, 3, 4, 5, 6, 6]);
    }

    #[test]
    fn every_token_lies_in_exactly_one_window() {
        for (grid, side, shift) in [((12, 12), 6, 3), ((6, 12), 6, 0), ((7, 9), 4, 2), ((5, 3), 3, 1)] {
            let windows = windows(grid, side, shift);
            let mut counts = vec![0; grid.0 * grid.1 + 1];
            windows.slots.iter().for_each(|slot| counts[*slot as usize] += 1);
            assert!(counts[..grid.0 * grid.1].iter().all(|count| *count == 1), "{grid:?} {side} {shift}");
        }
    }

    #[test]
    fn small_grids_shrink_the_window_and_are_not_shifted() {
        assert_eq!(side_and_shift((12, 12), 6), (6, 3));
        assert_eq!(side_and_shift((6, 12), 6), (6, 0));
        assert_eq!(side_and_shift((12, 4), 6), (4, 0));
    }

    #[test]
    fn the_index_counts_offsets_from_the_top_left() {
        assert_eq!(*relative_position_index(2), [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4]);
    }
}
