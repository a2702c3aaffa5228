//! The sizes of the branch's values, and the move from heads to rows.

use crate::pools::ActivationDtype;
use simmim_kernels::attention::HeadShape;
use simmim_kernels::dtype::padded;
use simmim_kernels::epilogue::copy_rows;
use std::ops::Range;

#[derive(Clone, Copy)]
pub(super) struct AttentionSizes {
    pub(super) images: usize,
    /// Windows of an image.
    pub(super) windows: usize,
    /// Tokens of a window, `M`, with those of padding.
    pub(super) window_tokens: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
}

impl AttentionSizes {
    /// Windows of all images, `W`.
    pub(super) fn all_windows(&self) -> usize {
        self.images * self.windows
    }

    /// Rows of an image, in the order of windows.
    pub(super) fn rows_of_image(&self) -> usize {
        self.windows * self.window_tokens
    }

    /// Rows of all images, `W·M`.
    pub(super) fn rows(&self) -> usize {
        self.images * self.rows_of_image()
    }

    pub(super) fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// The sizes of one head in one window.
    pub(super) fn head(&self) -> HeadShape {
        HeadShape { tokens: self.window_tokens, width: self.head_width() }
    }

    /// Scores of one head in one window, `M·M`.
    pub(super) fn scores_len(&self) -> usize {
        self.window_tokens * self.window_tokens
    }

    /// Values of one head in one window, `M·E`.
    pub(super) fn head_len(&self) -> usize {
        self.window_tokens * self.head_width()
    }

    /// Stored attention weights of one head in one window.
    pub(super) fn p_len<T: ActivationDtype>(&self) -> usize {
        self.head().scores_len::<T>()
    }

    /// The whole windows that some rows are of.
    pub(super) fn windows_of(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start / self.window_tokens..rows.end / self.window_tokens
    }
}

/// Copies heads to the rows of a chunk.
///
/// # Shapes
/// `heads` `[W, A, parts, M, E]` → `out` `[R, parts·D]` with `parts` = 3 for queries, keys and values.
pub(super) fn collect_rows<T: ActivationDtype>(
    sizes: &AttentionSizes,
    heads: &[T],
    parts: usize,
    rows: &Range<usize>,
    out: &mut [T],
) {
    let (width, of_window) = (sizes.head_width(), sizes.window_tokens);
    let stride = padded::<T>(parts * sizes.width);
    // head by head, so that reads are contiguous; the writes go to a chunk, which is in the cache
    for window in rows.start / of_window..rows.end.div_ceil(of_window) {
        let tokens = (window * of_window).max(rows.start)..((window + 1) * of_window).min(rows.end);
        for head in 0..sizes.heads {
            for part in 0..parts {
                let item = ((window * sizes.heads + head) * parts + part) * sizes.head_len();
                let from = &heads[item + (tokens.start - window * of_window) * width..][..tokens.len() * width];
                let out = &mut out[(tokens.start - rows.start) * stride + part * sizes.width + head * width..];
                copy_rows(from, width, out, stride);
            }
        }
    }
}
