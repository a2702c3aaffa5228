//! Kernels that go through rows by vectors of sixteen values, by intrinsics of AVX-512.
//!
//! The compiler turns loops over elements into vectors by itself, but a sum over a row it may not reorder, and what
//! is left of a row behind the last whole vector it does one by one: rows of attention scores are two or three
//! vectors and a rest. Here the rest is a vector with a mask. Each kernel has a portable twin, and a function above both that
//! picks the one for the CPU at hand ([`crate::instructions`]).

mod gelu;
mod layer_norm;
mod pack;
mod softmax;

pub(crate) use gelu::gelu;
pub(crate) use layer_norm::{layer_norm, layer_norm_backward};
pub(crate) use pack::{columns_to_groups, packs_columns};
pub(crate) use softmax::{softmax, softmax_backward};

use crate::math::{EXP_POLYNOMIAL, MINUS_LN_2};
use std::arch::x86_64::{
    __m512, __mmask16, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps,
};

/// Values of a vector.
const LANES: usize = 16;

/// A vector's place in a row: its first value, and which of its lanes are within the row.
#[derive(Clone, Copy)]
struct Part {
    at: usize,
    mask: __mmask16,
}

/// The parts that a row of `len` values falls into.
#[inline(always)]
fn parts(len: usize) -> impl Iterator<Item = Part> {
    let mask = move |at: usize| if len - at < LANES { (1 << (len - at)) - 1 } else { __mmask16::MAX };
    (0..len).step_by(LANES).map(move |at| Part { at, mask: mask(at) })
}

impl Part {
    /// Reads its values of a row, zeros outside.
    ///
    /// # Safety
    /// The row is at least as long as the one that the part was made for.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load(self, row: &[f32]) -> __m512 {
        debug_assert!(self.at < row.len());
        // SAFETY: the lanes of the mask are within the row; others are not read.
        unsafe { _mm512_maskz_loadu_ps(self.mask, row.as_ptr().add(self.at)) }
    }

    /// Writes its values to a row.
    ///
    /// # Safety
    /// The row is at least as long as the one that the part was made for.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store(self, row: &mut [f32], values: __m512) {
        debug_assert!(self.at < row.len());
        // SAFETY: the lanes of the mask are within the row; others are not written.
        unsafe {
            let to = row.as_mut_ptr().add(self.at);
            match self.mask {
                __mmask16::MAX => _mm512_storeu_ps(to, values), // what a mask stored, no load gets before it is in the cache
                mask => _mm512_mask_storeu_ps(to, mask, values),
            }
        }
    }
}

/// e to the power of each value, which must be at most 88: [`crate::math::exp`] with the power of two applied by one
/// instruction.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp(x: __m512) -> __m512 {
    let constant = |value: f32| _mm512_set1_ps(value);
    let x = _mm512_max_ps(constant(-87.0), x); // in this order NaN stays NaN
    // to the nearest whole number (0), without raising a flag (8)
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
