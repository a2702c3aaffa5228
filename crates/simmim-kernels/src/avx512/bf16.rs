//! Rounding to bf16, sixteen values by one instruction.

use super::LANES;
use crate::dtype::Bf16;
use std::arch::x86_64::{
    __m256bh, __m256i, _mm256_mask_storeu_epi16, _mm512_cvtneps_pbh, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
};
use std::mem::transmute;

/// See [`crate::bf16::narrow`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn narrow(values: &[f32], out: &mut [Bf16]) {
    assert_eq!(values.len(), out.len());
    let ((vectors, rest), (out_vectors, out_rest)) = (values.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (vector, out) in vectors.iter().zip(out_vectors) {
        // SAFETY: the sixteen values that are read are those of `vector`, and a load needs no alignment. A vector of
        // sixteen bf16 has the size of the array, and any bits are a bf16.
        *out = unsafe { transmute::<__m256bh, [Bf16; LANES]>(_mm512_cvtneps_pbh(_mm512_loadu_ps(vector.as_ptr()))) };
    }
    if !rest.is_empty() {
        let mask = (1 << rest.len()) - 1;
        // SAFETY: both rests are equally long, as asserted, and lanes outside of the mask are neither read nor written.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, rest.as_ptr()));
            _mm256_mask_storeu_epi16(out_rest.as_mut_ptr().cast(), mask, transmute::<__m256bh, __m256i>(rounded));
        }
    }
}
