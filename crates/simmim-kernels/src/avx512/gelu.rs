//! GELU and its slope.

use super::{exp, parts};
use crate::gelu::INV_SQRT_2PI;
use crate::math::{ERF_P, ERF_POLYNOMIAL};
use std::arch::x86_64::{
    _mm512_abs_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps,
    _mm512_mul_ps, _mm512_or_si512, _mm512_rcp14_ps, _mm512_set1_epi32, _mm512_set1_ps,
};

/// `gelu(x)` and `gelu'(x)` of a run of values, by the formula of [`crate::gelu`] with the reciprocal by one step of
/// Newton from an estimate.
///
/// # Safety
/// `values` and `slopes` are as long as `x`.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn gelu(x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
    let constant = |value: f32| _mm512_set1_ps(value);
    for part in parts(x.len()) {
        // SAFETY: all three are as long as the row that the parts are made for.
        unsafe {
            let x = part.load(x);
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
            part.store(values, _mm512_mul_ps(x, cdf));
            part.store(slopes, _mm512_fmadd_ps(_mm512_mul_ps(x, constant(INV_SQRT_2PI)), gauss, cdf));
        }
    }
}
