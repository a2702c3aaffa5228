//! Self-attention of one head over one set of tokens, which is a whole image or one window of it.
//!
//! Only a few rows of scores are computed at a time. Their softmax is taken and multiplied by the values while they are
//! in the first-level cache. The caller multiplies the queries by their scale, so that one kernel serves both scaled
//! dot products (arXiv:1706.03762) and the cosine similarity of SwinV2 (arXiv:2111.09883).

use crate::aligned::{Aligned, grown};
use crate::attention_weights::{attention_weights, attention_weights_backward, scores_stride};
use crate::dtype::{Dtype, padded};
use crate::matrix::Matrix;
use crate::pack::{Packed, pack_depth_by_column, pack_depth_by_row};
use crate::product::{Accumulator, Tile, product, product_of_packed};
use std::mem::swap;
use std::ops::Range;

/// Sizes of one head's attention.
#[derive(Clone, Copy, Debug)]
pub struct HeadShape {
    /// Tokens that attend to each other, `M`.
    pub tokens: usize,
    /// Head width, `E`.
    pub width: usize,
}

impl HeadShape {
    /// Length of a stored `[M, E]`, in values.
    pub fn rows_len<T: Dtype>(&self) -> usize {
        self.tokens * padded::<T>(self.width)
    }

    /// Length of a stored `[M, M]`, in values.
    pub fn scores_len<T: Dtype>(&self) -> usize {
        self.tokens * padded::<T>(self.tokens)
    }
}

/// Memory for packed operands and a few rows of scores. It grows as needed, and the caller reuses it.
#[derive(Debug, Default)]
pub struct AttentionScratch<T> {
    panels: [Aligned<u32>; 2],
    blocks: Aligned<u32>,
    scores: [Aligned<f32>; 2],
    weights: Aligned<T>,
}

/// Scores that are computed at a time, 16 KiB, unless those of as many rows as a tile is high are more. Two such blocks are
/// in use at a time.
const SCORES_AT_ONCE: usize = 4096;

/// Rows whose scores are computed at a time, so that the parts are few and about equally long.
fn rows_at_once<T: Dtype>(tile: Tile, tokens: usize) -> usize {
    let height = tile.height::<T>();
    let most = (SCORES_AT_ONCE / tokens / height).max(1) * height;
    tokens.div_ceil(tokens.div_ceil(most))
}

/// Values from a row of weights to the next, where a product reads rows of `depth` values: they start at cache lines.
fn weights_stride<T>(depth: usize) -> usize {
    depth.next_multiple_of(64 / size_of::<T>())
}

/// Multiplies `at_once` rows after another, and hands each product to `then` after the next one is computed. Sums of a
/// unit for tiles would not have left the unit yet if they were read at once.
fn products_of_rows<T: Dtype>(
    tile: Tile,
    a: Matrix<T>,
    b: Packed,
    at_once: usize,
    scratch: &mut [Aligned<f32>; 2],
    mut then: impl FnMut(Range<usize>, &mut [f32]),
) {
    let stride = b.columns();
    let [mut current, mut previous] = scratch.each_mut().map(|scratch| grown(scratch, at_once * stride));
    let mut waiting: Option<Range<usize>> = None;
    for top in (0..a.rows()).step_by(at_once) {
        let rows = top..a.rows().min(top + at_once);
        let part = a.rows_from(top, rows.len());
        product(tile, part, b, &mut current[..rows.len() * stride], stride, Accumulator::Zero);
        if let Some(rows) = waiting.replace(rows) {
            let len = rows.len() * stride;
            then(rows, &mut previous[..len]);
        }
        swap(&mut current, &mut previous);
    }
    if let Some(rows) = waiting {
        let len = rows.len() * stride;
        then(rows, &mut previous[..len]);
    }
}

/// `p = softmax(q·kᵀ + bias)`, `o = p·v`.
///
/// # Shapes
/// `q`, `k`, `v` `[M, E]`; `p` `[M, M]` stored in whole lanes, filled up with zeros; `o` `[M, E]` dense; each of
/// `biases` `[M, M]`, and their sum is added. An empty `p` is not written.
///
/// # Panics
/// If there are no tokens, or sizes do not fit together.
pub fn attend<T: Dtype>(
    tile: Tile,
    shape: HeadShape,
    q: Matrix<T>,
    k: Matrix<T>,
    v: Matrix<T>,
    biases: &[&[f32]],
    p: &mut [T],
    o: &mut [f32],
    scratch: &mut AttentionScratch<T>,
) {
    let HeadShape { tokens, width } = shape;
    check_operands(shape, [q, k, v]);
    let [keys, values] = &mut scratch.panels;
    let of_keys = tile.panels::<T>(width, tokens);
    let keys = grown(keys, of_keys.lanes());
    pack_depth_by_column(k, of_keys, keys);
    let of_values = tile.panels::<T>(tokens, width);
    let values = grown(values, of_values.lanes());
    pack_depth_by_row(v, of_values, values);
    let keys = Packed::new(keys, of_keys).with_columns_of_zeros(scores_stride(tokens));
    let values = Packed::new(values, of_values);

    let depth = of_values.steps() * T::PER_LANE; // the tokens, filled up with zeros
    let (p_row, stride) = (padded::<T>(tokens), weights_stride::<T>(depth));
    let at_once = rows_at_once::<T>(tile, tokens);
    let weights = grown(&mut scratch.weights, at_once * stride);
    products_of_rows(tile, q, keys, at_once, &mut scratch.scores, |rows, scores| {
        let weights = &mut weights[..rows.len() * stride];
        attention_weights(scores, tokens, biases, rows.start, weights, stride);
        if !p.is_empty() {
            let p = &mut p[rows.start * p_row..][..rows.len() * p_row];
            for (p, weights) in p.chunks_exact_mut(p_row).zip(weights.chunks_exact(stride)) {
                p.copy_from_slice(&weights[..p_row]);
            }
        }
        let weights = Matrix::strided(weights, rows.len(), depth, stride);
        product(tile, weights, values, &mut o[rows.start * width..], width, Accumulator::Zero);
    });
}

fn check_operands<T: Dtype>(HeadShape { tokens, width }: HeadShape, operands: [Matrix<T>; 3]) {
    assert!(tokens > 0, "attention of no tokens");
    assert!(operands.iter().all(|rows| (rows.rows(), rows.columns()) == (tokens, width)), "operands of another shape");
}

/// Specification of [`attend`], in f64, on dense f32 `p`.
pub fn attend_naive<T: Dtype>(
    shape: HeadShape,
    q: Matrix<T>,
    k: Matrix<T>,
    v: Matrix<T>,
    biases: &[&[f32]],
    p: &mut [f32],
    o: &mut [f32],
) {
    let HeadShape { tokens, width } = shape;
    for i in 0..tokens {
        let scores: Vec<f64> = (0..tokens)
            .map(|j| {
                let product: f64 = (0..width).map(|e| q.at(i, e) as f64 * k.at(j, e) as f64).sum();
                product + biases.iter().map(|b| b[i * tokens + j] as f64).sum::<f64>()
            })
            .collect();
        let total: f64 = scores.iter().map(|s| s.exp()).sum();
        for j in 0..tokens {
            p[i * tokens + j] = (scores[j].exp() / total) as f32;
        }
        for e in 0..width {
            o[i * width + e] = (0..tokens).map(|j| scores[j].exp() / total * v.at(j, e) as f64).sum::<f64>() as f32;
        }
    }
}

/// Gradients of [`attend`]; `d_q`, `d_k` and `d_v` are overwritten.
///
/// # Shapes
/// `q`, `k`, `v`, `d_o` `[M, E]`; `p` `[M, M]` stored as in [`attend`]; `d_q`, `d_k`, `d_v` `[M, E]` dense; `d_bias`
/// `[M, M]`: if it is given, the gradient of the scores is added to it, which is that of every bias.
///
/// # Panics
/// If there are no tokens, or sizes do not fit together.
pub fn attend_backward<T: Dtype>(
    tile: Tile,
    shape: HeadShape,
    q: Matrix<T>,
    k: Matrix<T>,
    v: Matrix<T>,
    p: &[T],
    d_o: Matrix<T>,
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    mut d_bias: Option<&mut [f32]>,
    scratch: &mut AttentionScratch<T>,
) {
    let HeadShape { tokens, width } = shape;
    check_operands(shape, [q, k, v]);
    let [values, keys] = &mut scratch.panels;
    let of_values = tile.panels::<T>(width, tokens);
    let values = grown(values, of_values.lanes());
    pack_depth_by_column(v, of_values, values);
    let values = Packed::new(values, of_values).with_columns_of_zeros(scores_stride(tokens));
    // packs k first and later d_o and q, each [M, E] with the tokens as depth
    let of_rows = tile.panels::<T>(tokens, width);
    let rows_packed = grown(keys, of_rows.lanes());
    pack_depth_by_row(k, of_rows, rows_packed);
    let keys = Packed::new(rows_packed, of_rows);

    let depth = of_rows.steps() * T::PER_LANE; // the tokens, filled up with zeros
    let (p_row, stride) = (padded::<T>(tokens), weights_stride::<T>(depth));
    let d_s = grown(&mut scratch.weights, tokens * stride);
    let at_once = rows_at_once::<T>(tile, tokens);
    products_of_rows(tile, d_o, values, at_once, &mut scratch.scores, |rows, d_p| {
        let d_s = &mut d_s[rows.start * stride..][..rows.len() * stride];
        let d_bias = d_bias.as_deref_mut().map(|d_bias| &mut d_bias[rows.start * tokens..]);
        attention_weights_backward(&p[rows.start * p_row..], p_row, d_p, tokens, d_bias, d_s, stride);
        let d_s = Matrix::strided(d_s, rows.len(), depth, stride);
        product(tile, d_s, keys, &mut d_q[rows.start * width..], width, Accumulator::Zero);
    });
    let of_scores = tile.blocks::<T>(tokens, tokens);
    let blocks = grown(&mut scratch.blocks, of_scores.lanes());
    let (p, d_s) = (Matrix::new(p, tokens, tokens), Matrix::strided(d_s, tokens, tokens, stride));
    let by_tokens: [(Matrix<T>, Matrix<T>, &mut [f32]); 2] = [(p, d_o, d_v), (d_s, q, d_k)];
    for (scores, rows, d) in by_tokens {
        pack_depth_by_row(scores, of_scores, blocks);
        pack_depth_by_row(rows, of_rows, rows_packed);
        let (blocks, rows) = (Packed::new(blocks, of_scores), Packed::new(rows_packed, of_rows));
        product_of_packed::<T>(tile, blocks, 0, rows, &mut d[..tokens * width], Accumulator::Zero);
    }
}

/// Specification of [`attend_backward`], in f64: the chain rule through both products and the softmax, element by
/// element.
pub fn attend_backward_naive<T: Dtype>(
    shape: HeadShape,
    q: Matrix<T>,
    k: Matrix<T>,
    v: Matrix<T>,
    p: &[T],
    d_o: Matrix<T>,
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    mut d_bias: Option<&mut [f32]>,
) {
    let HeadShape { tokens, width } = shape;
    let p = Matrix::new(p, tokens, tokens);
    let [mut sums_q, mut sums_k, mut sums_v] = [(); 3].map(|_| vec![0.0; tokens * width]);
    for i in 0..tokens {
        let d_p = |j: usize| (0..width).map(|e| d_o.at(i, e) as f64 * v.at(j, e) as f64).sum::<f64>();
        let dot: f64 = (0..tokens).map(|j| p.at(i, j) as f64 * d_p(j)).sum();
        for j in 0..tokens {
            let d_s = p.at(i, j) as f64 * (d_p(j) - dot);
            if let Some(d_bias) = &mut d_bias {
                d_bias[i * tokens + j] += d_s as f32;
            }
            for e in 0..width {
                sums_q[i * width + e] += d_s * k.at(j, e) as f64;
                sums_k[j * width + e] += d_s * q.at(i, e) as f64;
                sums_v[j * width + e] += p.at(i, j) as f64 * d_o.at(i, e) as f64;
            }
        }
    }
    for (d, sums) in [(d_q, sums_q), (d_k, sums_k), (d_v, sums_v)] {
        d.iter_mut().zip(sums).for_each(|(d, sum)| *d = sum as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Bf16;
    use crate::testing::{assert_close, numbers};

    fn stored<T: Dtype>(rows: usize, columns: usize, values: &[f32]) -> Vec<T> {
        let mut out = vec![T::default(); rows * padded::<T>(columns)];
        for (values, out) in values.chunks_exact(columns).zip(out.chunks_exact_mut(padded::<T>(columns))) {
            T::narrow(values, &mut out[..columns]);
        }
        out
    }

    fn dense<T: Dtype>(columns: usize, values: &[T]) -> Vec<f32> {
        values.chunks(padded::<T>(columns)).flat_map(|row| row[..columns].iter().map(|v| v.widened())).collect()
    }

    fn check<T: Dtype>(tolerance: f32) {
        for (tokens, width, biased) in [(1, 4, false), (5, 12, true), (64, 64, true), (197, 32, true), (49, 7, false)] {
            let shape = HeadShape { tokens, width };
            let qkv = [1, 2, 3].map(|s| stored::<T>(tokens, width, &numbers(tokens * width, s)));
            let [q, k, v] = qkv.each_ref().map(|rows| Matrix::new(rows, tokens, width));
            let bias = numbers(tokens * tokens, 4);
            let biases: &[&[f32]] = if biased { &[&bias, &bias] } else { &[] };
            let mut p = vec![T::default(); shape.scores_len::<T>()];
            let mut o = vec![0.0; tokens * width];
            let (mut e_p, mut e_o) = (vec![0.0; tokens * tokens], o.clone());
            attend_naive(shape, q, k, v, biases, &mut e_p, &mut e_o);
            let (p_stored, d_o) = (stored::<T>(tokens, tokens, &e_p), stored::<T>(tokens, width, &numbers(o.len(), 5)));
            let d_o = Matrix::new(&d_o, tokens, width);
            let d_bias = numbers(tokens * tokens, 6);
            let gradients = || ([(); 3].map(|_| vec![9.0; tokens * width]), d_bias.clone());
            let ([mut e_q, mut e_k, mut e_v], mut e_bias) = gradients();
            let d_s = biased.then_some(e_bias.as_mut_slice());
            attend_backward_naive(shape, q, k, v, &p_stored, d_o, &mut e_q, &mut e_k, &mut e_v, d_s);
            for tile in Tile::all_available().into_iter().chain([Tile::model_of_amx()]) {
                let mut scratch = AttentionScratch::default();
                attend(tile, shape, q, k, v, biases, &mut p, &mut o, &mut scratch);
                assert_close(&dense(tokens, &p), &e_p, tolerance);
                assert_close(&o, &e_o, tolerance);
                let ([mut d_q, mut d_k, mut d_v], mut d_bias) = gradients();
                let (d_s, p) = (biased.then_some(d_bias.as_mut_slice()), &p_stored);
                attend_backward(tile, shape, q, k, v, p, d_o, &mut d_q, &mut d_k, &mut d_v, d_s, &mut scratch);
                for (got, expected) in [(d_q, &e_q), (d_k, &e_k), (d_v, &e_v), (d_bias, &e_bias)] {
                    assert_close(&got, expected, tolerance);
                }
            }
        }
    }

    #[test]
    fn attention_and_its_backward_equal_naive() {
        check::<f32>(5e-6);
        check::<Bf16>(5e-3); // attention weights are rounded to 8 bits of mantissa
    }

    #[test]
    fn backward_equals_finite_differences_of_the_forward_twin() {
        let shape = HeadShape { tokens: 5, width: 3 };
        let [q, k, v, d_o] = [1, 2, 3, 4].map(|s| numbers(15, s));
        let bias = numbers(25, 5);
        let objective = |q: &[f32], k: &[f32], v: &[f32], bias: &[f32]| -> f64 {
            let (mut p, mut o) = (vec![0.0; 25], vec![0.0; 15]);
            let [q, k, v] = [q, k, v].map(|rows| Matrix::new(rows, 5, 3));
            attend_naive(shape, q, k, v, &[bias], &mut p, &mut o);
            o.iter().zip(&d_o).map(|(o, d)| *o as f64 * *d as f64).sum()
        };
        let difference = |of: &[f32], f: &dyn Fn(&[f32]) -> f64| -> Vec<f32> {
            (0..of.len())
                .map(|i| {
                    let (mut up, mut down) = (of.to_vec(), of.to_vec());
                    up[i] += 1e-2;
                    down[i] -= 1e-2;
                    ((f(&up) - f(&down)) / 2e-2) as f32
                })
                .collect()
        };
        let expected = [
            difference(&q, &|q| objective(q, &k, &v, &bias)),
            difference(&k, &|k| objective(&q, k, &v, &bias)),
            difference(&v, &|v| objective(&q, &k, v, &bias)),
            difference(&bias, &|b| objective(&q, &k, &v, b)),
        ];
        // central differences with a step of 1e-2 leave an error of about 1e-4
        check_gradients::<f32>(shape, [&q, &k, &v, &bias, &d_o], &expected, 1e-3);
        check_gradients::<Bf16>(shape, [&q, &k, &v, &bias, &d_o], &expected, 2e-2); // operands of 8 bits
    }

    fn check_gradients<T: Dtype>(
        shape: HeadShape,
        [q, k, v, bias, d_o]: [&[f32]; 5],
        expected: &[Vec<f32>; 4],
        tolerance: f32,
    ) {
        let operands = [q, k, v, d_o].map(|x| stored::<T>(shape.tokens, shape.width, x));
        let [s_q, s_k, s_v, s_d_o] = operands.each_ref().map(|rows| Matrix::new(rows, shape.tokens, shape.width));
        let mut p = vec![T::default(); shape.scores_len::<T>()];
        let mut o = vec![0.0; q.len()];
        let (tile, mut scratch) = (Tile::detect(), AttentionScratch::default());
        attend(tile, shape, s_q, s_k, s_v, &[bias], &mut p, &mut o, &mut scratch);
        let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|_| vec![0.0; q.len()]);
        let mut d_bias = vec![0.0; bias.len()];
        let d_s = Some(d_bias.as_mut_slice());
        attend_backward(tile, shape, s_q, s_k, s_v, &p, s_d_o, &mut d_q, &mut d_k, &mut d_v, d_s, &mut scratch);
        for (got, expected) in [d_q, d_k, d_v, d_bias].iter().zip(expected) {
            assert_close(got, expected, tolerance);
        }
    }
}
