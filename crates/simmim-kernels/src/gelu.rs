//! The exact (erf) GELU and its derivative.
//!
//! `gelu(x) = x·Φ(x)` and `gelu'(x) = Φ(x) + x·φ(x)` contain the same exponential. So the forward kernel writes both
//! the value and the slope, and the backward pass only has to multiply by the slope (arXiv:1606.08415).

use crate::math::{erf_and_gauss, mul_add};
use multiversion::{multiversion, target::target_cfg_f};

/// `1/√(2π)`
pub(crate) const INV_SQRT_2PI: f32 = 0.398_942_3;

/// `gelu(x)` and `gelu'(x)`.
#[inline(always)]
pub(crate) fn value_and_slope<const FUSED: bool>(x: f32) -> (f32, f32) {
    let (erf, gauss) = erf_and_gauss::<FUSED>(x * std::f32::consts::FRAC_1_SQRT_2);
    let cdf = mul_add::<FUSED>(0.5, erf, 0.5);
    (x * cdf, mul_add::<FUSED>(x * INV_SQRT_2PI, gauss, cdf))
}

/// Writes `gelu(x)` to `values` and `gelu'(x)` to `slopes`.
pub fn gelu(x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
    assert!(x.len() == values.len() && x.len() == slopes.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = crate::instructions::Avx512::detect() {
        return avx512.gelu(x, values, slopes);
    }
    gelu_portable(x, values, slopes);
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn gelu_portable(x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for ((value, slope), x) in values.iter_mut().zip(slopes).zip(x) {
        (*value, *slope) = value_and_slope::<FUSED>(*x);
    }
}

/// Specification of [`gelu`]: the integral of the normal density by Simpson's rule in f64.
pub fn gelu_naive(x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    for ((value, slope), x) in values.iter_mut().zip(slopes).zip(x) {
        let x = *x as f64;
        let steps = 2000;
        let h = x / steps as f64;
        let between: f64 = (1..steps).map(|i| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        let cdf = 0.5 + h / 3.0 * (density(0.0) + between + density(x));
        *value = (x * cdf) as f32;
        *slope = (cdf + x * density(x)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_and_its_slope_equal_naive() {
        let x: Vec<f32> = (-305..300).map(|i| i as f32 * 0.02).collect();
        let [mut naive, mut naive_slopes] = [(); 2].map(|_| vec![0.0; x.len()]);
        gelu_naive(&x, &mut naive, &mut naive_slopes);
        for kernel in [gelu, gelu_portable] {
            let [mut fast, mut slopes] = [(); 2].map(|_| vec![9.0; x.len()]);
            kernel(&x, &mut fast, &mut slopes);
            for i in 0..x.len() {
                assert!((fast[i] - naive[i]).abs() < 1e-6, "gelu({}): {} {}", x[i], fast[i], naive[i]);
                assert!((slopes[i] - naive_slopes[i]).abs() < 1e-6, "slope at {}", x[i]);
            }
        }
    }
}
