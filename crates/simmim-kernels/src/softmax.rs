//! Softmax over rows, forward and backward.

#[cfg(target_arch = "x86_64")]
use crate::instructions::Avx512;
use crate::math::softmax_exp;
use crate::reductions::{dot, max, sum};
use multiversion::{multiversion, target::target_cfg_f};

/// Replaces each row of `x` by its softmax. NaN or infinity in a row leaves NaN in that row, so that it cannot go
/// unnoticed. A value that is lower than the largest of its row by more than 80 becomes zero.
///
/// # Shapes
/// `x` `[rows, columns]`, each row with what follows it up to the next one, `stride` values later.
///
/// # Panics
/// If rows overlap, or are empty.
pub fn softmax(x: &mut [f32], stride: usize, columns: usize) {
    assert!(
        0 < columns && columns <= stride && x.len().is_multiple_of(stride),
        "rows of {columns} values, {stride} apart"
    );
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return avx512.softmax(x, stride, columns);
    }
    softmax_portable(x, stride, columns);
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn softmax_portable(x: &mut [f32], stride: usize, columns: usize) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for row in x.chunks_exact_mut(stride) {
        let row = &mut row[..columns];
        let largest = max(row);
        for v in row.iter_mut() {
            *v = softmax_exp::<FUSED>(*v - largest);
        }
        let inverse = 1.0 / sum(row);
        for v in row {
            *v *= inverse;
        }
    }
}

/// Specification of [`softmax`].
pub fn softmax_naive(x: &mut [f32], stride: usize, columns: usize) {
    for row in x.chunks_exact_mut(stride) {
        let row = &mut row[..columns];
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let total: f64 = row.iter().map(|v| (*v as f64 - largest).exp()).sum();
        for v in row {
            *v = ((*v as f64 - largest).exp() / total) as f32;
        }
    }
}

/// Replaces `d_p`, the gradient of the softmax `p`, by that of the scores: `d_s = p·(d_p − Σ p·d_p)` in each row.
///
/// # Shapes
/// `p`, `d_p` `[rows, columns]`.
pub fn softmax_backward(p: &[f32], d_p: &mut [f32], columns: usize) {
    assert_eq!(p.len(), d_p.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return avx512.softmax_backward(p, d_p, columns);
    }
    softmax_backward_portable(p, d_p, columns);
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn softmax_backward_portable(p: &[f32], d_p: &mut [f32], columns: usize) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for (p, d) in p.chunks_exact(columns).zip(d_p.chunks_exact_mut(columns)) {
        let dot = dot::<FUSED>(p, d);
        for (d, p) in d.iter_mut().zip(p) {
            *d = *p * (*d - dot);
        }
    }
}

/// Specification of [`softmax_backward`]: a product with the Jacobian, whose elements are `p_i·(δ_ij − p_j)`.
pub fn softmax_backward_naive(p: &[f32], d_p: &mut [f32], columns: usize) {
    for (p, d) in p.chunks_exact(columns).zip(d_p.chunks_exact_mut(columns)) {
        let gradient: Vec<f32> = (0..columns)
            .map(|j| {
                (0..columns)
                    .map(|i| {
                        let delta = if i == j { 1.0 } else { 0.0 };
                        d[i] as f64 * p[i] as f64 * (delta - p[j] as f64)
                    })
                    .sum::<f64>() as f32
            })
            .collect();
        d.copy_from_slice(&gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    type BackwardKernel = fn(&[f32], &mut [f32], usize);

    #[test]
    fn softmax_and_its_backward_equal_naive() {
        for columns in [1, 3, 16, 36, 50, 197] {
            let scores: Vec<f32> = numbers(columns * 4, 5).iter().map(|v| v * 9.0).collect();
            let (mut naive, d) = (scores.clone(), numbers(columns * 4, 6));
            softmax_naive(&mut naive, columns, columns);
            let mut d_naive = d.clone();
            softmax_backward_naive(&naive, &mut d_naive, columns);
            for (forward, backward) in [
                (softmax as fn(&mut [f32], usize, usize), softmax_backward as BackwardKernel),
                (softmax_portable, softmax_backward_portable),
            ] {
                let (mut fast, mut d_fast) = (scores.clone(), d.clone());
                forward(&mut fast, columns, columns);
                assert_close(&fast, &naive, 1e-6);
                // the same rows with gaps between them, which are left alone
                let mut apart = vec![7.0; 4 * (columns + 3)];
                for (row, scores) in apart.chunks_mut(columns + 3).zip(scores.chunks(columns)) {
                    row[..columns].copy_from_slice(scores);
                }
                forward(&mut apart, columns + 3, columns);
                for (row, dense) in apart.chunks(columns + 3).zip(fast.chunks(columns)) {
                    assert_eq!((&row[..columns], &row[columns..]), (dense, &[7.0; 3][..]));
                }
                backward(&naive, &mut d_fast, columns);
                assert_close(&d_fast, &d_naive, 2e-6);
            }
        }
    }

    #[test]
    fn nan_or_infinity_in_a_row_shows_as_nan_in_that_row_only() {
        for broken in [f32::NAN, f32::INFINITY] {
            for at in [0, 1, 20] {
                for kernel in [softmax, softmax_portable] {
                    let mut rows = [0.5; 42];
                    rows[at] = broken;
                    kernel(&mut rows, 21, 21);
                    assert!(rows[..21].iter().any(|v| v.is_nan()), "{broken} at {at}: {rows:?}");
                    assert!(rows[21..].iter().all(|v| (v * 21.0 - 1.0).abs() < 1e-5), "the next row is intact");
                }
            }
        }
    }

    #[test]
    fn a_score_of_minus_one_hundred_gets_no_weight() {
        for kernel in [softmax, softmax_portable] {
            let mut row = [1.0, -78.0, 0.0];
            kernel(&mut row, 3, 3);
            assert!(row[1] > 0.0, "a weight of e^-79 counts");
            let mut row = [1.0, -100.0, 1.0];
            kernel(&mut row, 3, 3);
            assert_eq!(row, [0.5, 0.0, 0.5], "not even one that is smaller than any normal number");
        }
    }
}
