//! From attention scores to weights and back: position biases, softmax and rounding, over rows that are still in the
//! cache.
//!
//! Each row of scores starts at a cache line, so that a unit for tiles can store whole lines. What lies between the
//! last score of a row and the next row is never read.

use crate::dtype::Dtype;
use crate::elementwise::add_scaled;
#[cfg(target_arch = "x86_64")]
use crate::instructions::Avx512Of;
use crate::matrix::len_of_rows;
use crate::softmax::{softmax, softmax_backward};

/// Values from a row of `columns` scores to the next.
pub const fn scores_stride(columns: usize) -> usize {
    columns.next_multiple_of(16)
}

/// The number of rows of scores.
fn rows_of(scores: &[f32], columns: usize) -> usize {
    assert!(columns > 0 && scores.len().is_multiple_of(scores_stride(columns)), "scores are whole rows");
    scores.len() / scores_stride(columns)
}

/// `p = softmax(scores + Σ biases)` in each row, as by [`softmax`]. The scores may be overwritten. A row of `p` is filled up
/// with zeros.
///
/// # Shapes
/// `scores` `[rows, columns]`, rows [`scores_stride`] apart; `p` `[rows, columns]`, rows `p_stride` apart. Each of `biases`
/// has rows of `columns` values, of which row `first_row` belongs to the first row of scores.
///
/// # Panics
/// If sizes do not fit together.
pub fn attention_weights<T: Dtype>(
    scores: &mut [f32],
    columns: usize,
    biases: &[&[f32]],
    first_row: usize,
    p: &mut [T],
    p_stride: usize,
) {
    let rows = rows_of(scores, columns);
    assert!(p_stride >= columns && p.len() >= rows * p_stride, "{rows} rows of weights, {p_stride} apart");
    for bias in biases {
        assert!(bias.len() >= (first_row + rows) * columns, "a bias has too few rows");
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512Of::<T>::detect() {
        return avx512.attention_weights(scores, columns, biases, first_row, p, p_stride);
    }
    attention_weights_portable(scores, columns, biases, first_row, p, p_stride);
}

fn attention_weights_portable<T: Dtype>(
    scores: &mut [f32],
    columns: usize,
    biases: &[&[f32]],
    first_row: usize,
    p: &mut [T],
    p_stride: usize,
) {
    let stride = scores_stride(columns);
    for bias in biases {
        for (row, bias) in scores.chunks_exact_mut(stride).zip(bias[first_row * columns..].chunks_exact(columns)) {
            add_scaled(&mut row[..columns], 1.0, bias);
        }
    }
    softmax(scores, stride, columns);
    for (row, p) in scores.chunks_exact(stride).zip(p.chunks_exact_mut(p_stride)) {
        T::narrow(&row[..columns], &mut p[..columns]);
        p[columns..].fill(T::default());
    }
}

/// Specification of [`attention_weights`], in f64.
pub fn attention_weights_naive<T: Dtype>(
    scores: &mut [f32],
    columns: usize,
    biases: &[&[f32]],
    first_row: usize,
    p: &mut [T],
    p_stride: usize,
) {
    for (i, row) in scores.chunks(scores_stride(columns)).enumerate() {
        let score = |j: usize| {
            row[j] as f64 + biases.iter().map(|bias| bias[(first_row + i) * columns + j] as f64).sum::<f64>()
        };
        let largest = (0..columns).map(score).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = (0..columns).map(|j| (score(j) - largest).exp()).sum();
        for (j, p) in p[i * p_stride..][..p_stride].iter_mut().enumerate() {
            *p = if j < columns { T::narrowed(((score(j) - largest).exp() / total) as f32) } else { T::default() };
        }
    }
}

/// The gradient of the scores: `d_s = p·(d_p − Σ p·d_p)` in each row. It is also added to `d_bias`, if that is given. `d_p`
/// may be overwritten. A row of `d_s` is filled up with zeros.
///
/// # Shapes
/// `p` and `d_s` `[rows, columns]`, rows `p_stride` and `d_s_stride` apart; `d_p` `[rows, columns]`, rows
/// [`scores_stride`] apart; `d_bias` `[rows, columns]`, or longer.
///
/// # Panics
/// If sizes do not fit together.
pub fn attention_weights_backward<T: Dtype>(
    p: &[T],
    p_stride: usize,
    d_p: &mut [f32],
    columns: usize,
    d_bias: Option<&mut [f32]>,
    d_s: &mut [T],
    d_s_stride: usize,
) {
    let rows = rows_of(d_p, columns);
    assert!(p_stride >= columns && p.len() >= len_of_rows(rows, p_stride, columns), "{rows} rows, {p_stride} apart");
    assert!(d_s_stride >= columns && d_s.len() >= rows * d_s_stride, "{rows} rows, {d_s_stride} apart");
    assert!(d_bias.as_ref().is_none_or(|d_bias| d_bias.len() >= rows * columns), "a bias has too few rows");
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512Of::<T>::detect() {
        return avx512.attention_weights_backward(p, p_stride, d_p, columns, d_bias, d_s, d_s_stride);
    }
    attention_weights_backward_portable(p, p_stride, d_p, columns, d_bias, d_s, d_s_stride);
}

fn attention_weights_backward_portable<T: Dtype>(
    p: &[T],
    p_stride: usize,
    d_p: &mut [f32],
    columns: usize,
    mut d_bias: Option<&mut [f32]>,
    d_s: &mut [T],
    d_s_stride: usize,
) {
    let mut widened = vec![0.0; columns];
    let rows = d_p.chunks_exact_mut(scores_stride(columns)).zip(p.chunks(p_stride)).zip(d_s.chunks_mut(d_s_stride));
    for (i, ((d, p), d_s)) in rows.enumerate() {
        let d = &mut d[..columns];
        T::widen(&p[..columns], &mut widened);
        softmax_backward(&widened, d, columns);
        if let Some(d_bias) = &mut d_bias {
            add_scaled(&mut d_bias[i * columns..][..columns], 1.0, d);
        }
        T::narrow(d, &mut d_s[..columns]);
        d_s[columns..].fill(T::default());
    }
}

/// Specification of [`attention_weights_backward`]: a product with the Jacobian, whose elements are `p_i·(δ_ij − p_j)`.
pub fn attention_weights_backward_naive<T: Dtype>(
    p: &[T],
    p_stride: usize,
    d_p: &mut [f32],
    columns: usize,
    mut d_bias: Option<&mut [f32]>,
    d_s: &mut [T],
    d_s_stride: usize,
) {
    for (i, d) in d_p.chunks(scores_stride(columns)).enumerate() {
        let p = |j: usize| p[i * p_stride + j].widened() as f64;
        let jacobian = |j: usize, k: usize| p(k) * (if j == k { 1.0 } else { 0.0 } - p(j));
        for j in 0..columns {
            let gradient = (0..columns).map(|k| d[k] as f64 * jacobian(j, k)).sum::<f64>() as f32;
            d_s[i * d_s_stride + j] = T::narrowed(gradient);
            if let Some(d_bias) = &mut d_bias {
                d_bias[i * columns + j] += gradient;
            }
        }
        d_s[i * d_s_stride..][columns..d_s_stride].fill(T::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{Bf16, padded};
    use crate::testing::{assert_close, numbers};

    type Forward<T> = fn(&mut [f32], usize, &[&[f32]], usize, &mut [T], usize);
    type Backward<T> = fn(&[T], usize, &mut [f32], usize, Option<&mut [f32]>, &mut [T], usize);

    fn widened<T: Dtype>(values: &[T]) -> Vec<f32> {
        values.iter().map(|value| value.widened()).collect()
    }

    fn check<T: Dtype>(forward: Forward<T>, backward: Backward<T>, tolerance: f32) {
        for (columns, rows) in [(1, 1), (3, 2), (16, 5), (36, 36), (50, 33), (144, 3), (197, 40), (230, 34)] {
            let (stride, p_stride, d_s_stride) =
                (scores_stride(columns), padded::<T>(columns), padded::<T>(columns) + 6);
            let scores: Vec<f32> = numbers(rows * stride, 1).iter().map(|score| score * 9.0).collect();
            let (bias, other) = (numbers((rows + 2) * columns, 2), numbers((rows + 2) * columns, 3));
            for biases in [&[][..], &[&bias[..]], &[&bias[..], &other[..]]] {
                let run = |kernel: Forward<T>| {
                    let mut p = vec![T::narrowed(9.0); rows * p_stride];
                    kernel(&mut scores.clone(), columns, biases, 2, &mut p, p_stride);
                    p
                };
                let p = run(attention_weights_naive);
                assert_close(&widened(&run(forward)), &widened(&p), tolerance);
                let d_p = numbers(rows * stride, 4);
                let run = |kernel: Backward<T>, with_bias: bool| {
                    let (mut d_s, mut d_bias) = (vec![T::narrowed(9.0); rows * d_s_stride], bias.clone());
                    let (d_p, to_bias) = (&mut d_p.clone(), with_bias.then_some(&mut d_bias[..]));
                    kernel(&p, p_stride, d_p, columns, to_bias, &mut d_s, d_s_stride);
                    (d_s, d_bias)
                };
                for with_bias in [false, true] {
                    let (fast, naive) = (run(backward, with_bias), run(attention_weights_backward_naive, with_bias));
                    assert_close(&widened(&fast.0), &widened(&naive.0), tolerance);
                    assert_close(&fast.1, &naive.1, 2e-6);
                }
            }
        }
    }

    #[test]
    fn weights_and_their_backward_equal_naive() {
        check::<f32>(attention_weights, attention_weights_backward, 2e-6);
        check::<f32>(attention_weights_portable, attention_weights_backward_portable, 2e-6);
        let rounding = 4e-3; // bf16 has 8 bits of mantissa
        check::<Bf16>(attention_weights, attention_weights_backward, rounding);
        check::<Bf16>(attention_weights_portable, attention_weights_backward_portable, rounding);
    }

    #[test]
    fn nan_or_infinity_in_a_row_shows_as_nan_in_that_row_only() {
        for broken in [f32::NAN, f32::INFINITY] {
            for kernel in [attention_weights::<f32>, attention_weights_portable::<f32>] {
                for (columns, at) in [(21, 0), (21, 1), (21, 20), (230, 229)] {
                    let (mut scores, mut p) = (vec![0.5; 2 * scores_stride(columns)], vec![0.0; 2 * columns]);
                    scores[at] = broken;
                    kernel(&mut scores, columns, &[], 0, &mut p, columns);
                    let (broken_row, next) = p.split_at(columns);
                    assert!(broken_row.iter().any(|v| v.is_nan()), "{broken} at {at}: {p:?}");
                    let is_even = |v: &f32| (v * columns as f32 - 1.0).abs() < 1e-5;
                    assert!(next.iter().all(is_even), "the next row is intact");
                }
            }
        }
    }

    #[test]
    fn a_score_that_is_lower_by_a_hundred_gets_no_weight() {
        for kernel in [attention_weights::<f32>, attention_weights_portable::<f32>] {
            for columns in [3, 230] {
                let (mut scores, mut p) = (vec![1.0; scores_stride(columns)], vec![9.0; columns]);
                let mut mask = vec![-100.0; columns];
                mask[..2].fill(0.0);
                kernel(&mut scores, columns, &[&mask], 0, &mut p, columns);
                assert_eq!(p[..2], [0.5, 0.5]);
                assert!(p[2..].iter().all(|p| *p == 0.0), "not even one that is smaller than any normal number: {p:?}");
            }
        }
    }

    #[test]
    fn weights_do_not_depend_on_how_high_a_row_of_scores_is() {
        for kernel in [attention_weights::<f32>, attention_weights_portable::<f32>] {
            for columns in [3, 16, 21, 230] {
                for height in [-500.0, 0.0, 500.0] {
                    let (mut scores, mut p) = (vec![height; scores_stride(columns)], vec![9.0; columns]);
                    kernel(&mut scores, columns, &[], 0, &mut p, columns);
                    assert_close(&p, &vec![1.0 / columns as f32; columns], 1e-6);
                }
            }
        }
    }
}
