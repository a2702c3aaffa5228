//! Conversion of slices between f32 and bfloat16.
//!
//! A CPU with AVX512-BF16 rounds sixteen values by one instruction instead of ten. That instruction rounds values to
//! zero whose magnitude is below that of any normal number.

use crate::dtype::Bf16;
use multiversion::multiversion;

/// The bits of the bf16 nearest to `x`, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // The addition may carry a NaN into infinity, so keep its upper half instead and set a quiet bit.
    if x.is_nan() { ((bits >> 16) | 0x40) as u16 } else { rounded as u16 }
}

/// Rounds `values` to bf16.
pub fn narrow(values: &[f32], out: &mut [Bf16]) {
    assert_eq!(values.len(), out.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = crate::instructions::Avx512Bf16::detect() {
        return avx512.narrow(values, out);
    }
    narrow_portable(values, out);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn narrow_portable(values: &[f32], out: &mut [Bf16]) {
    for (o, v) in out.iter_mut().zip(values) {
        *o = Bf16::from_bits(to_bits(*v));
    }
}

/// Specification of [`narrow`].
pub fn narrow_naive(values: &[f32], out: &mut [Bf16]) {
    for (o, v) in out.iter_mut().zip(values) {
        *o = Bf16::from_f32(*v);
    }
}

/// Converts bf16 to f32.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn widen(values: &[Bf16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len());
    for (o, b) in out.iter_mut().zip(values) {
        *o = f32::from_bits((b.to_bits() as u32) << 16);
    }
}

/// Specification of [`widen`].
pub fn widen_naive(values: &[Bf16], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(values) {
        *o = b.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn rounding_equals_the_half_crate_on_every_kind_of_number() {
        let mut values = numbers(1000, 3);
        values.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE]);
        values.extend([1.003_906_2, 1.011_718_8, -1.003_906_2, 1.2e-38]);
        let [mut fast, mut portable, mut naive] = [(); 3].map(|_| vec![Bf16::default(); values.len()]);
        narrow(&values, &mut fast);
        narrow_portable(&values, &mut portable);
        narrow_naive(&values, &mut naive);
        assert_eq!(fast, naive);
        assert_eq!(portable, naive);
        let [mut wide, mut wide_naive] = [(); 2].map(|_| vec![0.0; values.len()]);
        widen(&fast, &mut wide);
        widen_naive(&naive, &mut wide_naive);
        assert_eq!(wide, wide_naive);
    }

    #[test]
    fn nan_stays_nan() {
        // one whole vector of sixteen, and a rest
        let values = [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)].repeat(7);
        let mut narrowed = [Bf16::default(); 21];
        narrow(&values, &mut narrowed);
        assert!(narrowed.iter().all(|v| v.is_nan()));
    }
}
