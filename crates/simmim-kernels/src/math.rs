//! `exp` and `erf` without branches or calls, so that the compiler can vectorize loops over them.
//!
//! Both are plain arithmetic on one `f32`. In a kernel that is compiled for several sets of instructions
//! (`multiversion`), a loop of them becomes the widest vectors of each set. The compiler may not fuse a multiplication
//! and an addition by itself, though. So a kernel in which this makes a difference says by `FUSED` whether its version
//! has an instruction for both.

/// `a·b + c`, by one instruction if `FUSED`. On a CPU without that instruction, `FUSED` would be a slow call.
#[inline(always)]
pub(crate) fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// −ln 2 as a sum of two numbers. The first has so few digits that its multiples are exact.
pub(crate) const MINUS_LN_2: [f32; 2] = [-0.693_359_4, 2.121_944_4e-4];

/// Coefficients of `(e^r − 1 − r) / r²`, the highest power first.
pub(crate) const EXP_POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// Abramowitz & Stegun 7.1.26: `erf(x) = 1 − (a₁t + a₂t² + …)·e^(−x²)` with `t = 1 / (1 + px)`.
pub(crate) const ERF_P: f32 = 0.327_591_1;

/// `a₅ … a₁` of the same formula.
pub(crate) const ERF_POLYNOMIAL: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_8, -0.284_496_73, 0.254_829_6];

/// `e^x` with a relative error of at most 3e-7; `x` is clamped so that the result is finite.
///
/// It is computed as `2^n·e^r` with `|r| <= ln 2 / 2`, and `e^r` by the polynomial of Cephes' `expf` (Moshier, netlib).
#[inline(always)]
pub fn exp<const FUSED: bool>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low mantissa bits: no float-to-int conversion.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = mul_add::<FUSED>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = mul_add::<FUSED>(n, MINUS_LN_2[1], mul_add::<FUSED>(n, MINUS_LN_2[0], x));
    let [mut p, lower @ ..] = EXP_POLYNOMIAL;
    for coefficient in lower {
        p = mul_add::<FUSED>(p, r, coefficient);
    }
    let y = mul_add::<FUSED>(p * r, r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    y * power
}

/// Softmax takes `e^x` for zero where `x` is below this. Such a weight, 1.8e-35, changes no sum. It is still so far above the
/// smallest normal number, 1.2e-38, that products of larger weights with values of usual size are normal; below it they
/// would not be, and many CPUs take a hundred times as long for such numbers. Windows of Swin have many: scores of tokens that
/// must not attend to each other are lowered by 100.
pub(crate) const NEGLIGIBLE: f32 = -80.0;

/// [`exp`] for softmax: see [`NEGLIGIBLE`].
#[inline(always)]
pub(crate) fn softmax_exp<const FUSED: bool>(x: f32) -> f32 {
    if x < NEGLIGIBLE { 0.0 } else { exp::<FUSED>(x) }
}

/// Specification of [`exp`], in f64.
pub fn exp_naive(x: f32) -> f64 {
    (x as f64).clamp(-87.0, 88.0).exp()
}

/// The error function, with an error of at most 5e-7, and `e^(−x²)`, which is a part of its formula
/// (Abramowitz & Stegun 7.1.26).
#[inline(always)]
pub fn erf_and_gauss<const FUSED: bool>(x: f32) -> (f32, f32) {
    let a = x.abs();
    let t = 1.0 / mul_add::<FUSED>(a, ERF_P, 1.0);
    let gauss = exp::<FUSED>(-a * a);
    let [mut p, lower @ ..] = ERF_POLYNOMIAL;
    for coefficient in lower {
        p = mul_add::<FUSED>(p, t, coefficient);
    }
    let erf = mul_add::<FUSED>(-p * t, gauss, 1.0);
    (erf.copysign(x), gauss)
}

/// Specification of [`erf_and_gauss`], in f64: erf by its Maclaurin series below 4. From 4 on, f32 cannot tell erf from
/// 1.
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

    fn check_exp<const FUSED: bool>() {
        for i in -8600..8700 {
            let x = i as f32 * 0.01;
            let expected = exp_naive(x);
            let error = (exp::<FUSED>(x) as f64 - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn exp_is_within_3e7_relative() {
        check_exp::<false>();
        check_exp::<true>();
    }

    #[test]
    fn exp_of_large_numbers_is_finite() {
        assert!(exp::<false>(-1000.0) < 1e-37 && exp::<false>(-1000.0) >= 0.0);
        assert!(exp::<true>(1000.0).is_finite());
    }

    fn check_erf<const FUSED: bool>() {
        for i in -500..500 {
            let x = i as f32 * 0.01;
            let (erf, gauss) = erf_and_gauss::<FUSED>(x);
            let (erf_naive, gauss_naive) = erf_and_gauss_naive(x);
            assert!((erf as f64 - erf_naive).abs() < 5e-7, "erf({x}) = {erf}");
            assert!((gauss as f64 - gauss_naive).abs() < 3e-7);
        }
    }

    #[test]
    fn erf_is_within_5e7() {
        check_erf::<false>();
        check_erf::<true>();
    }
}
