//! The exact (erf) GELU and its derivative.
//!
//! `gelu(x) = x·Φ(x)` and `gelu'(x) = Φ(x) + x·φ(x)` share the exponential, so the forward kernel
//! writes both and the backward pass is one multiplication (arXiv:1606.08415).

use crate::math::{erf_and_gauss, mul_add};
use multiversion::{multiversion, target::target_cfg_f};

const INV_SQRT_2PI: f32 = 0.398_942_3;

/// `gelu(x)` and `gelu'(x)`.
#[inline(always)]
pub(crate) fn value_and_slope<const FUSED: bool>(x: f32) -> (f32, f32) {
    let (erf, gauss) = erf_and_gauss::<FUSED>(x * std::f32::consts::FRAC_1_SQRT_2);
    let cdf = mul_add::<FUSED>(0.5, erf, 0.5);
    (x * cdf, mul_add::<FUSED>(x * INV_SQRT_2PI, gauss, cdf))
}

/// Replaces `x` by `gelu(x)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn gelu(x: &mut [f32]) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for v in x {
        *v = value_and_slope::<FUSED>(*v).0;
    }
}

/// Specification of [`gelu`].
pub fn gelu_naive(x: &mut [f32]) {
    gelu_with_slope_naive(x, &mut vec![0.0; x.len()]);
}

/// Replaces `x` by `gelu(x)` and writes `gelu'(x)` to `slope`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn gelu_with_slope(x: &mut [f32], slope: &mut [f32]) {
    assert_eq!(x.len(), slope.len());
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for (v, s) in x.iter_mut().zip(slope) {
        (*v, *s) = value_and_slope::<FUSED>(*v);
    }
}

/// Specification of [`gelu_with_slope`]: the integral of the normal density by Simpson's rule in f64.
pub fn gelu_with_slope_naive(x: &mut [f32], slope: &mut [f32]) {
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    for (v, s) in x.iter_mut().zip(slope) {
        let x = *v as f64;
        let steps = 2000;
        let h = x / steps as f64;
        let inner: f64 = (1..steps).map(|i| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        let cdf = 0.5 + h / 3.0 * (density(0.0) + inner + density(x));
        *v = (x * cdf) as f32;
        *s = (cdf + x * density(x)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_and_its_slope_equal_naive() {
        let mut fast: Vec<f32> = (-300..300).map(|i| i as f32 * 0.02).collect();
        let [mut naive, mut plain, mut plain_naive] = [(); 3].map(|_| fast.clone());
        let (mut fast_slope, mut naive_slope) = (vec![0.0; 600], vec![0.0; 600]);
        gelu(&mut plain);
        gelu_naive(&mut plain_naive);
        gelu_with_slope(&mut fast, &mut fast_slope);
        gelu_with_slope_naive(&mut naive, &mut naive_slope);
        for i in 0..600 {
            assert!((fast[i] - naive[i]).abs() < 1e-6, "gelu at {i}: {} {}", fast[i], naive[i]);
            assert!((fast_slope[i] - naive_slope[i]).abs() < 1e-6, "slope at {i}");
            assert_eq!((plain[i], plain_naive[i]), (fast[i], naive[i]));
        }
    }
}
