//! Rounding to bf16, sixteen values by one instruction.
//!
//! Both instructions are written as assembly, because one kernel serves both types and so is compiled without AVX512-BF16.
//! An intrinsic that needs it could not be inlined there, and each use would be a call.

use super::LANES;
use crate::dtype::Bf16;
use std::arch::asm;
use std::arch::x86_64::{__m256i, __m512, __m512i, _mm256_mask_storeu_epi16, _mm512_loadu_ps, _mm512_maskz_loadu_ps};
use std::mem::transmute;

/// Sixteen values, rounded.
///
/// # Safety
/// The CPU has AVX512-BF16.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn rounded(values: __m512) -> __m256i {
    let rounded: __m256i;
    // SAFETY: the instruction reads and writes only these registers, and the caller promises that the CPU has it.
    unsafe {
        asm!("vcvtneps2bf16 {out:y}, {values:z}", out = out(zmm_reg) rounded, values = in(zmm_reg) values,
            options(pure, nomem, nostack, preserves_flags));
    }
    rounded
}

/// Sixteen values, rounded, in the lower half of the result, and sixteen others in the upper half.
///
/// # Safety
/// The CPU has AVX512-BF16.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn rounded_pairs(upper: __m512, lower: __m512) -> __m512i {
    let rounded: __m512i;
    // SAFETY: the instruction reads and writes only these registers, and the caller promises that the CPU has it.
    unsafe {
        asm!("vcvtne2ps2bf16 {out:z}, {upper:z}, {lower:z}", out = out(zmm_reg) rounded, upper = in(zmm_reg) upper,
            lower = in(zmm_reg) lower, options(pure, nomem, nostack, preserves_flags));
    }
    rounded
}

/// See [`crate::bf16::narrow`].
///
/// # Safety
/// The CPU has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn narrow(values: &[f32], out: &mut [Bf16]) {
    assert_eq!(values.len(), out.len());
    let ((vectors, rest), (out_vectors, out_rest)) = (values.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (vector, out) in vectors.iter().zip(out_vectors) {
        // SAFETY: the sixteen values that are read are those of `vector`, and a load needs no alignment. A vector of
        // sixteen bf16 has the size of the array, and any bits are a bf16. The caller promises the instructions.
        *out = unsafe { transmute::<__m256i, [Bf16; LANES]>(rounded(_mm512_loadu_ps(vector.as_ptr()))) };
    }
    if !rest.is_empty() {
        let mask = (1 << rest.len()) - 1;
        // SAFETY: both rests are equally long, as asserted, and lanes outside of the mask are neither read nor written.
        unsafe {
            let rounded = rounded(_mm512_maskz_loadu_ps(mask, rest.as_ptr()));
            _mm256_mask_storeu_epi16(out_rest.as_mut_ptr().cast(), mask, rounded);
        }
    }
}
