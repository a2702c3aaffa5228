//! What follows a product while its result is in the cache: rounding to stored operands, GELU, and sums of columns.
//!
//! A product is computed in blocks of a few columns. An epilogue takes such a block, dense `[rows, columns]`, and
//! stores it to its columns of an operand whose rows are `stride` apart. The caller passes the operand's slice from the
//! block's first column on.

use crate::dtype::{Dtype, DtypeKind};
use crate::gelu::{gelu, gelu_naive};
#[cfg(target_arch = "x86_64")]
use crate::instructions::Avx512Bf16;
use multiversion::multiversion;

/// Results that are computed before they are rounded and stored: a few vectors.
const RUN: usize = 96;

/// Rounds a block and stores it.
pub fn narrow_rows<T: Dtype>(block: &[f32], columns: usize, out: &mut [T], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(avx512), Some(out)) = (Avx512Bf16::detect(), T::bf16_values_mut(out)) {
        return avx512.narrow_rows(block, columns, out, stride);
    }
    for (block, out) in block.chunks_exact(columns).zip(out.chunks_mut(stride)) {
        T::narrow(block, &mut out[..columns]);
    }
}

/// Specification of [`narrow_rows`].
pub fn narrow_rows_naive<T: Dtype>(block: &[f32], columns: usize, out: &mut [T], stride: usize) {
    for (i, value) in block.iter().enumerate() {
        out[i / columns * stride + i % columns] = T::narrowed(*value);
    }
}

/// Copies dense rows to rows that are `stride` apart.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn copy_rows<T: Dtype>(rows: &[T], columns: usize, out: &mut [T], stride: usize) {
    // with the usual head widths as constants, a row is a few loads and stores instead of a call
    match columns {
        32 => copy_runs::<T, 32>(rows, out, stride),
        64 => copy_runs::<T, 64>(rows, out, stride),
        _ => {
            for (row, out) in rows.chunks_exact(columns).zip(out.chunks_mut(stride)) {
                out[..columns].copy_from_slice(row);
            }
        }
    }
}

/// Specification of [`copy_rows`].
pub fn copy_rows_naive<T: Dtype>(rows: &[T], columns: usize, out: &mut [T], stride: usize) {
    for (i, value) in rows.iter().enumerate() {
        out[i / columns * stride + i % columns] = *value;
    }
}

#[inline(always)]
fn copy_runs<T: Dtype, const COLUMNS: usize>(rows: &[T], out: &mut [T], stride: usize) {
    for (row, out) in rows.as_chunks::<COLUMNS>().0.iter().zip(out.chunks_mut(stride)) {
        if let Some(out) = out.first_chunk_mut() {
            *out = *row;
        }
    }
}

/// Stores the GELU of a block, and its slope, unless `slope` is empty. The slope is dense as the block is.
pub fn gelu_rows<T: Dtype>(block: &[f32], columns: usize, out: &mut [T], stride: usize, slope: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512Bf16::detect()
        && T::KIND == DtypeKind::Bf16
        && let (Some(out), Some(slope)) = (T::bf16_values_mut(out), T::bf16_values_mut(slope))
    {
        return avx512.gelu_rows(block, columns, out, stride, slope);
    }
    let (mut values, mut slopes) = ([0.0; RUN], [0.0; RUN]);
    for (i, (block, out)) in block.chunks_exact(columns).zip(out.chunks_mut(stride)).enumerate() {
        for (j, (block, out)) in block.chunks(RUN).zip(out[..columns].chunks_mut(RUN)).enumerate() {
            let (values, slopes) = (&mut values[..block.len()], &mut slopes[..block.len()]);
            gelu(block, values, slopes);
            T::narrow(values, out);
            if !slope.is_empty() {
                T::narrow(slopes, &mut slope[i * columns + j * RUN..][..block.len()]);
            }
        }
    }
}

/// Specification of [`gelu_rows`].
pub fn gelu_rows_naive<T: Dtype>(block: &[f32], columns: usize, out: &mut [T], stride: usize, slope: &mut [T]) {
    let [mut values, mut slopes] = [(); 2].map(|_| vec![0.0; block.len()]);
    gelu_naive(block, &mut values, &mut slopes);
    narrow_rows_naive(&values, columns, out, stride);
    slope.iter_mut().zip(slopes).for_each(|(slope, s)| *slope = T::narrowed(s));
}

/// Multiplies the gradient of a GELU's output by its slope and stores the product, the gradient of its input. Adds the
/// sums of the columns, which are the gradient of the bias before the GELU, to `sums`.
///
/// # Shapes
/// `block`, `slope` dense `[rows, columns]`; `sums` `[columns]`.
pub fn gelu_backward_rows<T: Dtype>(
    block: &[f32],
    slope: &[T],
    columns: usize,
    out: &mut [T],
    stride: usize,
    sums: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(avx512), Some(slope)) = (Avx512Bf16::detect(), T::bf16_values(slope))
        && let Some(out) = T::bf16_values_mut(out)
    {
        return avx512.gelu_backward_rows(block, slope, columns, out, stride, sums);
    }
    gelu_backward_rows_portable(block, slope, columns, out, stride, sums);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn gelu_backward_rows_portable<T: Dtype>(
    block: &[f32],
    slope: &[T],
    columns: usize,
    out: &mut [T],
    stride: usize,
    sums: &mut [f32],
) {
    let mut d = [0.0; RUN];
    let slopes = slope.chunks_exact(columns);
    for ((block, out), slope) in block.chunks_exact(columns).zip(out.chunks_mut(stride)).zip(slopes) {
        let runs = block.chunks(RUN).zip(slope.chunks(RUN)).zip(sums[..columns].chunks_mut(RUN));
        for (((block, slope), sums), out) in runs.zip(out[..columns].chunks_mut(RUN)) {
            let d = &mut d[..block.len()];
            for (((d, sum), block), slope) in d.iter_mut().zip(sums).zip(block).zip(slope) {
                *d = *block * slope.widened();
                *sum += *d;
            }
            T::narrow(d, out);
        }
    }
}

/// Specification of [`gelu_backward_rows`].
pub fn gelu_backward_rows_naive<T: Dtype>(
    block: &[f32],
    slope: &[T],
    columns: usize,
    out: &mut [T],
    stride: usize,
    sums: &mut [f32],
) {
    for i in 0..block.len() {
        let d = block[i] * slope[i].widened();
        out[i / columns * stride + i % columns] = T::narrowed(d);
        sums[i % columns] += d;
    }
}

/// Adds the sums of the first columns of stored rows, which are `stride` apart, to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_strided_column_sums<T: Dtype>(rows: &[T], stride: usize, sums: &mut [f32]) {
    for row in rows.chunks(stride) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.widened();
        }
    }
}

/// Specification of [`add_strided_column_sums`].
pub fn add_strided_column_sums_naive<T: Dtype>(rows: &[T], stride: usize, sums: &mut [f32]) {
    for j in 0..sums.len() {
        sums[j] += (0..rows.len().div_ceil(stride)).map(|i| rows[i * stride + j].widened()).sum::<f32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Bf16;
    use crate::testing::{assert_close, numbers};

    fn values<T: Dtype>(stored: &[T]) -> Vec<f32> {
        stored.iter().map(|v| v.widened()).collect()
    }

    fn check<T: Dtype>(tolerance: f32) {
        let (rows, stride) = (5, 60);
        for columns in [32, 37] {
            let block = numbers(rows * columns, 1);
            let slope: Vec<T> = numbers(block.len(), 2).into_iter().map(T::narrowed).collect();
            let filled = |len: usize| [(); 2].map(|_| vec![T::narrowed(0.5); len]); // values between rows must stay
            let [mut fast, mut naive] = filled(rows * stride);

            narrow_rows(&block, columns, &mut fast, stride);
            narrow_rows_naive(&block, columns, &mut naive, stride);
            assert_eq!(fast, naive);

            copy_rows(&slope, columns, &mut fast, stride);
            copy_rows_naive(&slope, columns, &mut naive, stride);
            assert_eq!(fast, naive);

            let [mut slope_fast, mut slope_naive] = filled(block.len());
            gelu_rows(&block, columns, &mut fast, stride, &mut slope_fast);
            gelu_rows_naive(&block, columns, &mut naive, stride, &mut slope_naive);
            assert_close(&values(&fast), &values(&naive), tolerance);
            assert_close(&values(&slope_fast), &values(&slope_naive), tolerance);
            let [mut alone, _] = filled(rows * stride);
            gelu_rows(&block, columns, &mut alone, stride, &mut []);
            assert_eq!(alone, fast);

            let [mut sums, mut sums_naive] = [(); 2].map(|_| numbers(columns, 3));
            gelu_backward_rows(&block, &slope, columns, &mut fast, stride, &mut sums);
            gelu_backward_rows_naive(&block, &slope, columns, &mut naive, stride, &mut sums_naive);
            assert_close(&values(&fast), &values(&naive), tolerance);
            assert_close(&sums, &sums_naive, 1e-6);

            add_strided_column_sums(&naive, stride, &mut sums);
            add_strided_column_sums_naive(&naive, stride, &mut sums_naive);
            assert_close(&sums, &sums_naive, 1e-6);
        }
    }

    #[test]
    fn epilogues_equal_naive() {
        check::<f32>(1e-6);
        check::<Bf16>(4e-3); // 8 bits of mantissa
    }
}
