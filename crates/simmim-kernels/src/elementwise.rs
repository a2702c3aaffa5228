//! Small passes over slices: bias, scale, residual, moving average, sums of columns, sum of squares.

use crate::product::fetch;
use multiversion::multiversion;

/// Adds `bias` to each row of `x`.
///
/// # Shapes
/// `x` `[rows, columns]`; `bias` `[columns]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (x, b) in row.iter_mut().zip(bias) {
            *x += *b;
        }
    }
}

/// Specification of [`add_bias`].
pub fn add_bias_naive(x: &mut [f32], bias: &[f32]) {
    for i in 0..x.len() {
        x[i] += bias[i % bias.len()];
    }
}

/// `a = a·b`, element by element.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn multiply(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter_mut().zip(b) {
        *a *= *b;
    }
}

/// Specification of [`multiply`].
pub fn multiply_naive(a: &mut [f32], b: &[f32]) {
    for i in 0..a.len() {
        a[i] *= b[i];
    }
}

/// `a = a + factor·b`, element by element.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_scaled(a: &mut [f32], factor: f32, b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * *b;
    }
}

/// Specification of [`add_scaled`], in f64.
pub fn add_scaled_naive(a: &mut [f32], factor: f32, b: &[f32]) {
    for i in 0..a.len() {
        a[i] = (a[i] as f64 + factor as f64 * b[i] as f64) as f32;
    }
}

/// `a = a + share·(b − a)`, element by element: `a` is a moving average of `b`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn move_towards(a: &mut [f32], share: f32, b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter_mut().zip(b) {
        *a += share * (*b - *a);
    }
}

/// Specification of [`move_towards`], in f64.
pub fn move_towards_naive(a: &mut [f32], share: f32, b: &[f32]) {
    for i in 0..a.len() {
        a[i] = (a[i] as f64 + share as f64 * (b[i] as f64 - a[i] as f64)) as f32;
    }
}

/// `y = x + factor·scale·f` for each row: adds a residual branch `f` with its layer scale and the factor of drop path.
///
/// # Shapes
/// `x`, `f`, `y` `[rows, D]`; `scale` `[D]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_residual(x: &[f32], f: &[f32], scale: &[f32], factor: f32, y: &mut [f32]) {
    let width = scale.len();
    assert!(x.len() == f.len() && x.len() == y.len());
    for ((x, f), y) in x.chunks_exact(width).zip(f.chunks_exact(width)).zip(y.chunks_exact_mut(width)) {
        for i in 0..width {
            y[i] = x[i] + factor * scale[i] * f[i];
        }
    }
}

/// Specification of [`add_residual`], in f64.
pub fn add_residual_naive(x: &[f32], f: &[f32], scale: &[f32], factor: f32, y: &mut [f32]) {
    for i in 0..y.len() {
        y[i] = (x[i] as f64 + factor as f64 * scale[i % scale.len()] as f64 * f[i] as f64) as f32;
    }
}

/// Adds the sum of each column of `x` to `sums`: the gradient of a bias.
///
/// # Shapes
/// `x` `[rows, columns]`; `sums` `[columns]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += *x;
        }
    }
}

/// Specification of [`add_column_sums`], each sum in f64.
pub fn add_column_sums_naive(x: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    for j in 0..columns {
        sums[j] += (0..x.len() / columns).map(|i| x[i * columns + j] as f64).sum::<f64>() as f32;
    }
}

/// Adds the dot product of each column of `a` and of `b` to `sums`: the gradient of a scale per column.
///
/// # Shapes
/// `a`, `b` `[rows, columns]`; `sums` `[columns]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_column_dots(a: &[f32], b: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
        for i in 0..width {
            sums[i] += a[i] * b[i];
        }
    }
}

/// Specification of [`add_column_dots`], each sum in f64.
pub fn add_column_dots_naive(a: &[f32], b: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    for j in 0..columns {
        let product = |i: usize| a[i * columns + j] as f64 * b[i * columns + j] as f64;
        sums[j] += (0..a.len() / columns).map(product).sum::<f64>() as f32;
    }
}

/// Values that [`sum_of_squares`] fetches ahead of those that it reads, 8 KiB. It reads all gradients, which lie in memory, and
/// the hardware fetches ahead only within a page: without this it reads half as fast.
const AHEAD: usize = 2048;

/// Sum of squares, accumulated in f64.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let chunks = x.chunks_exact(16);
    let rest: f64 = chunks.remainder().iter().map(|v| (*v as f64) * (*v as f64)).sum();
    for chunk in chunks {
        fetch(chunk.as_ptr().wrapping_add(AHEAD).cast());
        for i in 0..16 {
            lanes[i] += chunk[i] as f64 * chunk[i] as f64;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Specification of [`sum_of_squares`].
pub fn sum_of_squares_naive(x: &[f32]) -> f64 {
    x.iter().map(|v| (*v as f64).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn rows_and_columns_equal_naive() {
        let (rows, width) = (7, 37);
        let (a, b, c) = (numbers(rows * width, 1), numbers(rows * width, 2), numbers(width, 3));
        let check = |start: &[f32], fast: &dyn Fn(&mut [f32]), naive: &dyn Fn(&mut [f32])| {
            let (mut got, mut expected) = (start.to_vec(), start.to_vec());
            fast(&mut got);
            naive(&mut expected);
            assert_close(&got, &expected, 1e-6);
        };
        check(&a, &|x| add_bias(x, &c), &|x| add_bias_naive(x, &c));
        check(&a, &|x| multiply(x, &b), &|x| multiply_naive(x, &b));
        check(&a, &|x| add_scaled(x, -0.5, &b), &|x| add_scaled_naive(x, -0.5, &b));
        check(&a, &|x| move_towards(x, 0.25, &b), &|x| move_towards_naive(x, 0.25, &b));
        check(&a, &|y| add_residual(&a, &b, &c, 2.0, y), &|y| add_residual_naive(&a, &b, &c, 2.0, y));
        check(&c, &|sums| add_column_sums(&a, sums), &|sums| add_column_sums_naive(&a, sums));
        check(&c, &|sums| add_column_dots(&a, &b, sums), &|sums| add_column_dots_naive(&a, &b, sums));
        assert!((sum_of_squares(&a) - sum_of_squares_naive(&a)).abs() < 1e-9);
    }
}
