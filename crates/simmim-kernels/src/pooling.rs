//! Max pooling, which halves the sides of an image, and nearest-neighbor upsampling, which doubles them.
//!
//! Images are channels last, so both work on runs of `C` values.

use multiversion::multiversion;

/// The sizes of the larger of the two images; its sides are even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halving {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl Halving {
    /// Length of the larger image, in values.
    pub fn large_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Length of the smaller image, in values.
    pub fn small_len(&self) -> usize {
        self.large_len() / 4
    }

    /// The index in the smaller image of the value that belongs to value `at` of the larger one.
    fn small_index(&self, at: usize) -> usize {
        let (y, x, c) = (at / (self.width * self.channels), at / self.channels % self.width, at % self.channels);
        (y / 2 * (self.width / 2) + x / 2) * self.channels + c
    }

    /// The indices in the larger image at which the four pixels of a smaller image's pixel start, row by row.
    fn four_starts(&self, pixel: usize) -> [usize; 4] {
        let (y, x) = (pixel / (self.width / 2), pixel % (self.width / 2));
        let start = (2 * y * self.width + 2 * x) * self.channels;
        let below = start + self.width * self.channels;
        [start, start + self.channels, below, below + self.channels]
    }
}

/// Writes the largest of each four pixels, channel by channel; NaN if one of them is NaN, as in PyTorch.
///
/// # Shapes
/// `large` `[H, W, C]` → `small` `[H/2, W/2, C]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn max_pool(h: &Halving, large: &[f32], small: &mut [f32]) {
    for (pixel, out) in small.chunks_exact_mut(h.channels).enumerate() {
        let [a, b, c, d] = h.four_starts(pixel).map(|start| &large[start..start + h.channels]);
        for i in 0..out.len() {
            out[i] = larger(larger(a[i], b[i]), larger(c[i], d[i]));
        }
    }
}

/// The larger of two values, or NaN if one of them is.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// Specification of [`max_pool`].
pub fn max_pool_naive(h: &Halving, large: &[f32], small: &mut [f32]) {
    for (at, out) in small.iter_mut().enumerate() {
        let four = h.four_starts(at / h.channels).map(|start| large[start + at % h.channels]);
        *out = match four.iter().any(|value| value.is_nan()) {
            true => f32::NAN,
            false => four.into_iter().fold(f32::NEG_INFINITY, f32::max),
        };
    }
}

/// The gradient of [`max_pool`]: goes to the largest of the four pixels, the first of them if several are, and is 0
/// elsewhere.
///
/// # Shapes
/// `large`, `d_large` `[H, W, C]`; `d_small` `[H/2, W/2, C]`.
pub fn max_pool_backward(h: &Halving, large: &[f32], d_small: &[f32], d_large: &mut [f32]) {
    d_large.fill(0.0);
    for (pixel, d) in d_small.chunks_exact(h.channels).enumerate() {
        let starts = h.four_starts(pixel);
        for (channel, d) in d.iter().enumerate() {
            let mut largest = starts[0] + channel;
            for start in &starts[1..] {
                if large[start + channel] > large[largest] {
                    largest = start + channel;
                }
            }
            d_large[largest] = *d;
        }
    }
}

/// Specification of [`max_pool_backward`].
pub fn max_pool_backward_naive(h: &Halving, large: &[f32], d_small: &[f32], d_large: &mut [f32]) {
    let mut largest = vec![f32::NEG_INFINITY; d_small.len()];
    (0..large.len()).for_each(|at| largest[h.small_index(at)] = largest[h.small_index(at)].max(large[at]));
    let mut is_given = vec![false; d_small.len()];
    for at in 0..large.len() {
        let small = h.small_index(at);
        let is_first = large[at] == largest[small] && !is_given[small];
        is_given[small] |= is_first;
        d_large[at] = if is_first { d_small[small] } else { 0.0 };
    }
}

/// Writes each pixel four times.
///
/// # Shapes
/// `small` `[H/2, W/2, C]` → `large` `[H, W, C]`.
pub fn upsample(h: &Halving, small: &[f32], large: &mut [f32]) {
    for (pixel, value) in small.chunks_exact(h.channels).enumerate() {
        for start in h.four_starts(pixel) {
            large[start..start + h.channels].copy_from_slice(value);
        }
    }
}

/// Specification of [`upsample`].
pub fn upsample_naive(h: &Halving, small: &[f32], large: &mut [f32]) {
    (0..large.len()).for_each(|at| large[at] = small[h.small_index(at)]);
}

/// The gradient of [`upsample`]: the sum over the four copies of a pixel.
///
/// # Shapes
/// `d_large` `[H, W, C]` → `d_small` `[H/2, W/2, C]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn upsample_backward(h: &Halving, d_large: &[f32], d_small: &mut [f32]) {
    for (pixel, out) in d_small.chunks_exact_mut(h.channels).enumerate() {
        let [a, b, c, d] = h.four_starts(pixel).map(|start| &d_large[start..start + h.channels]);
        for i in 0..out.len() {
            out[i] = (a[i] + b[i]) + (c[i] + d[i]);
        }
    }
}

/// Specification of [`upsample_backward`].
pub fn upsample_backward_naive(h: &Halving, d_large: &[f32], d_small: &mut [f32]) {
    d_small.fill(0.0);
    (0..d_large.len()).for_each(|at| d_small[h.small_index(at)] += d_large[at]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_that_is_not_a_number_goes_on() {
        let h = Halving { channels: 1, height: 2, width: 2 };
        for place in 0..4 {
            let (mut large, mut small) = ([1.0, 3.0, 2.0, -1.0], [0.0]);
            max_pool(&h, &large, &mut small);
            assert_eq!(small, [3.0]);
            large[place] = f32::NAN;
            for pool in [max_pool, max_pool_naive] {
                pool(&h, &large, &mut small);
                assert!(small[0].is_nan(), "at {place}");
            }
        }
    }
    use crate::testing::{assert_close, numbers};

    #[test]
    fn pooling_upsampling_and_their_gradients_equal_naive() {
        for (height, width, channels) in [(2, 2, 1), (4, 6, 3), (8, 2, 33)] {
            let h = Halving { height, width, channels };
            let large = numbers(h.large_len(), 1);
            let (mut fast, mut naive) = (vec![0.0; h.small_len()], vec![0.0; h.small_len()]);
            max_pool(&h, &large, &mut fast);
            max_pool_naive(&h, &large, &mut naive);
            assert_eq!(fast, naive);
            let d_small = numbers(h.small_len(), 2);
            let [mut d_fast, mut d_naive] = [8.0, 9.0].map(|v| vec![v; large.len()]);
            max_pool_backward(&h, &large, &d_small, &mut d_fast);
            max_pool_backward_naive(&h, &large, &d_small, &mut d_naive);
            assert_eq!(d_fast, d_naive);

            upsample(&h, &d_small, &mut d_fast);
            upsample_naive(&h, &d_small, &mut d_naive);
            assert_eq!(d_fast, d_naive);
            upsample_backward(&h, &large, &mut fast);
            upsample_backward_naive(&h, &large, &mut naive);
            assert_close(&fast, &naive, 1e-6); // the same four values, added in another order
        }
    }

    #[test]
    fn of_equal_pixels_the_first_gets_the_gradient() {
        let mut d = [9.0; 4];
        max_pool_backward(&Halving { height: 2, width: 2, channels: 1 }, &[1.0; 4], &[5.0], &mut d);
        assert_eq!(d, [5.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn upsampling_writes_a_pixel_four_times_and_its_gradient_is_their_sum() {
        // two pixels of two channels
        let h = Halving { height: 2, width: 4, channels: 2 };
        let mut large = [0.0; 16];
        upsample(&h, &[1.0, 2.0, 3.0, 4.0], &mut large);
        let row = [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0];
        assert_eq!(large, [row, row].concat()[..]);
        let mut small = [0.0; 4];
        upsample_backward(&h, &large, &mut small);
        assert_eq!(small, [4.0, 8.0, 12.0, 16.0]);
    }
}
