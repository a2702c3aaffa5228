//! Rounding to bfloat16 and back.
//!
//! Where the CPU rounds itself (AVX512-BF16), sixteen values take one instruction instead of ten; it takes what is
//! smaller than any normal number for zero.

use crate::element::Bf16;
use multiversion::{multiversion, target::target_cfg_f};

/// The bits of the bf16 nearest to `x`, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // NaN: the addition may carry it into infinity, so keep its upper half and set a quiet bit.
    if x.is_nan() { ((bits >> 16) | 0x40) as u16 } else { rounded as u16 }
}

/// Stores `values` as bf16.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx512bf16+fma",
    "x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub fn narrow(values: &[f32], out: &mut [Bf16]) {
    assert_eq!(values.len(), out.len());
    let (mut values, mut out) = (values, out);
    #[cfg(target_arch = "x86_64")]
    if target_cfg_f!(target_feature = "avx512bf16") {
        let ((runs, rest), (out_runs, out_rest)) = (values.as_chunks(), out.as_chunks_mut());
        for (run, out) in runs.iter().zip(out_runs) {
            // SAFETY: only the version that is compiled for these instructions gets here, and that one may even do without
            // `unsafe`.
            #[allow(unused_unsafe)]
            let rounded = unsafe { round_vector(run) };
            *out = rounded;
        }
        (values, out) = (rest, out_rest);
    }
    for (o, v) in out.iter_mut().zip(values) {
        *o = Bf16::from_bits(to_bits(*v));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round_vector(values: &[f32; 16]) -> [Bf16; 16] {
    use std::arch::x86_64::{_mm512_cvtneps_pbh, _mm512_loadu_ps};
    // SAFETY: sixteen values are read, from wherever they lie; a vector of bf16 is as many of them, and any bits are
    // a bf16.
    unsafe { std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr()))) }
}

/// Specification of [`narrow`].
pub fn narrow_naive(values: &[f32], out: &mut [Bf16]) {
    for (o, v) in out.iter_mut().zip(values) {
        *o = Bf16::from_f32(*v);
    }
}

/// Reads bf16 back as f32.
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
        let [mut fast, mut naive] = [(); 2].map(|_| vec![Bf16::default(); values.len()]);
        narrow(&values, &mut fast);
        narrow_naive(&values, &mut naive);
        assert_eq!(fast, naive);
        let [mut wide, mut wide_naive] = [(); 2].map(|_| vec![0.0; values.len()]);
        widen(&fast, &mut wide);
        widen_naive(&naive, &mut wide_naive);
        assert_eq!(wide, wide_naive);
    }

    #[test]
    fn nan_stays_nan() {
        let values = [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)];
        let mut stored = [Bf16::default(); 3];
        narrow(&values, &mut stored);
        assert!(stored.iter().all(|v| v.is_nan()));
    }
}
