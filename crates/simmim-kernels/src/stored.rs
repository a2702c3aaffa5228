//! Between f32 results and rows of stored operands: the passes behind a product, while its block of the
//! result is in cache.
//!
//! A block is dense `[rows, columns]`; it goes to, or comes from, rows that are `stride` apart. Pass the
//! slice from the block's first column on.

use crate::element::Element;
use crate::gelu::value_and_slope;
use multiversion::multiversion;

/// Stores a block.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn narrow_rows<E: Element>(block: &[f32], columns: usize, out: &mut [E], stride: usize) {
    for (block, out) in block.chunks_exact(columns).zip(out.chunks_mut(stride)) {
        for (out, value) in out.iter_mut().zip(block) {
            *out = E::of(*value);
        }
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

#[inline(always)]
fn copy_runs<E: Element, const COLUMNS: usize>(rows: &[E], out: &mut [E], stride: usize) {
    for (row, out) in rows.as_chunks::<COLUMNS>().0.iter().zip(out.chunks_mut(stride)) {
        if let Some(out) = out.first_chunk_mut() {
            *out = *row;
        }
    }
}

/// Stores the GELU of a block, and its slope, dense, unless `slope` is empty.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn gelu_rows<E: Element>(block: &[f32], columns: usize, out: &mut [E], stride: usize, slope: &mut [E]) {
    if slope.is_empty() {
        for (block, out) in block.chunks_exact(columns).zip(out.chunks_mut(stride)) {
            for (out, value) in out.iter_mut().zip(block) {
                *out = E::of(value_and_slope(*value).0);
            }
        }
        return;
    }
    let slopes = slope.chunks_exact_mut(columns);
    for ((block, out), slope) in block.chunks_exact(columns).zip(out.chunks_mut(stride)).zip(slopes) {
        for ((out, slope), value) in out.iter_mut().zip(slope).zip(block) {
            let (value, s) = value_and_slope(*value);
            (*out, *slope) = (E::of(value), E::of(s));
        }
    }
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
    let sums = &mut sums[..columns];
    let slopes = slope.chunks_exact(columns);
    for ((block, out), slope) in block.chunks_exact(columns).zip(out.chunks_mut(stride)).zip(slopes) {
        let out = &mut out[..columns];
        for i in 0..columns {
            let d = block[i] * slope[i].value();
            sums[i] += d;
            out[i] = E::of(d);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Bf16;
    use crate::gelu::gelu_with_slope_naive;
    use crate::testing::{assert_close, numbers};

    fn values<E: Element>(stored: &[E]) -> Vec<f32> {
        stored.iter().map(|v| v.value()).collect()
    }

    fn check<E: Element>(tolerance: f32) {
        let (rows, columns, stride) = (5, 37, 60);
        let block = numbers(rows * columns, 1);
        let placed = |f: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..rows * stride)
                .map(|i| if i % stride < columns { f(i / stride * columns + i % stride) } else { 0.0 })
                .collect()
        };
        let mut out = vec![E::default(); rows * stride];
        narrow_rows(&block, columns, &mut out, stride);
        assert_close(&values(&out), &placed(&|i| block[i]), tolerance);

        for columns in [32, 37] {
            let rows = vec![E::of(0.5); rows * columns];
            let mut copied = vec![E::default(); out.len()];
            copy_rows(&rows, columns, &mut copied, stride);
            let at = |i: usize| if i % stride < columns { 0.5 } else { 0.0 };
            assert_eq!(values(&copied), (0..out.len()).map(at).collect::<Vec<_>>());
        }

        let (mut gelu, mut slope) = (block.clone(), vec![0.0; block.len()]);
        gelu_with_slope_naive(&mut gelu, &mut slope);
        let mut stored_slope = vec![E::default(); block.len()];
        gelu_rows(&block, columns, &mut out, stride, &mut stored_slope);
        assert_close(&values(&out), &placed(&|i| gelu[i]), tolerance);
        assert_close(&values(&stored_slope), &slope, tolerance);
        let mut alone = vec![E::default(); rows * stride];
        gelu_rows(&block, columns, &mut alone, stride, &mut []);
        assert_eq!(alone, out);

        let mut sums = vec![0.0; columns];
        multiply_rows(&block, &stored_slope, columns, &mut out, stride, &mut sums);
        let product = |i: usize| block[i] * stored_slope[i].value();
        assert_close(&values(&out), &placed(&product), tolerance);
        let expected: Vec<f32> = (0..columns).map(|j| (0..rows).map(|i| product(i * columns + j)).sum()).collect();
        assert_close(&sums, &expected, 1e-6);

        let mut sums = vec![0.0; columns];
        add_column_sums_of(&out, stride, &mut sums);
        let expected: Vec<f32> = (0..columns).map(|j| (0..rows).map(|i| out[i * stride + j].value()).sum()).collect();
        assert_close(&sums, &expected, 1e-6);
    }

    #[test]
    fn blocks_equal_index_arithmetic() {
        check::<f32>(1e-6);
        check::<Bf16>(4e-3); // 8 bits of mantissa
    }
}
