//! `exp` and `erf` without branches or calls, so that loops over them vectorise.
//!
//! Both are plain arithmetic on one `f32`; inside a `multiversion` kernel the compiler turns a loop
//! of them into the widest instructions the CPU has.

/// e to the power `x`, within 3e-7 relative; clamps to the finite range of `f32`.
///
/// Range reduction to `|r| <= ln 2 / 2` and the polynomial of Cephes' `expf` (Moshier, netlib).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low mantissa bits: no float-to-int conversion.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    y * power
}

/// Specification of [`exp`], in f64.
pub fn exp_naive(x: f32) -> f64 {
    (x as f64).clamp(-87.0, 88.0).exp()
}

/// The error function, within 2e-7, and `exp(-x²)`, which its formula computes on the way.
///
/// Abramowitz & Stegun 7.1.26.
#[inline(always)]
pub fn erf_and_gauss(x: f32) -> (f32, f32) {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let gauss = exp(-a * a);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_8;
    p = p * t - 0.284_496_73;
    p = p * t + 0.254_829_6;
    let erf = 1.0 - p * t * gauss;
    (erf.copysign(x), gauss)
}

/// Specification of [`erf_and_gauss`], in f64: erf by its Maclaurin series, exact enough below 4, from where on
/// an f32 cannot tell it from 1.
pub fn erf_and_gauss_naive(x: f32) -> (f64, f64) {
    let x = x as f64;
    let gauss = (-x * x).exp();
    if x.abs() >= 4.0 {
        return (x.signum(), gauss);
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    (sum * 2.0 / std::f64::consts::PI.sqrt(), gauss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_3e7_relative() {
        for i in -8600..8700 {
            let x = i as f32 * 0.01;
            let expected = exp_naive(x);
            let error = (exp(x) as f64 - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn exp_of_very_negative_is_tiny_not_nan() {
        assert!(exp(-1000.0) < 1e-37 && exp(-1000.0) >= 0.0);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn erf_is_within_5e7() {
        for i in -500..500 {
            let x = i as f32 * 0.01;
            let (erf, gauss) = erf_and_gauss(x);
            let (erf_naive, gauss_naive) = erf_and_gauss_naive(x);
            assert!((erf as f64 - erf_naive).abs() < 5e-7, "erf({x}) = {erf}");
            assert!((gauss as f64 - gauss_naive).abs() < 3e-7);
        }
    }
}
