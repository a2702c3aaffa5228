//! GELU and its slope: to the last bits of f32, and as near as values that are rounded to bf16 need.

use super::{exp, vectors};
use crate::gelu::INV_SQRT_2PI;
use crate::math::{ERF_P, ERF_POLYNOMIAL};
use std::arch::x86_64::{
    __m512, _mm512_abs_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
    _mm512_fnmadd_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_rcp14_ps, _mm512_set1_epi32,
    _mm512_set1_ps,
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

/// Values beyond this magnitude count as this in [`near_value_and_slope`]: there the normal distribution's function is
/// within 4e-6 of 0 or 1.
const LIMIT: f32 = 4.5;

/// `(Φ(x) − 1/2) / x` for `|x|` up to [`LIMIT`], in `u = 2x²/LIMIT² − 1`, from the highest power on. Fitted by
/// reweighted least squares so that the greatest error of `Φ` is least, with `Φ(±LIMIT)` taken as 0 and 1.
const DISTRIBUTION: [f32; 10] = [
    -1.894_028_8e-3,
    4.965_509_6e-3,
    -6.143_627e-3,
    9.648_117e-3,
    -1.843_550_5e-2,
    2.886_049_4e-2,
    -4.024_858e-2,
    5.463_7e-2,
    -7.718_515e-2,
    1.569_060_6e-1,
];

/// `φ(x)`, the density, likewise, with `φ(±LIMIT)` taken as 0.
const DENSITY: [f32; 10] = [
    -2.990_414_4e-2,
    5.377_906_5e-2,
    -2.480_698_5e-2,
    3.322_755_4e-2,
    -7.918_373e-2,
    7.877_782e-2,
    -5.266_823_6e-2,
    3.111_631_6e-2,
    -1.290_005_3e-2,
    2.550_491_8e-3,
];

/// `gelu(x)` within `4e-6·max(|x|, 8)` and `gelu'(x)` within 1.3e-4, which is a fifteenth of what rounding to bf16 may
/// change at 1. It takes half the time of [`value_and_slope`], and a quarter if the slope is not used.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn near_value_and_slope(x: __m512) -> (__m512, __m512) {
    let constant = |value: f32| _mm512_set1_ps(value);
    // in this order of the arguments NaN stays NaN
    let limited = _mm512_max_ps(constant(-LIMIT), _mm512_min_ps(constant(LIMIT), x));
    let u = _mm512_fmadd_ps(_mm512_mul_ps(limited, constant(2.0 / (LIMIT * LIMIT))), limited, constant(-1.0));
    // both at once and in a plain loop: the compiler did not always inline a function that it called for each
    let (mut distribution, mut density) = (constant(DISTRIBUTION[0]), constant(DENSITY[0]));
    for i in 1..DISTRIBUTION.len() {
        distribution = _mm512_fmadd_ps(distribution, u, constant(DISTRIBUTION[i]));
        density = _mm512_fmadd_ps(density, u, constant(DENSITY[i]));
    }
    let cdf = _mm512_fmadd_ps(limited, distribution, constant(0.5));
    (_mm512_mul_ps(x, cdf), _mm512_fmadd_ps(limited, density, cdf))
}

#[cfg(test)]
mod tests {
    use super::super::LANES;
    use super::*;
    use crate::gelu::gelu_naive;
    use crate::instructions::Avx512;

    #[target_feature(enable = "avx512f")]
    fn near(x: &[f32; LANES]) -> ([f32; LANES], [f32; LANES]) {
        let (mut values, mut slopes) = ([0.0; LANES], [0.0; LANES]);
        for vector in vectors(LANES) {
            // SAFETY: the rows are one vector long.
            unsafe {
                let (value, slope) = near_value_and_slope(vector.load(x));
                vector.store(&mut values, value);
                vector.store(&mut slopes, slope);
            }
        }
        (values, slopes)
    }

    #[test]
    fn the_near_value_and_slope_have_the_errors_that_they_say() {
        if Avx512::detect().is_none() {
            return; // only this CPU's own code is tested, and it has none of this
        }
        let x: Vec<f32> = (-6000..6000).map(|i| i as f32 * 2e-3).collect();
        for x in x.as_chunks::<LANES>().0 {
            let [mut value, mut slope] = [[0.0; LANES]; 2];
            gelu_naive(x, &mut value, &mut slope);
            // SAFETY: the CPU has AVX-512.
            let (near_value, near_slope) = unsafe { near(x) };
            for i in 0..LANES {
                let error = (near_value[i] - value[i]).abs();
                assert!(error <= 4e-6 * x[i].abs().max(8.0), "gelu({}) is off by {error}", x[i]);
                let error = (near_slope[i] - slope[i]).abs();
                assert!(error <= 1.3e-4, "gelu'({}) is off by {error}", x[i]);
            }
        }
        // SAFETY: the CPU has AVX-512.
        let (values, slopes) = unsafe { near(&[f32::NAN; LANES]) };
        assert!(values.iter().chain(&slopes).all(|v| v.is_nan()));
    }
}
