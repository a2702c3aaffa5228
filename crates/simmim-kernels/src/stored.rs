//! Between f32 results and rows of stored operands: the passes behind a product, while its block of the
//! result is in cache.
//!
//! A block is dense `[rows, columns]`; it goes to, or comes from, rows that are `stride` apart. Pass the
//! slice from the block's first column on.

use crate::element::Element;
use crate::gelu::{gelu, gelu_naive};
use multiversion::multiversion;

/// Results that wait for rounding at a time: a few vectors.
const RUN: usize = 96;

/// Stores a block.
pub fn narrow_rows<E: Element>(block: &[f32], columns: usize, out: &mut [E], stride: usize) {
    for (block, out) in block.chunks_exact(columns).zip(out.chunks_mut(stride)) {
        E::narrow(block, &mut out[..columns]);
    }
}

/// Specification of [`narrow_rows`].
pub fn narrow_rows_naive<E: Element>(block: &[f32], columns: usize, out: &mut [E], stride: usize) {
    for (i, value) in block.iter().enumerate() {
        out[i / columns * stride + i % columns] = E::of(*value);
    }
}

/// Copies dense rows to rows that are `stride` apart.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn copy_rows<E: Element>(rows: &[E], columns: usize, out: &mut [E], stride: usize) {
    // the usual head widths by name: a row is then a few loads and stores, not a call
    match columns {
        32 => copy_runs::<E, 32>(rows, out, stride),
        64 => copy_runs::<E, 64>(rows, out, stride),
        _ => {
            for (row, out) in rows.chunks_exact(columns).zip(out.chunks_mut(stride)) {
                out[..columns].copy_from_slice(row);
            }
        }
    }
}

/// Specification of [`copy_rows`].
pub fn copy_rows_naive<E: Element>(rows: &[E], columns: usize, out: &mut [E], stride: usize) {
    for (i, value) in rows.iter().enumerate() {
        out[i / columns * stride + i % columns] = *value;
    }
}

#[inline(always)]
fn copy_runs<E: Element, const COLUMNS: usize>(rows: &[E], out: &mut [E], stride: usize) {
    for (row, out) in rows.as_chunks::<COLUMNS>().0.iter().zip(out.chunks_mut(stride)) {
        if let Some(out) = out.first_chunk_mut() {
            *out = *row;
        }
    }
}

/// Stores the GELU of a block, and its slope, dense, unless `slope` is empty.
pub fn gelu_rows<E: Element>(block: &[f32], columns: usize, out: &mut [E], stride: usize, slope: &mut [E]) {
    let (mut values, mut slopes) = ([0.0; RUN], [0.0; RUN]);
    for (i, (block, out)) in block.chunks_exact(columns).zip(out.chunks_mut(stride)).enumerate() {
        for (j, (block, out)) in block.chunks(RUN).zip(out[..columns].chunks_mut(RUN)).enumerate() {
            let (values, slopes) = (&mut values[..block.len()], &mut slopes[..block.len()]);
            gelu(block, values, slopes);
            E::narrow(values, out);
            if !slope.is_empty() {
                E::narrow(slopes, &mut slope[i * columns + j * RUN..][..block.len()]);
            }
        }
    }
}

/// Specification of [`gelu_rows`].
pub fn gelu_rows_naive<E: Element>(block: &[f32], columns: usize, out: &mut [E], stride: usize, slope: &mut [E]) {
    let [mut values, mut slopes] = [(); 2].map(|_| vec![0.0; block.len()]);
    gelu_naive(block, &mut values, &mut slopes);
    narrow_rows_naive(&values, columns, out, stride);
    slope.iter_mut().zip(slopes).for_each(|(slope, s)| *slope = E::of(s));
}

/// Stores `block·slope` and adds its column sums, the gradient of a bias, to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn multiply_rows<E: Element>(
    block: &[f32],
    slope: &[E],
    columns: usize,
    out: &mut [E],
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
                *d = *block * slope.value();
                *sum += *d;
            }
            E::narrow(d, out);
        }
    }
}

/// Specification of [`multiply_rows`].
pub fn multiply_rows_naive<E: Element>(
    block: &[f32],
    slope: &[E],
    columns: usize,
    out: &mut [E],
    stride: usize,
    sums: &mut [f32],
) {
    for i in 0..block.len() {
        let d = block[i] * slope[i].value();
        out[i / columns * stride + i % columns] = E::of(d);
        sums[i % columns] += d;
    }
}

/// Adds the column sums of stored rows to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_column_sums_of<E: Element>(rows: &[E], stride: usize, sums: &mut [f32]) {
    for row in rows.chunks(stride) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.value();
        }
    }
}

/// Specification of [`add_column_sums_of`].
pub fn add_column_sums_of_naive<E: Element>(rows: &[E], stride: usize, sums: &mut [f32]) {
    for j in 0..sums.len() {
        sums[j] += (0..rows.len().div_ceil(stride)).map(|i| rows[i * stride + j].value()).sum::<f32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Bf16;
    use crate::testing::{assert_close, numbers};

    fn values<E: Element>(stored: &[E]) -> Vec<f32> {
        stored.iter().map(|v| v.value()).collect()
    }

    fn check<E: Element>(tolerance: f32) {
        let (rows, stride) = (5, 60);
        for columns in [32, 37] {
            let block = numbers(rows * columns, 1);
            let slope: Vec<E> = numbers(block.len(), 2).into_iter().map(E::of).collect();
            let filled = |len: usize| [(); 2].map(|_| vec![E::of(0.5); len]); // what lies between rows stays
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
            multiply_rows(&block, &slope, columns, &mut fast, stride, &mut sums);
            multiply_rows_naive(&block, &slope, columns, &mut naive, stride, &mut sums_naive);
            assert_close(&values(&fast), &values(&naive), tolerance);
            assert_close(&sums, &sums_naive, 1e-6);

            add_column_sums_of(&naive, stride, &mut sums);
            add_column_sums_of_naive(&naive, stride, &mut sums_naive);
            assert_close(&sums, &sums_naive, 1e-6);
        }
    }

    #[test]
    fn passes_equal_naive() {
        check::<f32>(1e-6);
        check::<Bf16>(4e-3); // 8 bits of mantissa
    }
}
