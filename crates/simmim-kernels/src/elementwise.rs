//! Small passes over slices: bias, scale, residual, column sums, sum of squares.

use multiversion::multiversion;

/// Adds `bias` `[columns]` to each row of `x`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (x, b) in row.iter_mut().zip(bias) {
            *x += *b;
        }
    }
}

/// `a *= b`, element by element.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn multiply(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter_mut().zip(b) {
        *a *= *b;
    }
}

/// `a += factor·b`, element by element.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_scaled(a: &mut [f32], factor: f32, b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * *b;
    }
}

/// `y = x + factor·scale·f` for each row: a residual branch with layer scale and drop path.
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

/// Adds the sum of the rows of `x` to `sums` `[columns]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += *x;
        }
    }
}

/// Adds `Σ_rows a·b` to `sums` `[columns]`: the gradient of a per-column scale.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_column_dots(a: &[f32], b: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
        for i in 0..width {
            sums[i] += a[i] * b[i];
        }
    }
}

/// Sum of squares, accumulated in f64.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let chunks = x.chunks_exact(16);
    let rest: f64 = chunks.remainder().iter().map(|v| (*v as f64) * (*v as f64)).sum();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i] as f64 * chunk[i] as f64;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn rows_and_columns_equal_index_arithmetic() {
        let (rows, width) = (7, 37);
        let (a, b, c) = (numbers(rows * width, 1), numbers(rows * width, 2), numbers(width, 3));
        let column = |f: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            (0..width).map(|j| (0..rows).map(|i| f(i, j)).sum::<f32>()).collect()
        };
        let table =
            |f: &dyn Fn(usize, usize) -> f32| -> Vec<f32> { (0..rows * width).map(|i| f(i, i % width)).collect() };

        let mut x = a.clone();
        add_bias(&mut x, &c);
        assert_close(&x, &table(&|i, j| a[i] + c[j]), 1e-6);

        let mut x = a.clone();
        multiply(&mut x, &b);
        assert_close(&x, &table(&|i, _| a[i] * b[i]), 1e-6);

        let mut x = a.clone();
        add_scaled(&mut x, -0.5, &b);
        assert_close(&x, &table(&|i, _| a[i] - 0.5 * b[i]), 1e-6);

        let mut y = vec![0.0; a.len()];
        add_residual(&a, &b, &c, 2.0, &mut y);
        assert_close(&y, &table(&|i, j| a[i] + 2.0 * c[j] * b[i]), 1e-6);

        let mut sums = vec![0.0; width];
        add_column_sums(&a, &mut sums);
        assert_close(&sums, &column(&|i, j| a[i * width + j]), 1e-6);

        let mut sums = vec![0.0; width];
        add_column_dots(&a, &b, &mut sums);
        assert_close(&sums, &column(&|i, j| a[i * width + j] * b[i * width + j]), 1e-6);

        let expected: f64 = a.iter().map(|v| (*v as f64).powi(2)).sum();
        assert!((sum_of_squares(&a) - expected).abs() < 1e-9);
    }
}
