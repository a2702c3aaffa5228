//! Softmax and its backward pass, row by row.

use super::vectors;
use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_max_ps, _mm512_maskz_mov_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

/// Rows whose exponentials are computed before the first of them is scaled. A load right after a masked store of the
/// same values would have to wait for it. After this many rows, the values have reached the cache.
pub(super) const ROWS: usize = 32;

/// See [`crate::softmax::softmax`].
#[target_feature(enable = "avx512f")]
pub(super) fn softmax(x: &mut [f32], stride: usize, columns: usize) {
    for rows in x.chunks_mut(ROWS * stride) {
        let mut factors = [0.0; ROWS];
        for (row, factor) in rows.chunks_exact_mut(stride).zip(&mut factors) {
            *factor = 1.0 / exp_in_place(&mut row[..columns]);
        }
        for (row, factor) in rows.chunks_exact_mut(stride).zip(factors) {
            let factor = _mm512_set1_ps(factor);
            for vector in vectors(columns) {
                // SAFETY: the row has `columns` values.
                unsafe { vector.store(row, _mm512_mul_ps(vector.load(row), factor)) };
            }
        }
    }
}

/// Replaces each value by `e^(value − largest)` and returns their sum.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn exp_in_place(row: &mut [f32]) -> f32 {
    // SAFETY: the vectors are those of this row.
    unsafe {
        let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
        for vector in vectors(row.len()) {
            largest = _mm512_mask_max_ps(largest, vector.mask, largest, vector.load(row));
        }
        let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        let mut total = _mm512_setzero_ps();
        for vector in vectors(row.len()) {
            let power = super::softmax_exp(_mm512_sub_ps(vector.load(row), largest));
            vector.store(row, power);
            total = _mm512_add_ps(total, _mm512_maskz_mov_ps(vector.mask, power));
        }
        _mm512_reduce_add_ps(total)
    }
}

/// See [`crate::softmax::softmax_backward`].
#[target_feature(enable = "avx512f")]
pub(super) fn softmax_backward(p: &[f32], d_p: &mut [f32], columns: usize) {
    for (p, d) in p.chunks_exact(columns).zip(d_p.chunks_exact_mut(columns)) {
        // SAFETY: both rows have `columns` values.
        unsafe {
            let mut dot = _mm512_setzero_ps();
            for vector in vectors(columns) {
                dot = _mm512_fmadd_ps(vector.load(p), vector.load(d), dot);
            }
            let dot = _mm512_set1_ps(_mm512_reduce_add_ps(dot));
            for vector in vectors(columns) {
                vector.store(d, _mm512_mul_ps(vector.load(p), _mm512_sub_ps(vector.load(d), dot)));
            }
        }
    }
}
