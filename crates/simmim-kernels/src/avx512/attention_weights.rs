//! Attention scores to weights and back, in one pass over each row.

use super::softmax::{ROWS, exp_in_place};
use super::{LANES, RowVector, softmax_exp, vectors};
use crate::attention_weights::scores_stride;
use crate::dtype::{Dtype, DtypeKind};
use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_mov_ps, _mm512_maskz_mov_ps, _mm512_max_ps,
    _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// See [`crate::attention_weights::attention_weights`].
///
/// # Safety
/// If `T` is bf16, the CPU has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn attention_weights<T: Dtype>(
    scores: &mut [f32],
    columns: usize,
    biases: &[&[f32]],
    first_row: usize,
    p: &mut [T],
    p_stride: usize,
) {
    let kernel = match columns.div_ceil(LANES) {
        1 => rows_in_registers::<T, 1>,
        2 => rows_in_registers::<T, 2>,
        3 => rows_in_registers::<T, 3>,
        4 => rows_in_registers::<T, 4>,
        5 => rows_in_registers::<T, 5>,
        6 => rows_in_registers::<T, 6>,
        7 => rows_in_registers::<T, 7>,
        8 => rows_in_registers::<T, 8>,
        9 => rows_in_registers::<T, 9>,
        10 => rows_in_registers::<T, 10>,
        11 => rows_in_registers::<T, 11>,
        12 => rows_in_registers::<T, 12>,
        13 => rows_in_registers::<T, 13>, // the 197 tokens of a ViT at 224² pixels
        _ => long_rows::<T>,
    };
    // SAFETY: the caller promises what the kernels ask for.
    unsafe { kernel(scores, columns, biases, first_row, p, p_stride) }
}

/// Rows of `VECTORS` vectors. Each is read once, stays in registers, and is written once.
///
/// # Safety
/// As [`attention_weights`] says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn rows_in_registers<T: Dtype, const VECTORS: usize>(
    scores: &mut [f32],
    columns: usize,
    biases: &[&[f32]],
    first_row: usize,
    p: &mut [T],
    p_stride: usize,
) {
    let last = vectors(columns).last().map_or(0, |vector| vector.mask);
    let vector = |v: usize| RowVector { at: v * LANES, mask: if v + 1 < VECTORS { __mmask16::MAX } else { last } };
    for (i, (scores, p)) in scores.chunks_exact(scores_stride(columns)).zip(p.chunks_exact_mut(p_stride)).enumerate() {
        let (p, rest) = p.split_at_mut(columns);
        let mut row = [_mm512_setzero_ps(); VECTORS];
        // SAFETY: the rows of scores, biases and weights have `columns` values, which are those of the vectors. The caller
        // promises the instructions.
        unsafe {
            for v in 0..VECTORS {
                row[v] = vector(v).load(scores);
            }
            for bias in biases {
                let bias = &bias[(first_row + i) * columns..][..columns];
                for v in 0..VECTORS {
                    row[v] = _mm512_add_ps(row[v], vector(v).load(bias));
                }
            }
            // lanes after the end of the row count as minus infinity
            row[VECTORS - 1] = _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), last, row[VECTORS - 1]);
            let largest = in_pairs(row, |a, b| _mm512_max_ps(a, b));
            let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
            for row in &mut row {
                *row = softmax_exp(_mm512_sub_ps(*row, largest));
            }
            row[VECTORS - 1] = _mm512_maskz_mov_ps(last, row[VECTORS - 1]);
            let total = in_pairs(row, |a, b| _mm512_add_ps(a, b));
            let factor = _mm512_set1_ps(1.0 / _mm512_reduce_add_ps(total));
            for v in 0..VECTORS {
                vector(v).store_as(p, _mm512_mul_ps(row[v], factor));
            }
        }
        rest.fill(T::default());
    }
}

/// Combines vectors in pairs, then those results in pairs, and so on: none waits long for the others.
#[inline(always)]
fn in_pairs<const VECTORS: usize>(mut row: [__m512; VECTORS], combine: impl Fn(__m512, __m512) -> __m512) -> __m512 {
    let mut count = VECTORS;
    while count > 1 {
        let half = count.div_ceil(2);
        for v in half..count {
            row[v - half] = combine(row[v - half], row[v]);
        }
        count = half;
    }
    row[0]
}

/// Rows of any length, which are written back before they are scaled.
///
/// # Safety
/// As [`attention_weights`] says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn long_rows<T: Dtype>(
    scores: &mut [f32],
    columns: usize,
    biases: &[&[f32]],
    first_row: usize,
    p: &mut [T],
    p_stride: usize,
) {
    let stride = scores_stride(columns);
    for (block, (scores, p)) in scores.chunks_mut(ROWS * stride).zip(p.chunks_mut(ROWS * p_stride)).enumerate() {
        let mut factors = [0.0; ROWS];
        for (i, (row, factor)) in scores.chunks_exact_mut(stride).zip(&mut factors).enumerate() {
            let row = &mut row[..columns];
            for bias in biases {
                add(row, &bias[(first_row + block * ROWS + i) * columns..][..columns]);
            }
            *factor = 1.0 / exp_in_place(row);
        }
        for ((row, p), factor) in scores.chunks_exact(stride).zip(p.chunks_exact_mut(p_stride)).zip(factors) {
            let (factor, (p, rest)) = (_mm512_set1_ps(factor), p.split_at_mut(columns));
            for vector in vectors(columns) {
                // SAFETY: both rows have `columns` values, and the caller promises the instructions.
                unsafe { vector.store_as(p, _mm512_mul_ps(vector.load(row), factor)) };
            }
            rest.fill(T::default());
        }
    }
}

/// `row += bias`.
#[target_feature(enable = "avx512f")]
#[inline]
fn add(row: &mut [f32], bias: &[f32]) {
    assert_eq!(row.len(), bias.len());
    for vector in vectors(row.len()) {
        // SAFETY: both are equally long.
        unsafe { vector.store(row, _mm512_add_ps(vector.load(row), vector.load(bias))) };
    }
}

/// See [`crate::attention_weights::attention_weights_backward`].
///
/// # Safety
/// If `T` is bf16, the CPU has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn attention_weights_backward<T: Dtype>(
    p: &[T],
    p_stride: usize,
    d_p: &[f32],
    columns: usize,
    mut d_bias: Option<&mut [f32]>,
    d_s: &mut [T],
    d_s_stride: usize,
) {
    let rows = d_p.chunks_exact(scores_stride(columns)).zip(p.chunks(p_stride)).zip(d_s.chunks_mut(d_s_stride));
    for (i, ((d, p), d_s)) in rows.enumerate() {
        let (p, (d_s, rest)) = (&p[..columns], d_s.split_at_mut(columns));
        // SAFETY: all rows have at least `columns` values, and the caller promises the instructions.
        unsafe {
            let mut dot = _mm512_setzero_ps();
            for vector in vectors(columns) {
                dot = _mm512_fmadd_ps(vector.load_from(p), vector.load(d), dot);
            }
            let dot = _mm512_set1_ps(_mm512_reduce_add_ps(dot));
            let gradient = |vector: RowVector| _mm512_mul_ps(vector.load_from(p), _mm512_sub_ps(vector.load(d), dot));
            match &mut d_bias {
                None => vectors(columns).for_each(|vector| vector.store_as(d_s, gradient(vector))),
                Some(d_bias) => {
                    let d_bias = &mut d_bias[i * columns..][..columns];
                    for vector in vectors(columns) {
                        let gradient = gradient(vector);
                        vector.store_as(d_s, gradient);
                        vector.store(d_bias, _mm512_add_ps(vector.load(d_bias), gradient));
                    }
                }
            }
        }
        rest.fill(T::default());
    }
}

impl RowVector {
    /// Writes values to a row of either type.
    ///
    /// # Safety
    /// The row is at least as long as the `len` of [`vectors`]. If `T` is bf16, the CPU has AVX512-BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn store_as<T: Dtype>(self, row: &mut [T], values: __m512) {
        let (pointer, len) = (row.as_mut_ptr(), row.len());
        // SAFETY: `KIND` says what type the values of the row have, and the caller promises its length and the instructions.
        unsafe {
            match T::KIND {
                DtypeKind::F32 => self.store(from_raw_parts_mut(pointer.cast(), len), values),
                DtypeKind::Bf16 => self.round(from_raw_parts_mut(pointer.cast(), len), values),
            }
        }
    }

    /// Reads values of a row of either type.
    ///
    /// # Safety
    /// The row is at least as long as the `len` of [`vectors`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load_from<T: Dtype>(self, row: &[T]) -> __m512 {
        // SAFETY: `KIND` says what type the values of the row have, and the caller promises its length.
        unsafe {
            match T::KIND {
                DtypeKind::F32 => self.load(from_raw_parts(row.as_ptr().cast(), row.len())),
                DtypeKind::Bf16 => self.widen(from_raw_parts(row.as_ptr().cast(), row.len())),
            }
        }
    }
}
