//! Layer normalization over the last axis (arXiv:1607.06450), forward and backward.
//!
//! The forward kernel returns the mean and the reciprocal standard deviation of each row, which are saved for backward.
//! The backward kernel recomputes the normalized row from them and the input, or from what [`restored_rows`] puts in the
//! input's place where the normalized rows were saved instead, since they take half as much in bf16.

use crate::dtype::Dtype;
#[cfg(target_arch = "x86_64")]
use crate::instructions::Avx512;
use crate::math::mul_add;
use crate::reductions::{dot, sum};
use multiversion::{multiversion, target::target_cfg_f};

/// Mean and reciprocal standard deviation of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStatistics {
    /// Mean of the row.
    pub mean: f32,
    /// `1 / sqrt(variance + eps)`, with the biased variance.
    pub rstd: f32,
}

/// `y = (x − mean)·rstd·weight + bias` for each row.
///
/// # Shapes
/// `x`, `y` `[rows, D]`; `weight`, `bias` `[D]`; `statistics` `[rows]`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32], statistics: &mut [RowStatistics]) {
    assert_eq!(weight.len(), bias.len());
    assert_eq!(x.len(), y.len());
    assert_eq!(x.len(), statistics.len() * weight.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return avx512.layer_norm(x, weight, bias, eps, y, statistics);
    }
    layer_norm_portable(x, weight, bias, eps, y, statistics);
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn layer_norm_portable(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
    statistics: &mut [RowStatistics],
) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    let width = weight.len();
    let ones_over_width = 1.0 / width as f32;
    for ((x, y), statistics) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(statistics) {
        let mean = sum(x) * ones_over_width;
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x - mean;
        }
        let rstd = 1.0 / (dot::<FUSED>(y, y) * ones_over_width + eps).sqrt();
        for i in 0..width {
            y[i] = mul_add::<FUSED>(y[i] * rstd, weight[i], bias[i]);
        }
        *statistics = RowStatistics { mean, rstd };
    }
}

/// Specification of [`layer_norm`].
pub fn layer_norm_naive(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
    statistics: &mut [RowStatistics],
) {
    let width = weight.len();
    for row in 0..statistics.len() {
        let x = &x[row * width..][..width];
        let mean = x.iter().map(|v| *v as f64).sum::<f64>() / width as f64;
        let variance = x.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / width as f64;
        let rstd = 1.0 / (variance + eps as f64).sqrt();
        for i in 0..width {
            y[row * width + i] = ((x[i] as f64 - mean) * rstd * weight[i] as f64 + bias[i] as f64) as f32;
        }
        statistics[row] = RowStatistics { mean: mean as f32, rstd: rstd as f32 };
    }
}

/// The normalized rows `(x − mean)·rstd` before weight and bias, in the type that activations are stored in.
///
/// # Shapes
/// `x`, `out` `[rows, D]`; `statistics` `[rows]`, those of `x`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn normalized_rows<T: Dtype>(x: &[f32], statistics: &[RowStatistics], out: &mut [T]) {
    assert_eq!(x.len(), out.len());
    let width = (x.len() / statistics.len().max(1)).max(1);
    assert_eq!(x.len(), statistics.len() * width);
    let mut row = vec![0.0; width];
    for ((x, out), s) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(statistics) {
        for (normalized, x) in row.iter_mut().zip(x) {
            *normalized = (*x - s.mean) * s.rstd;
        }
        T::narrow(&row, out);
    }
}

/// Specification of [`normalized_rows`].
pub fn normalized_rows_naive<T: Dtype>(x: &[f32], statistics: &[RowStatistics], out: &mut [T]) {
    let width = x.len() / statistics.len();
    for (i, out) in out.iter_mut().enumerate() {
        let s = statistics[i / width];
        *out = T::narrowed(((x[i] as f64 - s.mean as f64) * s.rstd as f64) as f32);
    }
}

/// What [`layer_norm`] read and wrote, from its normalized rows: `y`, and `x − mean`. The backward pass takes that as its `x`,
/// with statistics of mean zero.
///
/// # Shapes
/// `normalized`, `x`, `y` `[rows, D]`; `weight`, `bias` `[D]`; `statistics` `[rows]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn restored_rows<T: Dtype>(
    normalized: &[T],
    weight: &[f32],
    bias: &[f32],
    statistics: &[RowStatistics],
    x: &mut [f32],
    y: &mut [f32],
) {
    let width = weight.len();
    assert!(bias.len() == width && normalized.len() == statistics.len() * width);
    assert!(x.len() == normalized.len() && y.len() == normalized.len());
    T::widen(normalized, x);
    for ((x, y), s) in x.chunks_exact_mut(width).zip(y.chunks_exact_mut(width)).zip(statistics) {
        let std = 1.0 / s.rstd;
        for (((x, y), weight), bias) in x.iter_mut().zip(y).zip(weight).zip(bias) {
            *y = *x * *weight + *bias;
            *x *= std;
        }
    }
}

/// Specification of [`restored_rows`].
pub fn restored_rows_naive<T: Dtype>(
    normalized: &[T],
    weight: &[f32],
    bias: &[f32],
    statistics: &[RowStatistics],
    x: &mut [f32],
    y: &mut [f32],
) {
    let width = weight.len();
    for (i, normalized) in normalized.iter().enumerate() {
        let normalized = normalized.widened() as f64;
        x[i] = (normalized / statistics[i / width].rstd as f64) as f32;
        y[i] = (normalized * weight[i % width] as f64 + bias[i % width] as f64) as f32;
    }
}

/// Adds the gradients of [`layer_norm`] with respect to `x`, `weight` and `bias` to `d_x`, `d_weight` and `d_bias`.
///
/// # Shapes
/// `x`, `d_y`, `d_x` `[rows, D]`; `weight`, `d_weight`, `d_bias` `[D]`; `statistics` `[rows]`.
pub fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    statistics: &[RowStatistics],
    d_y: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let width = weight.len();
    assert_eq!(x.len(), statistics.len() * width);
    assert!(d_y.len() == x.len() && d_x.len() == x.len());
    assert!(d_weight.len() == width && d_bias.len() == width);
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return avx512.layer_norm_backward(x, weight, statistics, d_y, d_x, d_weight, d_bias);
    }
    layer_norm_backward_portable(x, weight, statistics, d_y, d_x, d_weight, d_bias);
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn layer_norm_backward_portable(
    x: &[f32],
    weight: &[f32],
    statistics: &[RowStatistics],
    d_y: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    let width = weight.len();
    let ones_over_width = 1.0 / width as f32;
    // the normalized row x̂ and g = d_y·weight; then d_x += rstd·(g − mean(g) − x̂·mean(g·x̂))
    let (mut normalized, mut g) = (vec![0.0; width], vec![0.0; width]);
    for (row, s) in statistics.iter().enumerate() {
        let x = &x[row * width..][..width];
        let d_y = &d_y[row * width..][..width];
        let d_x = &mut d_x[row * width..][..width];
        for i in 0..width {
            normalized[i] = (x[i] - s.mean) * s.rstd;
            g[i] = d_y[i] * weight[i];
            d_weight[i] = mul_add::<FUSED>(d_y[i], normalized[i], d_weight[i]);
            d_bias[i] += d_y[i];
        }
        let mean_g = sum(&g) * ones_over_width;
        let mean_gx = dot::<FUSED>(&g, &normalized) * ones_over_width;
        for i in 0..width {
            let centered = mul_add::<FUSED>(normalized[i], -mean_gx, g[i] - mean_g);
            d_x[i] = mul_add::<FUSED>(s.rstd, centered, d_x[i]);
        }
    }
}

/// Specification of [`layer_norm_backward`].
pub fn layer_norm_backward_naive(
    x: &[f32],
    weight: &[f32],
    statistics: &[RowStatistics],
    d_y: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let width = weight.len();
    for (row, s) in statistics.iter().enumerate() {
        let at = |i: usize| row * width + i;
        let hat = |i: usize| (x[at(i)] as f64 - s.mean as f64) * s.rstd as f64;
        let g = |i: usize| d_y[at(i)] as f64 * weight[i] as f64;
        let mean_g = (0..width).map(g).sum::<f64>() / width as f64;
        let mean_gx = (0..width).map(|i| g(i) * hat(i)).sum::<f64>() / width as f64;
        for i in 0..width {
            d_weight[i] += (d_y[at(i)] as f64 * hat(i)) as f32;
            d_bias[i] += d_y[at(i)];
            d_x[at(i)] += (s.rstd as f64 * (g(i) - mean_g - hat(i) * mean_gx)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Bf16;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn layer_norm_and_its_backward_equal_naive() {
        for (rows, width) in [(1, 1), (3, 36), (5, 192), (2, 200)] {
            let x: Vec<f32> = numbers(rows * width, 1).iter().map(|v| 3.0 + 2.0 * v).collect();
            let (weight, bias) = (numbers(width, 2), numbers(width, 3));
            let mut expected = vec![0.0; x.len()];
            let mut s_naive = vec![RowStatistics::default(); rows];
            layer_norm_naive(&x, &weight, &bias, 1e-6, &mut expected, &mut s_naive);
            let d_y = numbers(x.len(), 4);
            let sums = || (numbers(x.len(), 5), numbers(width, 6), numbers(width, 7));
            let (mut e_x, mut e_w, mut e_b) = sums();
            layer_norm_backward_naive(&x, &weight, &s_naive, &d_y, &mut e_x, &mut e_w, &mut e_b);

            for kernel in [layer_norm, layer_norm_portable] {
                let (mut y, mut s) = (vec![0.0; x.len()], vec![RowStatistics::default(); rows]);
                kernel(&x, &weight, &bias, 1e-6, &mut y, &mut s);
                if width > 1 {
                    assert_close(&y, &expected, 5e-6);
                }
            }
            for kernel in [layer_norm_backward, layer_norm_backward_portable] {
                let (mut d_x, mut d_w, mut d_b) = sums();
                kernel(&x, &weight, &s_naive, &d_y, &mut d_x, &mut d_w, &mut d_b);
                assert_close(&d_x, &e_x, 5e-6);
                assert_close(&d_w, &e_w, 5e-6);
                assert_close(&d_b, &e_b, 5e-6);
            }
        }
    }

    fn check_normalized<T: Dtype>(tolerance: f32) {
        let values = |stored: &[T]| stored.iter().map(|v| v.widened()).collect::<Vec<_>>();
        for (rows, width) in [(1, 7), (3, 36), (5, 192)] {
            let x: Vec<f32> = numbers(rows * width, 1).iter().map(|v| 3.0 + 2.0 * v).collect();
            let (weight, bias) = (numbers(width, 2), numbers(width, 3));
            let (mut y, mut statistics) = (vec![0.0; x.len()], vec![RowStatistics::default(); rows]);
            layer_norm_naive(&x, &weight, &bias, 1e-6, &mut y, &mut statistics);
            let [mut fast, mut naive] = [(); 2].map(|_| vec![T::default(); x.len()]);
            normalized_rows(&x, &statistics, &mut fast);
            normalized_rows_naive(&x, &statistics, &mut naive);
            assert_close(&values(&fast), &values(&naive), tolerance);

            let [mut fast_x, mut fast_y, mut naive_x, mut naive_y] = [(); 4].map(|_| vec![9.0; x.len()]);
            restored_rows(&naive, &weight, &bias, &statistics, &mut fast_x, &mut fast_y);
            restored_rows_naive(&naive, &weight, &bias, &statistics, &mut naive_x, &mut naive_y);
            assert_close(&fast_x, &naive_x, 1e-6);
            assert_close(&fast_y, &naive_y, 1e-6);
            let centered: Vec<_> = x.iter().enumerate().map(|(i, x)| x - statistics[i / width].mean).collect();
            assert_close(&fast_x, &centered, tolerance);
            assert_close(&fast_y, &y, tolerance);
        }
    }

    #[test]
    fn normalized_rows_give_back_input_and_output() {
        check_normalized::<f32>(2e-6);
        check_normalized::<Bf16>(4e-3); // 8 bits of mantissa
    }

    #[test]
    fn backward_of_restored_rows_is_that_of_the_input() {
        let (rows, width) = (3, 36);
        let x: Vec<f32> = numbers(rows * width, 1).iter().map(|v| 3.0 + 2.0 * v).collect();
        let (weight, bias, d_y) = (numbers(width, 2), numbers(width, 3), numbers(x.len(), 4));
        let (mut y, mut statistics) = (vec![0.0; x.len()], vec![RowStatistics::default(); rows]);
        layer_norm(&x, &weight, &bias, 1e-6, &mut y, &mut statistics);
        let gradients = |x: &[f32], statistics: &[RowStatistics]| {
            let (mut d_x, mut d_weight, mut d_bias) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
            layer_norm_backward(x, &weight, statistics, &d_y, &mut d_x, &mut d_weight, &mut d_bias);
            [d_x, d_weight, d_bias].concat()
        };
        let (mut normalized, mut restored) = (vec![0.0f32; x.len()], vec![0.0; x.len()]);
        normalized_rows(&x, &statistics, &mut normalized);
        restored_rows(&normalized, &weight, &bias, &statistics, &mut restored, &mut y);
        let centered: Vec<_> = statistics.iter().map(|s| RowStatistics { mean: 0.0, ..*s }).collect();
        assert_close(&gradients(&restored, &centered), &gradients(&x, &statistics), 5e-6);
    }
}
