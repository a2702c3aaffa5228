//! What follows a product of bf16, in one pass over its block: GELU, its gradient, and rounding.

use super::bf16::rounded;
use super::gelu::near_value_and_slope;
use super::{RowVector, vectors};
use crate::dtype::Bf16;
use std::arch::x86_64::{
    __m512, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm256_storeu_si256, _mm512_add_ps,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_mul_ps, _mm512_slli_epi32,
};

/// See [`crate::epilogue::narrow_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn narrow_rows(block: &[f32], columns: usize, out: &mut [Bf16], stride: usize) {
    for (block, out) in block.chunks_exact(columns).zip(out.chunks_mut(stride)) {
        let out = &mut out[..columns];
        for vector in vectors(columns) {
            // SAFETY: both rows have `columns` values, and this function has the instructions.
            unsafe { vector.round(out, vector.load(block)) };
        }
    }
}

/// See [`crate::epilogue::gelu_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn gelu_rows(block: &[f32], columns: usize, out: &mut [Bf16], stride: usize, slope: &mut [Bf16]) {
    for (i, (block, out)) in block.chunks_exact(columns).zip(out.chunks_mut(stride)).enumerate() {
        let out = &mut out[..columns];
        if slope.is_empty() {
            for vector in vectors(columns) {
                // SAFETY: both rows have `columns` values, and this function has the instructions.
                unsafe { vector.round(out, near_value_and_slope(vector.load(block)).0) };
            }
        } else {
            let slope = &mut slope[i * columns..][..columns];
            for vector in vectors(columns) {
                // SAFETY: all three rows have `columns` values, and this function has the instructions.
                unsafe {
                    let (value, value_slope) = near_value_and_slope(vector.load(block));
                    vector.round(out, value);
                    vector.round(slope, value_slope);
                }
            }
        }
    }
}

/// See [`crate::epilogue::gelu_backward_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn gelu_backward_rows(
    block: &[f32],
    slope: &[Bf16],
    columns: usize,
    out: &mut [Bf16],
    stride: usize,
    sums: &mut [f32],
) {
    let sums = &mut sums[..columns];
    let rows = block.chunks_exact(columns).zip(slope.chunks_exact(columns));
    for ((block, slope), out) in rows.zip(out.chunks_mut(stride)) {
        let out = &mut out[..columns];
        for vector in vectors(columns) {
            // SAFETY: all rows and the sums have `columns` values, and this function has the instructions.
            unsafe {
                let d = _mm512_mul_ps(vector.load(block), vector.widen(slope));
                vector.round(out, d);
                vector.store(sums, _mm512_add_ps(vector.load(sums), d));
            }
        }
    }
}

impl RowVector {
    /// Rounds values and writes them to a row.
    ///
    /// # Safety
    /// The row is at least as long as the `len` of [`vectors`], and the CPU has AVX512-BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    pub(super) unsafe fn round(self, row: &mut [Bf16], values: __m512) {
        debug_assert!(self.at < row.len());
        // SAFETY: the mask's lanes lie within the row; the others are not written. The caller promises the instructions.
        unsafe {
            let rounded = rounded(values);
            let to = row.as_mut_ptr().add(self.at);
            match self.mask {
                u16::MAX => _mm256_storeu_si256(to.cast(), rounded),
                mask => _mm256_mask_storeu_epi16(to.cast(), mask, rounded),
            }
        }
    }

    /// Reads the vector's values of a row as f32.
    ///
    /// # Safety
    /// The row is at least as long as the `len` of [`vectors`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    pub(super) unsafe fn widen(self, row: &[Bf16]) -> __m512 {
        debug_assert!(self.at < row.len());
        // SAFETY: the mask's lanes lie within the row; the others are not read.
        let bits = unsafe { _mm256_maskz_loadu_epi16(self.mask, row.as_ptr().add(self.at).cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }
}
