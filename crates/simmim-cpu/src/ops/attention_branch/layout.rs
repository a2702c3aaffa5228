//! The sizes of the branch's values, and the move from heads to rows.

use crate::pools::ActivationDtype;
use simmim_kernels::attention::HeadShape;
use simmim_kernels::dtype::padded;
use simmim_kernels::epilogue::copy_rows;
use std::ops::Range;

#[derive(Clone, Copy)]
pub(super) struct AttentionSizes {
    pub(super) images: usize,
    pub(super) tokens: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Windows of an image.
    pub(super) windows: usize,
    pub(super) window_tokens: usize,
}

impl AttentionSizes {
    /// Tokens of all images, `B·N`.
    pub(super) fn rows(&self) -> usize {
        self.images * self.tokens
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

    /// Values of one head of one image, `N·E`.
    pub(super) fn head_len(&self) -> usize {
        self.tokens * self.head_width()
    }

    /// Stored attention weights of one head of one image, in all its windows.
    pub(super) fn p_len<T: ActivationDtype>(&self) -> usize {
        self.windows * self.head().scores_len::<T>()
    }
}

/// Copies heads to the rows of a chunk.
///
/// # Shapes
/// `heads` `[B, A, parts, N, E]` → `out` `[R, parts·D]` with `parts` = 3 for queries, keys and values.
pub(super) fn collect_rows<T: ActivationDtype>(
    sizes: &AttentionSizes,
    heads: &[T],
    parts: usize,
    rows: &Range<usize>,
    out: &mut [T],
) {
    let (width, stride) = (sizes.head_width(), padded::<T>(parts * sizes.width));
    // head by head, so that reads are contiguous; the writes go to a chunk, which is in the cache
    for image in rows.start / sizes.tokens..rows.end.div_ceil(sizes.tokens) {
        let tokens = (image * sizes.tokens).max(rows.start)..((image + 1) * sizes.tokens).min(rows.end);
        for head in 0..sizes.heads {
            for part in 0..parts {
                let item = ((image * sizes.heads + head) * parts + part) * sizes.head_len();
                let from = &heads[item + (tokens.start - image * sizes.tokens) * width..][..tokens.len() * width];
                let out = &mut out[(tokens.start - rows.start) * stride + part * sizes.width + head * width..];
                copy_rows(from, width, out, stride);
            }
        }
    }
}
