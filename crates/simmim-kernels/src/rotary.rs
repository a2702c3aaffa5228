//! Rotary positions (arXiv:2104.09864): pairs of values of a query or key are turned by angles that depend on the place of
//! its token.
//!
//! Value `i` of a head is paired with value `i + E/2`, not with its neighbor: both conventions are in use, and weights that
//! were trained with one are spoiled by the other.

use crate::dtype::Dtype;
use multiversion::multiversion;

/// Cosines and sines of the angles of each token, `[N, E/2]` both.
#[derive(Clone, Copy, Debug)]
pub struct Angles<'a> {
    /// Cosines.
    pub cosines: &'a [f32],
    /// Sines.
    pub sines: &'a [f32],
}

/// In which direction pairs are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By the angles.
    Forth,
    /// By the negative angles: the inverse, and the gradient.
    Back,
}

/// Turns the pairs of each row by the angles of its slot.
///
/// # Shapes
/// `rows` `[M, E]`, `stride` values apart; `slots` `[M]`, each below `N`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn rotate<T: Dtype>(rows: &mut [T], width: usize, stride: usize, slots: &[u32], angles: Angles, turn: Turn) {
    let (half, sign) = (width / 2, turn.sign());
    for (row, slot) in rows.chunks_exact_mut(stride).zip(slots) {
        let place = *slot as usize * half;
        let (cosines, sines) = (&angles.cosines[place..][..half], &angles.sines[place..][..half]);
        let (first, second) = row[..width].split_at_mut(half);
        for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
            let (x, y, sine) = (a.widened(), b.widened(), sign * *sine);
            *a = T::narrowed(x * *cosine - y * sine);
            *b = T::narrowed(y * *cosine + x * sine);
        }
    }
}

/// Specification of [`rotate`]: a product of complex numbers, in f64.
pub fn rotate_naive<T: Dtype>(rows: &mut [T], width: usize, stride: usize, slots: &[u32], angles: Angles, turn: Turn) {
    let half = width / 2;
    for i in 0..slots.len() {
        for e in 0..half {
            let at = slots[i] as usize * half + e;
            let (cosine, sine) = (angles.cosines[at] as f64, angles.sines[at] as f64 * turn.sign() as f64);
            let (real, imaginary) =
                (rows[i * stride + e].widened() as f64, rows[i * stride + half + e].widened() as f64);
            rows[i * stride + e] = T::narrowed((real * cosine - imaginary * sine) as f32);
            rows[i * stride + half + e] = T::narrowed((imaginary * cosine + real * sine) as f32);
        }
    }
}

impl Turn {
    #[inline(always)]
    fn sign(self) -> f32 {
        match self {
            Turn::Forth => 1.0,
            Turn::Back => -1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{Bf16, padded};
    use crate::testing::{assert_close, numbers};

    fn check<T: Dtype>(tolerance: f32) {
        let slots = [3, 0, 2];
        for width in [2, 6, 32, 70] {
            let stride = padded::<T>(width) + 2; // values between rows must stay
            let turns = numbers(4 * width / 2, 1);
            let (cosines, sines): (Vec<f32>, Vec<f32>) =
                turns.iter().map(|t| ((3.0 * t).cos(), (3.0 * t).sin())).unzip();
            let angles = Angles { cosines: &cosines, sines: &sines };
            let rows: Vec<T> = numbers(slots.len() * stride, 2).into_iter().map(T::narrowed).collect();
            let values = |rows: &[T]| rows.iter().map(|v| v.widened()).collect::<Vec<_>>();
            let (mut fast, mut naive) = (rows.clone(), rows.clone());
            for turn in [Turn::Forth, Turn::Back] {
                rotate(&mut fast, width, stride, &slots, angles, turn);
                rotate_naive(&mut naive, width, stride, &slots, angles, turn);
                assert_close(&values(&fast), &values(&naive), tolerance);
            }
            assert_close(&values(&fast), &values(&rows), 3.0 * tolerance); // forth and back
        }
    }

    #[test]
    fn turning_equals_naive_and_is_undone_by_turning_back() {
        check::<f32>(1e-6);
        check::<Bf16>(8e-3); // 8 bits of mantissa, of values up to 2
    }

    #[test]
    fn a_value_is_paired_with_the_one_half_a_head_away() {
        // a quarter turn of the first pair alone
        let (cosines, sines) = ([0.0, 1.0], [1.0, 0.0]);
        let mut row = [1.0f32, 2.0, 3.0, 4.0];
        rotate(&mut row, 4, 4, &[0], Angles { cosines: &cosines, sines: &sines }, Turn::Forth);
        assert_eq!(row, [-3.0, 2.0, 1.0, 4.0]);
    }
}
