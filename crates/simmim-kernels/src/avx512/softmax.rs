//! Softmax and its backward pass, row by row.

use super::{exp, parts};
use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_max_ps, _mm512_maskz_mov_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

/// Rows between a store under a mask and the load behind it, which would have to wait.
const ROWS: usize = 32;

/// See [`crate::softmax::softmax`].
#[target_feature(enable = "avx512f")]
pub(crate) fn softmax(x: &mut [f32], columns: usize) {
    for rows in x.chunks_mut(ROWS * columns) {
        let mut factors = [0.0; ROWS];
        for (row, factor) in rows.chunks_exact_mut(columns).zip(&mut factors) {
            *factor = 1.0 / powers(row);
        }
        for (row, factor) in rows.chunks_exact_mut(columns).zip(factors) {
            let factor = _mm512_set1_ps(factor);
            for part in parts(columns) {
                // SAFETY: all parts are of this row.
                unsafe { part.store(row, _mm512_mul_ps(part.load(row), factor)) };
            }
        }
    }
}

/// Replaces a row by the powers of e, the largest of which is one, and returns their sum.
#[target_feature(enable = "avx512f")]
#[inline]
fn powers(row: &mut [f32]) -> f32 {
    // SAFETY: all parts are of this row.
    unsafe {
        let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
        for part in parts(row.len()) {
            largest = _mm512_mask_max_ps(largest, part.mask, largest, part.load(row));
        }
        let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        let mut total = _mm512_setzero_ps();
        for part in parts(row.len()) {
            let power = exp(_mm512_sub_ps(part.load(row), largest));
            part.store(row, power);
            total = _mm512_add_ps(total, _mm512_maskz_mov_ps(part.mask, power));
        }
        _mm512_reduce_add_ps(total)
    }
}

/// See [`crate::softmax::softmax_backward`].
#[target_feature(enable = "avx512f")]
pub(crate) fn softmax_backward(p: &[f32], d_p: &mut [f32], columns: usize) {
    for (p, d) in p.chunks_exact(columns).zip(d_p.chunks_exact_mut(columns)) {
        // SAFETY: all parts are of these two rows of equal length.
        unsafe {
            let mut inner = _mm512_setzero_ps();
            for part in parts(columns) {
                inner = _mm512_fmadd_ps(part.load(p), part.load(d), inner);
            }
            let inner = _mm512_set1_ps(_mm512_reduce_add_ps(inner));
            for part in parts(columns) {
                part.store(d, _mm512_mul_ps(part.load(p), _mm512_sub_ps(part.load(d), inner)));
            }
        }
    }
}
