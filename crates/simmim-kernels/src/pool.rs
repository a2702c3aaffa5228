//! Halving an image by the largest of four pixels, and doubling it by repeating each.
//!
//! Images are channels last, so both work on runs of `C` values.

use multiversion::multiversion;

/// Sizes of the larger one of the two images; both sides even.
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
    /// Values of the larger image.
    pub fn large_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Values of the smaller image.
    pub fn small_len(&self) -> usize {
        self.large_len() / 4
    }

    /// Which small value is behind the large value at `at`.
    fn small(&self, at: usize) -> usize {
        let (y, x, c) = (at / (self.width * self.channels), at / self.channels % self.width, at % self.channels);
        (y / 2 * (self.width / 2) + x / 2) * self.channels + c
    }

    /// Where the four pixels behind small pixel `pixel` start, row by row.
    fn four(&self, pixel: usize) -> [usize; 4] {
        let (y, x) = (pixel / (self.width / 2), pixel % (self.width / 2));
        let start = (2 * y * self.width + 2 * x) * self.channels;
        let below = start + self.width * self.channels;
        [start, start + self.channels, below, below + self.channels]
    }
}

/// The largest of each four pixels, channel by channel.
///
/// # Shapes
/// `large` `[H, W, C]` → `small` `[H/2, W/2, C]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn max_pool(h: &Halving, large: &[f32], small: &mut [f32]) {
    for (pixel, out) in small.chunks_exact_mut(h.channels).enumerate() {
        let [a, b, c, d] = h.four(pixel).map(|start| &large[start..start + h.channels]);
        for i in 0..out.len() {
            out[i] = a[i].max(b[i]).max(c[i].max(d[i]));
        }
    }
}

/// Specification of [`max_pool`].
pub fn max_pool_naive(h: &Halving, large: &[f32], small: &mut [f32]) {
    for (at, out) in small.iter_mut().enumerate() {
        let four = h.four(at / h.channels).map(|start| large[start + at % h.channels]);
        *out = four.into_iter().fold(f32::NEG_INFINITY, f32::max);
    }
}

/// Hands each gradient to the first of its four pixels that is the largest, and writes 0 to the others.
///
/// # Shapes
/// `large`, `d_large` `[H, W, C]`; `d_small` `[H/2, W/2, C]`.
pub fn max_pool_backward(h: &Halving, large: &[f32], d_small: &[f32], d_large: &mut [f32]) {
    d_large.fill(0.0);
    for (pixel, d) in d_small.chunks_exact(h.channels).enumerate() {
        let starts = h.four(pixel);
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
    (0..large.len()).for_each(|at| largest[h.small(at)] = largest[h.small(at)].max(large[at]));
    let mut is_given = vec![false; d_small.len()];
    for at in 0..large.len() {
        let small = h.small(at);
        let is_first = large[at] == largest[small] && !is_given[small];
        is_given[small] |= is_first;
        d_large[at] = if is_first { d_small[small] } else { 0.0 };
    }
}

/// Repeats each pixel four times.
///
/// # Shapes
/// `small` `[H/2, W/2, C]` → `large` `[H, W, C]`.
pub fn repeat(h: &Halving, small: &[f32], large: &mut [f32]) {
    for (pixel, value) in small.chunks_exact(h.channels).enumerate() {
        for start in h.four(pixel) {
            large[start..start + h.channels].copy_from_slice(value);
        }
    }
}

/// Specification of [`repeat`].
pub fn repeat_naive(h: &Halving, small: &[f32], large: &mut [f32]) {
    (0..large.len()).for_each(|at| large[at] = small[h.small(at)]);
}

/// Sums the gradients of the four pixels that were one.
///
/// # Shapes
/// `d_large` `[H, W, C]` → `d_small` `[H/2, W/2, C]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn repeat_backward(h: &Halving, d_large: &[f32], d_small: &mut [f32]) {
    for (pixel, out) in d_small.chunks_exact_mut(h.channels).enumerate() {
        let [a, b, c, d] = h.four(pixel).map(|start| &d_large[start..start + h.channels]);
        for i in 0..out.len() {
            out[i] = (a[i] + b[i]) + (c[i] + d[i]);
        }
    }
}

/// Specification of [`repeat_backward`].
pub fn repeat_backward_naive(h: &Halving, d_large: &[f32], d_small: &mut [f32]) {
    d_small.fill(0.0);
    (0..d_large.len()).for_each(|at| d_small[h.small(at)] += d_large[at]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn halving_and_doubling_and_their_gradients_equal_naive() {
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

            repeat(&h, &d_small, &mut d_fast);
            repeat_naive(&h, &d_small, &mut d_naive);
            assert_eq!(d_fast, d_naive);
            repeat_backward(&h, &large, &mut fast);
            repeat_backward_naive(&h, &large, &mut naive);
            assert_close(&fast, &naive, 1e-6); // the same four in another order
        }
    }

    #[test]
    fn of_equal_pixels_the_first_gets_the_gradient() {
        let mut d = [9.0; 4];
        max_pool_backward(&Halving { height: 2, width: 2, channels: 1 }, &[1.0; 4], &[5.0], &mut d);
        assert_eq!(d, [5.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn repeating_writes_four_and_its_gradient_sums_four() {
        // two pixels of two channels
        let h = Halving { height: 2, width: 4, channels: 2 };
        let mut large = [0.0; 16];
        repeat(&h, &[1.0, 2.0, 3.0, 4.0], &mut large);
        let row = [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0];
        assert_eq!(large, [row, row].concat()[..]);
        let mut small = [0.0; 4];
        repeat_backward(&h, &large, &mut small);
        assert_eq!(small, [4.0, 8.0, 12.0, 16.0]);
    }
}
