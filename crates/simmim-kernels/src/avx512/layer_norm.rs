//! Layer normalisation and its backward pass, row by row.

use super::parts;
use crate::layer_norm::RowStatistics;
use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_maskz_sub_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

/// See [`crate::layer_norm::layer_norm`], which checks the lengths.
///
/// # Safety
/// `weight` and `bias` have a row's length, `x` and `y` as many rows as there are statistics.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn layer_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
    statistics: &mut [RowStatistics],
) {
    let width = weight.len();
    let ones_over_width = 1.0 / width as f32;
    for ((x, y), statistics) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(statistics) {
        // SAFETY: all rows have the length that the parts are made for.
        unsafe {
            let mut sum = _mm512_setzero_ps();
            for part in parts(width) {
                sum = _mm512_add_ps(sum, part.load(x));
            }
            let mean = _mm512_reduce_add_ps(sum) * ones_over_width;
            let means = _mm512_set1_ps(mean);
            let mut squares = _mm512_setzero_ps();
            for part in parts(width) {
                let centred = _mm512_maskz_sub_ps(part.mask, part.load(x), means);
                squares = _mm512_fmadd_ps(centred, centred, squares);
            }
            let rstd = 1.0 / (_mm512_reduce_add_ps(squares) * ones_over_width + eps).sqrt();
            let rstds = _mm512_set1_ps(rstd);
            for part in parts(width) {
                let normalised = _mm512_mul_ps(_mm512_sub_ps(part.load(x), means), rstds);
                part.store(y, _mm512_fmadd_ps(normalised, part.load(weight), part.load(bias)));
            }
            *statistics = RowStatistics { mean, rstd };
        }
    }
}

/// See [`crate::layer_norm::layer_norm_backward`], which checks the lengths.
///
/// # Safety
/// `weight`, `d_weight` and `d_bias` have a row's length, `x`, `d_y` and `d_x` as many rows as there are statistics.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    statistics: &[RowStatistics],
    d_y: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let width = weight.len();
    let ones_over_width = 1.0 / width as f32;
    let rows = x.chunks_exact(width).zip(d_y.chunks_exact(width)).zip(d_x.chunks_exact_mut(width));
    for (((x, d_y), d_x), s) in rows.zip(statistics) {
        let (mean, rstd) = (_mm512_set1_ps(s.mean), _mm512_set1_ps(s.rstd));
        // SAFETY: all rows have the length that the parts are made for.
        unsafe {
            // g = d_y·weight
            let (mut sum_g, mut sum_gx) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            for part in parts(width) {
                let d_y = part.load(d_y);
                let normalised = _mm512_mul_ps(_mm512_sub_ps(part.load(x), mean), rstd);
                let g = _mm512_mul_ps(d_y, part.load(weight));
                sum_g = _mm512_add_ps(sum_g, g);
                sum_gx = _mm512_fmadd_ps(g, normalised, sum_gx); // g is zero outside of the row
                part.store(d_weight, _mm512_fmadd_ps(d_y, normalised, part.load(d_weight)));
                part.store(d_bias, _mm512_add_ps(d_y, part.load(d_bias)));
            }
            let mean_g = _mm512_set1_ps(_mm512_reduce_add_ps(sum_g) * ones_over_width);
            let mean_gx = _mm512_set1_ps(_mm512_reduce_add_ps(sum_gx) * ones_over_width);
            for part in parts(width) {
                let normalised = _mm512_mul_ps(_mm512_sub_ps(part.load(x), mean), rstd);
                let g = _mm512_mul_ps(part.load(d_y), part.load(weight));
                let centred = _mm512_fnmadd_ps(normalised, mean_gx, _mm512_sub_ps(g, mean_g));
                part.store(d_x, _mm512_fmadd_ps(rstd, centred, part.load(d_x)));
            }
        }
    }
}
