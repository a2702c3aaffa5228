//! Unfolding of images, which turns a convolution into a product of matrices: the neighborhood of each pixel becomes a
//! row.
//!
//! Images are channels last, so that each row of a neighborhood is one contiguous run of values. The neighborhood is
//! listed row by row, pixel by pixel, channel by channel, with zeros outside of the image.
//!
//! ```text
//! images [B, H, W, C] ── unfold ──► rows [B·H·W, k·k·C] ── · weightᵀ ──► [B·H·W, O]
//!                     ◄── fold ───
//! ```

use crate::dtype::{Dtype, padded};
use std::ops::Range;

/// The sizes of images and of the square neighborhood of each pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighborhood {
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Side of the square, `k`; odd.
    pub side: usize,
}

impl Neighborhood {
    /// Number of pixels of an image.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Length of a row, `k·k·C` values.
    pub fn row_len(&self) -> usize {
        self.side * self.side * self.channels
    }

    /// Calls `visit(offset in the images, offset in the row, length)` for each run of a pixel's neighborhood that lies
    /// within its image. Pixels are numbered across images.
    fn runs(&self, pixel: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let reach = self.side / 2;
        let (image, pixel) = (pixel / self.pixels(), pixel % self.pixels());
        let (y, x) = (pixel / self.width, pixel % self.width);
        let skipped = reach.saturating_sub(x);
        let left = (x + skipped) - reach;
        let columns = (x + reach + 1).min(self.width) - left;
        for i in reach.saturating_sub(y)..self.side.min(self.height + reach - y) {
            let start = (image * self.height + y + i - reach) * self.width + left;
            visit(start * self.channels, (i * self.side + skipped) * self.channels, columns * self.channels);
        }
    }
}

/// Writes the neighborhoods of `pixels`, which are numbered across images, to stored rows.
///
/// # Shapes
/// `images` `[B, H, W, C]` → `rows` `[pixels, k·k·C]`, in whole lanes.
pub fn unfold<T: Dtype>(n: &Neighborhood, images: &[T], pixels: Range<usize>, rows: &mut [T]) {
    let stride = padded::<T>(n.row_len());
    assert_eq!(rows.len(), pixels.len() * stride, "one row per pixel");
    rows.fill(T::default());
    for (pixel, row) in pixels.zip(rows.chunks_exact_mut(stride)) {
        n.runs(pixel, |from, to, len| row[to..to + len].copy_from_slice(&images[from..from + len]));
    }
}

/// Specification of [`unfold`].
pub fn unfold_naive<T: Dtype>(n: &Neighborhood, images: &[T], pixels: Range<usize>, rows: &mut [T]) {
    let stride = padded::<T>(n.row_len());
    for (at, value) in rows.iter_mut().enumerate() {
        let (pixel, inside) = (pixels.start + at / stride, at % stride);
        let from = if inside < n.row_len() { index_in_images(n, pixel, inside) } else { None };
        *value = from.map_or(T::default(), |from| images[from]);
    }
}

/// The gradient of [`unfold`]: adds each row to the neighborhood of its pixel.
///
/// # Shapes
/// `rows` `[pixels, k·k·C]`, `images` `[B, H, W, C]`.
pub fn fold(n: &Neighborhood, rows: &[f32], pixels: Range<usize>, images: &mut [f32]) {
    assert_eq!(rows.len(), pixels.len() * n.row_len(), "one row per pixel");
    for (pixel, row) in pixels.zip(rows.chunks_exact(n.row_len())) {
        n.runs(pixel, |to, from, len| {
            for (sum, value) in images[to..to + len].iter_mut().zip(&row[from..from + len]) {
                *sum += *value;
            }
        });
    }
}

/// Specification of [`fold`].
pub fn fold_naive(n: &Neighborhood, rows: &[f32], pixels: Range<usize>, images: &mut [f32]) {
    for (at, value) in rows.iter().enumerate() {
        if let Some(to) = index_in_images(n, pixels.start + at / n.row_len(), at % n.row_len()) {
            images[to] += *value;
        }
    }
}

/// The index in the images of value `inside` of a pixel's row, or `None` outside of the pixel's image.
fn index_in_images(n: &Neighborhood, pixel: usize, inside: usize) -> Option<usize> {
    let (i, j, c) = (inside / (n.side * n.channels), inside / n.channels % n.side, inside % n.channels);
    let (image, y, x) = (pixel / n.pixels(), pixel % n.pixels() / n.width, pixel % n.width);
    let row = (y + i).checked_sub(n.side / 2).filter(|row| *row < n.height)?;
    let column = (x + j).checked_sub(n.side / 2).filter(|column| *column < n.width)?;
    Some(((image * n.height + row) * n.width + column) * n.channels + c)
}

/// A convolution's weight in the order of the rows.
///
/// # Shapes
/// `[O, C, k, k]`, as in published checkpoints → `[O, k, k, C]`.
pub fn channels_last_weight(n: &Neighborhood, weight: &[f32]) -> Vec<f32> {
    let mut ordered = vec![0.0; weight.len()];
    for (kernel, ordered) in weight.chunks_exact(n.row_len()).zip(ordered.chunks_exact_mut(n.row_len())) {
        for (at, value) in ordered.iter_mut().enumerate() {
            *value = kernel[published_index(n, at)];
        }
    }
    ordered
}

/// Specification of [`channels_last_weight`].
pub fn channels_last_weight_naive(n: &Neighborhood, weight: &[f32]) -> Vec<f32> {
    let mut ordered = vec![0.0; weight.len()];
    each_weight(n, weight.len(), |published, channels_last| ordered[channels_last] = weight[published]);
    ordered
}

/// Adds a weight's gradient in the order of the rows to one in the order of published checkpoints.
///
/// # Shapes
/// `d_ordered` `[O, k, k, C]`, `d_weight` `[O, C, k, k]`.
pub fn add_channels_last_gradient(n: &Neighborhood, d_ordered: &[f32], d_weight: &mut [f32]) {
    for (d_ordered, d_kernel) in d_ordered.chunks_exact(n.row_len()).zip(d_weight.chunks_exact_mut(n.row_len())) {
        for (at, value) in d_ordered.iter().enumerate() {
            d_kernel[published_index(n, at)] += *value;
        }
    }
}

/// Specification of [`add_channels_last_gradient`].
pub fn add_channels_last_gradient_naive(n: &Neighborhood, d_ordered: &[f32], d_weight: &mut [f32]) {
    each_weight(n, d_weight.len(), |published, channels_last| d_weight[published] += d_ordered[channels_last]);
}

/// Calls `visit(index in [O, C, k, k], index in [O, k, k, C])` for each of `len` values of a weight.
fn each_weight(n: &Neighborhood, len: usize, mut visit: impl FnMut(usize, usize)) {
    for o in 0..len / n.row_len() {
        for c in 0..n.channels {
            for i in 0..n.side {
                for j in 0..n.side {
                    visit(
                        ((o * n.channels + c) * n.side + i) * n.side + j,
                        ((o * n.side + i) * n.side + j) * n.channels + c,
                    );
                }
            }
        }
    }
}

/// The index in `[C, k, k]` of value `at` of `[k, k, C]`.
fn published_index(n: &Neighborhood, at: usize) -> usize {
    at % n.channels * n.side * n.side + at / n.channels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Bf16;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn unfolding_and_folding_equal_naive_also_where_the_square_is_larger_than_the_image() {
        for (height, width, channels, side) in [(4, 6, 2, 3), (5, 5, 3, 7), (2, 9, 1, 7), (3, 4, 5, 1)] {
            let n = Neighborhood { height, width, channels, side };
            let images = numbers(3 * n.pixels() * channels, 1);
            for pixels in [0..3 * n.pixels(), 5..n.pixels() + 2] {
                let (mut fast, mut naive) =
                    (vec![9.0; pixels.len() * n.row_len()], vec![0.0; pixels.len() * n.row_len()]);
                unfold(&n, &images, pixels.clone(), &mut fast);
                unfold_naive(&n, &images, pixels.clone(), &mut naive);
                assert_eq!(fast, naive);
                let (mut fast, mut back) = (images.clone(), images.clone());
                fold(&n, &naive, pixels.clone(), &mut fast);
                fold_naive(&n, &naive, pixels.clone(), &mut back);
                assert_close(&fast, &back, 1e-6);
                let stored = || vec![Bf16::ONE; pixels.len() * padded::<Bf16>(n.row_len())];
                let (mut fast, mut naive) = (stored(), stored());
                let images: Vec<_> = images.iter().map(|value| Bf16::from_f32(*value)).collect();
                unfold(&n, &images, pixels.clone(), &mut fast);
                unfold_naive(&n, &images, pixels, &mut naive);
                assert_eq!(fast, naive);
            }
        }
    }

    #[test]
    fn a_weight_is_reordered_and_its_gradient_put_back() {
        let n = Neighborhood { height: 1, width: 1, channels: 2, side: 3 };
        let weight = numbers(4 * n.row_len(), 1);
        let ordered = channels_last_weight(&n, &weight);
        // output 1, row 2, column 0, channel 1
        assert_eq!(ordered[18 + (2 * 3) * 2 + 1], weight[18 + 9 + 2 * 3]);
        assert_eq!(ordered, channels_last_weight_naive(&n, &weight));
        let mut back = vec![0.0; weight.len()];
        add_channels_last_gradient(&n, &ordered, &mut back);
        assert_eq!(back, weight);
        let mut twice = back.clone();
        add_channels_last_gradient(&n, &ordered, &mut back);
        add_channels_last_gradient_naive(&n, &ordered, &mut twice);
        assert_eq!(back, twice);
    }
}
