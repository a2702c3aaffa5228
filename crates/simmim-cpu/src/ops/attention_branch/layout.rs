//! The sizes of the branch's values, and the move from heads to rows.

use crate::pools::ActivationDtype;
use simmim_kernels::attention::HeadShape;
use simmim_kernels::dtype::padded;
use simmim_kernels::epilogue::copy_rows;
use std::ops::Range;

#[derive(Clone, Copy)]
pub(super) struct AttentionSizes {
    pub(super) images: usize,
    /// Tokens of an image, `N`.
    pub(super) tokens: usize,
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

    /// Rows of all images, `R = B·N`.
    pub(super) fn rows(&self) -> usize {
        self.images * self.tokens
    }

    /// Whether windows have slots without a token.
    pub(super) fn has_padding(&self) -> bool {
        self.windows * self.window_tokens > self.tokens
    }

    /// Windows of a group. The rows of a group follow each other: those of a window, or of all windows of an image if they have
    /// padding.
    pub(super) fn group_windows(&self) -> usize {
        if self.has_padding() { self.windows } else { 1 }
    }

    /// Rows of a group.
    pub(super) fn group_rows(&self) -> usize {
        if self.has_padding() { self.tokens } else { self.window_tokens }
    }

    /// Groups of all images, `G`.
    pub(super) fn groups(&self) -> usize {
        self.all_windows() / self.group_windows()
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

    /// Values of one head in one group.
    pub(super) fn head_len(&self) -> usize {
        self.group_rows() * self.head_width()
    }

    /// Stored attention weights of one head in one window.
    pub(super) fn p_len<T: ActivationDtype>(&self) -> usize {
        self.head().scores_len::<T>()
    }

    /// The index of one head in one window among all, `[G, A, W/G]`.
    pub(super) fn head_index(&self, window: usize, head: usize) -> usize {
        let of_group = self.group_windows();
        (window / of_group * self.heads + head) * of_group + window % of_group
    }

    /// The first row of a window's group.
    pub(super) fn first_row(&self, window: usize) -> usize {
        window / self.group_windows() * self.group_rows()
    }

    /// The windows of a group.
    pub(super) fn windows_of_group(&self, group: usize) -> Range<usize> {
        group * self.group_windows()..(group + 1) * self.group_windows()
    }

    /// The whole windows that some rows are of, if there is no padding.
    pub(super) fn windows_of(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start / self.window_tokens..rows.end / self.window_tokens
    }
}

/// Copies heads to the rows of a chunk.
///
/// # Shapes
/// `heads` `[G, A, parts, R/G, E]` → `out` `[R, parts·D]` with `parts` = 3 for queries, keys and values.
pub(super) fn collect_rows<T: ActivationDtype>(
    sizes: &AttentionSizes,
    heads: &[T],
    parts: usize,
    rows: &Range<usize>,
    out: &mut [T],
) {
    let (width, of_group) = (sizes.head_width(), sizes.group_rows());
    let stride = padded::<T>(parts * sizes.width);
    // head by head, so that reads are contiguous; the writes go to a chunk, which is in the cache
    for group in rows.start / of_group..rows.end.div_ceil(of_group) {
        let tokens = (group * of_group).max(rows.start)..((group + 1) * of_group).min(rows.end);
        for head in 0..sizes.heads {
            for part in 0..parts {
                let item = ((group * sizes.heads + head) * parts + part) * sizes.head_len();
                let from = &heads[item + (tokens.start - group * of_group) * width..][..tokens.len() * width];
                let out = &mut out[(tokens.start - rows.start) * stride + part * sizes.width + head * width..];
                copy_rows(from, width, out, stride);
            }
        }
    }
}
