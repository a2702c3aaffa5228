//! Layer normalization and its backward pass, row by row.

use super::vectors;
use crate::layer_norm::RowStatistics;
use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_maskz_sub_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

/// See [`crate::layer_norm::layer_norm`].
#[target_feature(enable = "avx512f")]
pub(super) fn layer_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
    statistics: &mut [RowStatistics],
) {
    assert_eq!(weight.len(), bias.len());
    let width = weight.len();
    let ones_over_width = 1.0 / width as f32;
    for ((x, y), statistics) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(statistics) {
        // SAFETY: the rows are chunks of `width` values, the weight has `width` values and so has the bias, as
        // asserted.
        unsafe {
            let mut sum = _mm512_setzero_ps();
            for vector in vectors(width) {
                sum = _mm512_add_ps(sum, vector.load(x));
            }
            let mean = _mm512_reduce_add_ps(sum) * ones_over_width;
            let means = _mm512_set1_ps(mean);
            let mut squares = _mm512_setzero_ps();
            for vector in vectors(width) {
                let centered = _mm512_maskz_sub_ps(vector.mask, vector.load(x), means);
                squares = _mm512_fmadd_ps(centered, centered, squares);
            }
            let rstd = 1.0 / (_mm512_reduce_add_ps(squares) * ones_over_width + eps).sqrt();
            let rstds = _mm512_set1_ps(rstd);
            for vector in vectors(width) {
                let normalized = _mm512_mul_ps(_mm512_sub_ps(vector.load(x), means), rstds);
                vector.store(y, _mm512_fmadd_ps(normalized, vector.load(weight), vector.load(bias)));
            }
            *statistics = RowStatistics { mean, rstd };
        }
    }
}

/// See [`crate::layer_norm::layer_norm_backward`].
#[target_feature(enable = "avx512f")]
pub(super) fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    statistics: &[RowStatistics],
    d_y: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    assert!(weight.len() == d_weight.len() && weight.len() == d_bias.len());
    let width = weight.len();
    let ones_over_width = 1.0 / width as f32;
    let rows = x.chunks_exact(width).zip(d_y.chunks_exact(width)).zip(d_x.chunks_exact_mut(width));
    for (((x, d_y), d_x), s) in rows.zip(statistics) {
        let (mean, rstd) = (_mm512_set1_ps(s.mean), _mm512_set1_ps(s.rstd));
        // SAFETY: the rows are chunks of `width` values, and the weight and the gradients of the parameters have
        // `width` values, as asserted.
        unsafe {
            // g = d_y·weight
            let (mut sum_g, mut sum_gx) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            for vector in vectors(width) {
                let d_y = vector.load(d_y);
                let normalized = _mm512_mul_ps(_mm512_sub_ps(vector.load(x), mean), rstd);
                let g = _mm512_mul_ps(d_y, vector.load(weight));
                sum_g = _mm512_add_ps(sum_g, g);
                sum_gx = _mm512_fmadd_ps(g, normalized, sum_gx); // g is zero outside of the row
                vector.store(d_weight, _mm512_fmadd_ps(d_y, normalized, vector.load(d_weight)));
                vector.store(d_bias, _mm512_add_ps(d_y, vector.load(d_bias)));
            }
            let mean_g = _mm512_set1_ps(_mm512_reduce_add_ps(sum_g) * ones_over_width);
            let mean_gx = _mm512_set1_ps(_mm512_reduce_add_ps(sum_gx) * ones_over_width);
            for vector in vectors(width) {
                let normalized = _mm512_mul_ps(_mm512_sub_ps(vector.load(x), mean), rstd);
                let g = _mm512_mul_ps(vector.load(d_y), vector.load(weight));
                let centered = _mm512_fnmadd_ps(normalized, mean_gx, _mm512_sub_ps(g, mean_g));
                vector.store(d_x, _mm512_fmadd_ps(rstd, centered, vector.load(d_x)));
            }
        }
    }
}
