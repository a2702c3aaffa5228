//! GELU and its slope.

use super::{exp, vectors};
use crate::gelu::INV_SQRT_2PI;
use crate::math::{ERF_P, ERF_POLYNOMIAL};
use std::arch::x86_64::{
    __m512, _mm512_abs_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
    _mm512_fnmadd_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_rcp14_ps, _mm512_set1_epi32, _mm512_set1_ps,
};

/// See [`crate::gelu::gelu`].
#[target_feature(enable = "avx512f")]
pub(super) fn gelu(x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
    assert!(x.len() == values.len() && x.len() == slopes.len());
    for vector in vectors(x.len()) {
        // SAFETY: all three slices have the length that the vectors cover, as asserted.
        unsafe {
            let (value, slope) = value_and_slope(vector.load(x));
            vector.store(values, value);
            vector.store(slopes, slope);
        }
    }
}

/// `gelu(x)` and `gelu'(x)` by the formula of [`crate::gelu`], except that the reciprocal in it is an estimate that one
/// step of Newton's method improves.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn value_and_slope(x: __m512) -> (__m512, __m512) {
    let constant = |value: f32| _mm512_set1_ps(value);
    let z = _mm512_mul_ps(x, constant(std::f32::consts::FRAC_1_SQRT_2));
    let a = _mm512_abs_ps(z);
    let divisor = _mm512_fmadd_ps(a, constant(ERF_P), constant(1.0));
    let estimate = _mm512_rcp14_ps(divisor);
    let t = _mm512_mul_ps(estimate, _mm512_fnmadd_ps(divisor, estimate, constant(2.0)));
    let gauss = exp(_mm512_fnmadd_ps(a, a, constant(0.0)));
    let mut p = constant(ERF_POLYNOMIAL[0]);
    for coefficient in &ERF_POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, t, constant(*coefficient));
    }
    let erf = _mm512_fnmadd_ps(_mm512_mul_ps(p, t), gauss, constant(1.0));
    let sign = _mm512_and_si512(_mm512_castps_si512(z), _mm512_set1_epi32(i32::MIN));
    let erf = _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(erf), sign));
    let cdf = _mm512_fmadd_ps(constant(0.5), erf, constant(0.5));
    (_mm512_mul_ps(x, cdf), _mm512_fmadd_ps(_mm512_mul_ps(x, constant(INV_SQRT_2PI)), gauss, cdf))
}
