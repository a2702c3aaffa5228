//! Kernels in intrinsics of AVX-512 that go through rows by vectors of sixteen values.
//!
//! The compiler vectorizes loops over elements by itself, with two gaps. It may not reorder a sum over a row, and it
//! computes what remains of a row after the last whole vector value by value, although a row of attention scores is
//! only two or three vectors and a remainder. Here the remainder is one more vector, with a mask.
//!
//! Each kernel has a portable twin, and a public function that calls one of the two. To call one of the kernels here,
//! it needs a proof that the CPU has the instructions: [`Avx512`], [`Avx512Bf16`], or for kernels of either type [`Avx512Of`].

mod attention_weights;
mod bf16;
mod epilogue;
mod gelu;
mod layer_norm;
mod pack;
mod softmax;

use crate::aligned::CACHE_LINE;
use crate::dtype::{Bf16, Dtype};
use crate::instructions::{Avx512, Avx512Bf16, Avx512Of};
use crate::layer_norm::RowStatistics;
use crate::math::{EXP_POLYNOMIAL, MINUS_LN_2, NEGLIGIBLE};
use crate::matrix::Matrix;
use crate::pack::{Packed, PackedLayout};
use std::arch::x86_64::{
    __m512, __mmask16, _CMP_NLT_UQ, _mm_sfence, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_stream_ps,
};

/// Values of a vector.
pub(crate) const LANES: usize = 16;

impl Avx512 {
    /// Packs columns of panels to groups, which must be whole vectors wide.
    pub(crate) fn columns_of_panels_to_groups(
        self,
        panels: Packed,
        first: usize,
        width: usize,
        groups: &mut [&mut [u32]],
    ) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { pack::columns_of_panels_to_groups(panels, first, width, groups) }
    }

    /// See [`crate::softmax::softmax`].
    pub(crate) fn softmax(self, x: &mut [f32], stride: usize, columns: usize) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { softmax::softmax(x, stride, columns) }
    }

    /// See [`crate::softmax::softmax_backward`].
    pub(crate) fn softmax_backward(self, p: &[f32], d_p: &mut [f32], columns: usize) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { softmax::softmax_backward(p, d_p, columns) }
    }

    /// See [`crate::layer_norm::layer_norm`].
    pub(crate) fn layer_norm(
        self,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        y: &mut [f32],
        statistics: &mut [RowStatistics],
    ) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { layer_norm::layer_norm(x, weight, bias, eps, y, statistics) }
    }

    /// See [`crate::layer_norm::layer_norm_backward`].
    pub(crate) fn layer_norm_backward(
        self,
        x: &[f32],
        weight: &[f32],
        statistics: &[RowStatistics],
        d_y: &[f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { layer_norm::layer_norm_backward(x, weight, statistics, d_y, d_x, d_weight, d_bias) }
    }

    /// Copies `rows` rows of `columns` values past the caches, and says whether it did: rows of `out` must be whole cache
    /// lines.
    ///
    /// # Panics
    /// If there are fewer rows than that.
    pub(crate) fn stream_rows(
        self,
        from: &[f32],
        stride: usize,
        rows: usize,
        out: &mut [f32],
        out_stride: usize,
        columns: usize,
    ) -> bool {
        if !starts_line(out) || [columns, out_stride].iter().any(|values| !values.is_multiple_of(LANES)) {
            return false;
        }
        for row in 0..rows {
            let (from, out) = (&from[row * stride..][..columns], &mut out[row * out_stride..][..columns]);
            // SAFETY: `self` proves that the CPU has the instructions, both rows are equally long, and one of `out` is whole
            // cache lines.
            unsafe { stream_row(from, out) };
        }
        fence_stores();
        true
    }

    /// See [`crate::gelu::gelu`].
    pub(crate) fn gelu(self, x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { gelu::gelu(x, values, slopes) }
    }
}

impl<T: Dtype> Avx512Of<T> {
    /// See [`crate::attention_weights::attention_weights`].
    pub(crate) fn attention_weights(
        self,
        scores: &mut [f32],
        columns: usize,
        biases: &[&[f32]],
        first_row: usize,
        p: &mut [T],
        p_stride: usize,
    ) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { attention_weights::attention_weights(scores, columns, biases, first_row, p, p_stride) }
    }

    /// See [`crate::attention_weights::attention_weights_backward`].
    pub(crate) fn attention_weights_backward(
        self,
        p: &[T],
        p_stride: usize,
        d_p: &[f32],
        columns: usize,
        d_bias: Option<&mut [f32]>,
        d_s: &mut [T],
        d_s_stride: usize,
    ) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            attention_weights::attention_weights_backward(p, p_stride, d_p, columns, d_bias, d_s, d_s_stride);
        }
    }

    /// Packs groups `first ..`, as many as `out` has space for, of rows `b` that become columns. A group must be whole
    /// vectors wide.
    pub(crate) fn columns_to_groups<S: Dtype>(self, b: Matrix<S>, first: usize, layout: PackedLayout, out: &mut [u32]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { pack::columns_to_groups::<S, T, false>(b, first, layout, out) }
    }

    /// The same past the caches, if `out` starts at a cache line and groups are whole vectors wide.
    pub(crate) fn columns_to_groups_past_caches<S: Dtype>(
        self,
        b: Matrix<S>,
        first: usize,
        layout: PackedLayout,
        out: &mut [u32],
    ) {
        if !starts_line(out) || !layout.width().is_multiple_of(LANES) {
            return self.columns_to_groups(b, first, layout, out);
        }
        // SAFETY: `self` proves that the CPU has the instructions, and the end is an `sfence`.
        unsafe { pack::columns_to_groups::<S, T, true>(b, first, layout, out) }
        fence_stores();
    }

    /// Packs rows of a weight to their steps of groups, which must be whole vectors wide.
    pub(crate) fn weight_rows_to_groups(self, rows: Matrix<f32>, width: usize, groups: &mut [&mut [u32]]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { pack::weight_rows_to_groups::<T>(rows, width, groups) }
    }
}

impl Avx512Bf16 {
    /// See [`crate::bf16::narrow`].
    pub(crate) fn narrow(self, values: &[f32], out: &mut [Bf16]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { bf16::narrow(values, out) }
    }

    /// See [`crate::epilogue::narrow_rows`].
    pub(crate) fn narrow_rows(self, block: &[f32], columns: usize, out: &mut [Bf16], stride: usize) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { epilogue::narrow_rows(block, columns, out, stride) }
    }

    /// See [`crate::epilogue::gelu_rows`].
    pub(crate) fn gelu_rows(self, block: &[f32], columns: usize, out: &mut [Bf16], stride: usize, slope: &mut [Bf16]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { epilogue::gelu_rows(block, columns, out, stride, slope) }
    }

    /// See [`crate::epilogue::gelu_backward_rows`].
    pub(crate) fn gelu_backward_rows(
        self,
        block: &[f32],
        slope: &[Bf16],
        columns: usize,
        out: &mut [Bf16],
        stride: usize,
        sums: &mut [f32],
    ) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { epilogue::gelu_backward_rows(block, slope, columns, out, stride, sums) }
    }

    /// Packs rows to a layout in squares.
    pub(crate) fn rows_to_squares(self, b: Matrix<Bf16>, layout: PackedLayout, out: &mut [u32]) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { pack::rows_to_squares(b, layout, out) }
    }
}

/// Whether values start at a cache line.
fn starts_line<T>(values: &[T]) -> bool {
    values.as_ptr().addr().is_multiple_of(CACHE_LINE)
}

/// Lets other threads see what was stored past the caches before they see what is stored after this.
fn fence_stores() {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { _mm_sfence() };
}

/// Copies a row past the caches.
///
/// # Safety
/// Both are equally long, and `out` is whole cache lines. Other threads are told of it only after an `sfence`.
#[target_feature(enable = "avx512f")]
unsafe fn stream_row(from: &[f32], out: &mut [f32]) {
    for (from, out) in from.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0) {
        // SAFETY: both are sixteen values long, and the caller promises that `out` starts at a cache line.
        unsafe { _mm512_stream_ps(out.as_mut_ptr(), _mm512_loadu_ps(from.as_ptr())) };
    }
}

/// One vector of a row: the index of its first value, and which of its lanes lie within the row.
#[derive(Clone, Copy)]
struct RowVector {
    at: usize,
    mask: __mmask16,
}

/// The vectors that cover a row of `len` values.
#[inline(always)]
fn vectors(len: usize) -> impl Iterator<Item = RowVector> {
    let mask = move |at: usize| if len - at < LANES { (1 << (len - at)) - 1 } else { __mmask16::MAX };
    (0..len).step_by(LANES).map(move |at| RowVector { at, mask: mask(at) })
}

impl RowVector {
    /// Reads the vector's values of a row; lanes outside of the row become zero.
    ///
    /// # Safety
    /// The row is at least as long as the `len` of [`vectors`].
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load(self, row: &[f32]) -> __m512 {
        debug_assert!(self.at < row.len());
        // SAFETY: the mask's lanes lie within the row; the others are not read.
        unsafe { _mm512_maskz_loadu_ps(self.mask, row.as_ptr().add(self.at)) }
    }

    /// Writes the vector's values to a row.
    ///
    /// # Safety
    /// The row is at least as long as the `len` of [`vectors`].
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store(self, row: &mut [f32], values: __m512) {
        debug_assert!(self.at < row.len());
        // SAFETY: the mask's lanes lie within the row; the others are not written.
        unsafe {
            let to = row.as_mut_ptr().add(self.at);
            match self.mask {
                // a load right after a masked store would have to wait for it, so whole vectors are stored without a
                // mask
                __mmask16::MAX => _mm512_storeu_ps(to, values),
                mask => _mm512_mask_storeu_ps(to, mask, values),
            }
        }
    }
}

/// `e^x` for `x` of at most 88: [`crate::math::exp`], except that one instruction multiplies by the power of two.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp(x: __m512) -> __m512 {
    let constant = |value: f32| _mm512_set1_ps(value);
    let x = _mm512_max_ps(constant(-87.0), x); // in this order of the arguments NaN stays NaN
    // 8: to the nearest whole number (bits 0 to 2 zero) without raising a flag (bit 3)
    let n = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, constant(std::f32::consts::LOG2_E)));
    let [upper, lower] = MINUS_LN_2.map(constant);
    let r = _mm512_fmadd_ps(n, lower, _mm512_fmadd_ps(n, upper, x));
    let mut p = constant(EXP_POLYNOMIAL[0]);
    for coefficient in &EXP_POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, r, constant(*coefficient));
    }
    let one_and_r = _mm512_fmadd_ps(constant(1.0), r, constant(1.0));
    _mm512_scalef_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, one_and_r), n)
}

/// [`exp`] for softmax: [`crate::math::softmax_exp`].
#[target_feature(enable = "avx512f")]
#[inline]
fn softmax_exp(x: __m512) -> __m512 {
    // "not less" holds for NaN, which stays NaN
    let counts = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(NEGLIGIBLE));
    _mm512_maskz_mov_ps(counts, exp(x))
}
