//! Softmax and its backward pass, row by row.

use super::{exp, parts};
use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_max_ps, _mm512_maskz_mov_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

/// See [`crate::softmax::softmax`].
#[target_feature(enable = "avx512f")]
pub(crate) fn softmax(x: &mut [f32], columns: usize) {
    for row in x.chunks_exact_mut(columns) {
        // SAFETY: all parts are of this row.
        unsafe {
            let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
            for part in parts(columns) {
                largest = _mm512_mask_max_ps(largest, part.mask, largest, part.load(row));
            }
            let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
            let mut total = _mm512_setzero_ps();
            for part in parts(columns) {
                let power = exp(_mm512_sub_ps(part.load(row), largest));
                part.store(row, power);
                total = _mm512_add_ps(total, _mm512_maskz_mov_ps(part.mask, power));
            }
            let inverse = _mm512_set1_ps(1.0 / _mm512_reduce_add_ps(total));
            for part in parts(columns) {
                part.store(row, _mm512_mul_ps(part.load(row), inverse));
            }
        }
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
