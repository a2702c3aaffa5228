//! Rounding to bfloat16 and back.
//!
//! Where the CPU rounds itself (AVX512-BF16), sixteen values take one instruction instead of ten; it takes what is
//! smaller than any normal number for zero.

use crate::element::Bf16;
use multiversion::multiversion;

/// The bits of the bf16 nearest to `x`, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // NaN: the addition may carry it into infinity, so keep its upper half and set a quiet bit.
    if x.is_nan() { ((bits >> 16) | 0x40) as u16 } else { rounded as u16 }
}

/// Stores `values` as bf16.
pub fn narrow(values: &[f32], out: &mut [Bf16]) {
    assert_eq!(values.len(), out.len());
    #[cfg(target_arch = "x86_64")]
    if crate::instructions::has_avx512_bf16() {
        // SAFETY: this CPU has the instructions.
        return unsafe { narrow_by_vectors(values, out) };
    }
    narrow_by_bits(values, out);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn narrow_by_bits(values: &[f32], out: &mut [Bf16]) {
    for (o, v) in out.iter_mut().zip(values) {
        *o = Bf16::from_bits(to_bits(*v));
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn narrow_by_vectors(values: &[f32], out: &mut [Bf16]) {
    use std::arch::x86_64::{
        __m256bh, __m256i, _mm256_mask_storeu_epi16, _mm512_cvtneps_pbh, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    };
    use std::mem::transmute;
    let ((vectors, rest), (out_vectors, out_rest)) = (values.as_chunks::<16>(), out.as_chunks_mut::<16>());
    for (vector, out) in vectors.iter().zip(out_vectors) {
        // SAFETY: sixteen values are read, from wherever they lie; a vector of bf16 is as many of them, and any bits are
        // a bf16.
        *out = unsafe { transmute::<__m256bh, [Bf16; 16]>(_mm512_cvtneps_pbh(_mm512_loadu_ps(vector.as_ptr()))) };
    }
    if !rest.is_empty() {
        let mask = (1 << rest.len()) - 1;
        // SAFETY: what the mask leaves out, behind the rest, is neither read nor written.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, rest.as_ptr()));
            _mm256_mask_storeu_epi16(out_rest.as_mut_ptr().cast(), mask, transmute::<__m256bh, __m256i>(rounded));
        }
    }
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
        let [mut fast, mut by_bits, mut naive] = [(); 3].map(|_| vec![Bf16::default(); values.len()]);
        narrow(&values, &mut fast);
        narrow_by_bits(&values, &mut by_bits);
        narrow_naive(&values, &mut naive);
        assert_eq!(fast, naive);
        assert_eq!(by_bits, naive); // what a CPU without the instruction runs
        let [mut wide, mut wide_naive] = [(); 2].map(|_| vec![0.0; values.len()]);
        widen(&fast, &mut wide);
        widen_naive(&naive, &mut wide_naive);
        assert_eq!(wide, wide_naive);
    }

    #[test]
    fn nan_stays_nan() {
        // whole vectors and a rest
        let values = [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)].repeat(7);
        let mut stored = [Bf16::default(); 21];
        narrow(&values, &mut stored);
        assert!(stored.iter().all(|v| v.is_nan()));
    }
}
