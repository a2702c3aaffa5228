//! Packing operands of products: each value lands where the product will read it next.
//!
//! ```text
//! panels of B [K, N]: columns in groups of `panel` (the last one filled up with zeros)
//!     panel 0: b[0, 0..p] b[1, 0..p] … b[K-1, 0..p]   panel 1: b[0, p..2p] …
//! blocks of A [M, K]: rows in groups of `block` (the last one filled up with zeros)
//!     block 0: a[0..m, 0] a[0..m, 1] … a[0..m, K-1]   block 1: …
//! ```
//!
//! Blocks of A are the panels of Aᵀ with another width, so both are one function.

use crate::bf16::Operands;
use crate::matrix::Matrix;
use multiversion::multiversion;

/// Values of a packed `[depth, columns]` matrix in groups of `width` columns.
pub fn packed_len(depth: usize, columns: usize, width: usize) -> usize {
    columns.div_ceil(width) * depth * width
}

/// Packs groups `first ..` of `width` columns of `b`, as many as `panels` has room for.
///
/// # Panics
/// If `panels` is no whole number of groups, or longer than the matrix has columns.
pub fn pack(b: Matrix, width: usize, first: usize, operands: Operands, panels: &mut [f32]) {
    assert_eq!(panels.len() % (b.rows() * width).max(1), 0, "panels are packed whole");
    if b.column_stride() == 1 {
        pack_rows(b, width, first, panels);
    } else {
        pack_columns(b, width, first, panels);
    }
    operands.round(panels);
}

/// Specification of [`pack`].
pub fn pack_naive(b: Matrix, width: usize, first: usize, operands: Operands, panels: &mut [f32]) {
    for (at, value) in panels.iter_mut().enumerate() {
        let (group, inside) = (at / (b.rows() * width), at % (b.rows() * width));
        let (row, column) = (inside / width, (first + group) * width + inside % width);
        *value = if column < b.columns() { b.at(row, column) } else { 0.0 };
    }
    operands.round(panels);
}

/// Rows are contiguous: copy a run of each.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn pack_rows(b: Matrix, width: usize, first: usize, panels: &mut [f32]) {
    // the tiles' sizes by name: a run of known length is a few loads and stores, not a call
    match width {
        6 => pack_runs::<6>(b, first, panels),
        12 => pack_runs::<12>(b, first, panels),
        16 => pack_runs::<16>(b, first, panels),
        32 => pack_runs::<32>(b, first, panels),
        other => unreachable!("no tile has a side of {other}"),
    }
}

/// Rows that are packed into all panels before the next rows are read: few enough to stay in cache.
const ROWS_AT_ONCE: usize = 32;

#[inline(always)]
fn pack_runs<const WIDTH: usize>(b: Matrix, first: usize, panels: &mut [f32]) {
    let depth = b.rows();
    let panels = panels.as_chunks_mut::<WIDTH>().0; // one run of a row each
    for top in (0..depth).step_by(ROWS_AT_ONCE) {
        let rows = top..(top + ROWS_AT_ONCE).min(depth);
        for (group, panel) in panels.chunks_exact_mut(depth).enumerate() {
            let left = (first + group) * WIDTH;
            let used = WIDTH.min(b.columns() - left);
            for (out, row) in panel[rows.clone()].iter_mut().zip(rows.clone()) {
                let run = &b.data()[row * b.row_stride() + left..];
                match run.first_chunk::<WIDTH>() {
                    Some(run) if used == WIDTH => *out = *run,
                    _ => {
                        out[..used].copy_from_slice(&run[..used]);
                        out[used..].fill(0.0);
                    }
                }
            }
        }
    }
}

/// Columns are contiguous: transpose squares of `SQUARE` values, which stay in cache.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn pack_columns(b: Matrix, width: usize, first: usize, panels: &mut [f32]) {
    const SQUARE: usize = 8;
    for (group, panel) in panels.chunks_exact_mut(b.rows() * width).enumerate() {
        let left = (first + group) * width;
        let used = width.min(b.columns() - left);
        for (square, rows) in panel.chunks_mut(SQUARE * width).enumerate() {
            for j in 0..used {
                let start = (left + j) * b.column_stride() + square * SQUARE * b.row_stride();
                for i in 0..rows.len() / width {
                    rows[i * width + j] = b.data()[start + i * b.row_stride()];
                }
            }
            for row in rows.chunks_exact_mut(width) {
                row[used..].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn packing_equals_naive_for_both_orders_and_odd_sizes() {
        for (rows, columns) in [(1, 1), (5, 16), (9, 17), (33, 40), (64, 6)] {
            let data = numbers(rows * columns, 1);
            for width in [6, 16, 32] {
                for b in [Matrix::new(&data, rows, columns), Matrix::new(&data, columns, rows).transposed()] {
                    for first in 0..columns.div_ceil(width) {
                        let len = packed_len(rows, columns - first * width, width);
                        let (mut fast, mut naive) = (vec![9.0; len], vec![8.0; len]);
                        pack(b, width, first, Operands::Bf16, &mut fast);
                        pack_naive(b, width, first, Operands::Bf16, &mut naive);
                        assert_eq!(fast, naive, "{rows}×{columns}, width {width}, from {first}");
                    }
                }
            }
        }
    }
}
