//! Self-attention of one head over one set of tokens, which is a whole image or one window of it.
//!
//! Only a few rows of scores are computed at a time. Their softmax is taken and multiplied by the values while they are
//! in the first-level cache. The caller multiplies the queries by their scale, so that one kernel serves both scaled
//! dot products (arXiv:1706.03762) and the cosine similarity of SwinV2 (arXiv:2111.09883).

use crate::aligned::Aligned;
use crate::dtype::{Dtype, padded};
use crate::elementwise::add_scaled;
use crate::matrix::Matrix;
use crate::pack::{Packed, pack_depth_by_column, pack_depth_by_row};
use crate::product::{Accumulator, Tile, product, product_of_packed};
use crate::softmax::{softmax, softmax_backward};

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
    scores: Aligned<f32>,
    p_rows: Aligned<f32>,
    d_s: Aligned<T>,
}

/// Scores that are computed at a time: 16 KiB, half of a first-level cache.
const SCORES_AT_ONCE: usize = 4096;

/// Rows of scores that are computed at a time: whole tiles.
fn rows_at_once<T: Dtype>(tile: Tile, tokens: usize) -> usize {
    let height = tile.height::<T>();
    (SCORES_AT_ONCE / tokens / height).max(1) * height
}

/// `p = softmax(q·kᵀ + bias)`, `o = p·v`.
///
/// # Shapes
/// `q`, `k`, `v` `[M, E]` and `p` `[M, M]` stored in whole lanes, filled up with zeros; `o` `[M, E]` dense; each of
/// `biases` `[M, M]`, and their sum is added.
pub fn attend<T: Dtype>(
    tile: Tile,
    shape: HeadShape,
    q: &[T],
    k: &[T],
    v: &[T],
    biases: &[&[f32]],
    p: &mut [T],
    o: &mut [f32],
    scratch: &mut AttentionScratch<T>,
) {
    let HeadShape { tokens, width } = shape;
    let (p_row, q_row) = (padded::<T>(tokens), padded::<T>(width));
    let [keys, values] = &mut scratch.panels;
    let of_keys = tile.panels::<T>(width, tokens);
    let keys = grown(keys, of_keys.lanes());
    pack_depth_by_column(Matrix::new(k, tokens, width), of_keys, keys);
    let of_values = tile.panels::<T>(tokens, width);
    let values = grown(values, of_values.lanes());
    pack_depth_by_row(Matrix::new(v, tokens, width), of_values, values);
    let (keys, values) = (Packed::new(keys, of_keys), Packed::new(values, of_values));
    let at_once = rows_at_once::<T>(tile, tokens);
    let scores = grown(&mut scratch.scores, at_once.min(tokens) * tokens);
    for top in (0..tokens).step_by(at_once) {
        let rows = at_once.min(tokens - top);
        let scores = &mut scores[..rows * tokens];
        product(tile, Matrix::new(&q[top * q_row..], rows, width), keys, scores, tokens, Accumulator::Zero);
        for bias in biases {
            add_scaled(scores, 1.0, &bias[top * tokens..][..rows * tokens]);
        }
        softmax(scores, tokens);
        let p = &mut p[top * p_row..][..rows * p_row];
        store_rows(scores, tokens, p);
        product(tile, Matrix::new(p, rows, tokens), values, &mut o[top * width..], width, Accumulator::Zero);
    }
}

/// Specification of [`attend`], in f64, on dense f32 `p`.
pub fn attend_naive<T: Dtype>(
    shape: HeadShape,
    q: &[T],
    k: &[T],
    v: &[T],
    biases: &[&[f32]],
    p: &mut [f32],
    o: &mut [f32],
) {
    let HeadShape { tokens, width } = shape;
    let [q, k, v] = [q, k, v].map(|rows| Matrix::new(rows, tokens, width));
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
/// `q`, `k`, `v`, `d_o` `[M, E]` and `p` `[M, M]` stored as in [`attend`]; `d_q`, `d_k`, `d_v` `[M, E]` dense; `d_bias`
/// `[M, M]`: if it is given, the gradient of the scores is added to it, which is that of every bias.
pub fn attend_backward<T: Dtype>(
    tile: Tile,
    shape: HeadShape,
    q: &[T],
    k: &[T],
    v: &[T],
    p: &[T],
    d_o: &[T],
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    mut d_bias: Option<&mut [f32]>,
    scratch: &mut AttentionScratch<T>,
) {
    let HeadShape { tokens, width } = shape;
    let (p_row, q_row) = (padded::<T>(tokens), padded::<T>(width));
    let [values, keys] = &mut scratch.panels;
    let of_values = tile.panels::<T>(width, tokens);
    let values = grown(values, of_values.lanes());
    pack_depth_by_column(Matrix::new(v, tokens, width), of_values, values);
    let values = Packed::new(values, of_values);
    // packs k first and later d_o and q, each [M, E] with the tokens as depth
    let of_rows = tile.panels::<T>(tokens, width);
    let rows_packed = grown(keys, of_rows.lanes());
    pack_depth_by_row(Matrix::new(k, tokens, width), of_rows, rows_packed);
    let at_once = rows_at_once::<T>(tile, tokens);
    let d_p = grown(&mut scratch.scores, at_once.min(tokens) * tokens);
    let p_rows = grown(&mut scratch.p_rows, at_once.min(tokens) * tokens);
    let d_s = grown(&mut scratch.d_s, tokens * p_row);
    for top in (0..tokens).step_by(at_once) {
        let rows = at_once.min(tokens - top);
        let (d_p, p_rows) = (&mut d_p[..rows * tokens], &mut p_rows[..rows * tokens]);
        product(tile, Matrix::new(&d_o[top * q_row..], rows, width), values, d_p, tokens, Accumulator::Zero);
        for (i, row) in p_rows.chunks_exact_mut(tokens).enumerate() {
            T::widen(&p[(top + i) * p_row..][..tokens], row);
        }
        softmax_backward(p_rows, d_p, tokens);
        if let Some(d_bias) = &mut d_bias {
            add_scaled(&mut d_bias[top * tokens..][..rows * tokens], 1.0, d_p);
        }
        let d_s = &mut d_s[top * p_row..][..rows * p_row];
        store_rows(d_p, tokens, d_s);
        let keys = Packed::new(rows_packed, of_rows);
        product(tile, Matrix::new(d_s, rows, tokens), keys, &mut d_q[top * width..], width, Accumulator::Zero);
    }
    let of_scores = tile.blocks::<T>(tokens, tokens);
    let blocks = grown(&mut scratch.blocks, of_scores.lanes());
    let by_tokens: [(&[T], &[T], &mut [f32]); 2] = [(p, d_o, d_v), (d_s, q, d_k)];
    for (scores, rows, d) in by_tokens {
        pack_depth_by_row(Matrix::new(scores, tokens, tokens), of_scores, blocks);
        pack_depth_by_row(Matrix::new(rows, tokens, width), of_rows, rows_packed);
        let (blocks, rows) = (Packed::new(blocks, of_scores), Packed::new(rows_packed, of_rows));
        product_of_packed::<T>(tile, blocks, 0, rows, &mut d[..tokens * width], Accumulator::Zero);
    }
}

/// Specification of [`attend_backward`], in f64: the chain rule through both products and the softmax, element by
/// element.
pub fn attend_backward_naive<T: Dtype>(
    shape: HeadShape,
    q: &[T],
    k: &[T],
    v: &[T],
    p: &[T],
    d_o: &[T],
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    mut d_bias: Option<&mut [f32]>,
) {
    let HeadShape { tokens, width } = shape;
    let [q, k, v, d_o] = [q, k, v, d_o].map(|rows| Matrix::new(rows, tokens, width));
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

/// Stores dense rows in whole lanes, filled up with zeros.
fn store_rows<T: Dtype>(values: &[f32], columns: usize, out: &mut [T]) {
    if padded::<T>(columns) == columns {
        return T::narrow(values, out);
    }
    for (values, out) in values.chunks_exact(columns).zip(out.chunks_exact_mut(padded::<T>(columns))) {
        T::narrow(values, &mut out[..columns]);
        out[columns..].fill(T::default());
    }
}

/// The first `len` values of a buffer that is grown if it is shorter.
fn grown<T: Copy + Default>(buffer: &mut Aligned<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        *buffer = Aligned::new(len);
    }
    &mut buffer[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Bf16;
    use crate::testing::{assert_close, numbers};

    fn stored<T: Dtype>(rows: usize, columns: usize, values: &[f32]) -> Vec<T> {
        let mut out = vec![T::default(); rows * padded::<T>(columns)];
        store_rows(values, columns, &mut out);
        out
    }

    fn dense<T: Dtype>(columns: usize, values: &[T]) -> Vec<f32> {
        values.chunks(padded::<T>(columns)).flat_map(|row| row[..columns].iter().map(|v| v.widened())).collect()
    }

    fn check<T: Dtype>(tolerance: f32) {
        for (tokens, width, biased) in [(1, 4, false), (5, 12, true), (64, 64, true), (197, 32, true), (49, 7, false)] {
            let shape = HeadShape { tokens, width };
            let [q, k, v] = [1, 2, 3].map(|s| stored::<T>(tokens, width, &numbers(tokens * width, s)));
            let bias = numbers(tokens * tokens, 4);
            let biases: &[&[f32]] = if biased { &[&bias, &bias] } else { &[] };
            let mut p = vec![T::default(); shape.scores_len::<T>()];
            let mut o = vec![0.0; tokens * width];
            let (mut e_p, mut e_o) = (vec![0.0; tokens * tokens], o.clone());
            attend_naive(shape, &q, &k, &v, biases, &mut e_p, &mut e_o);
            let (p_stored, d_o) = (stored::<T>(tokens, tokens, &e_p), stored::<T>(tokens, width, &numbers(o.len(), 5)));
            let d_bias = numbers(tokens * tokens, 6);
            let gradients = || ([(); 3].map(|_| vec![9.0; tokens * width]), d_bias.clone());
            let ([mut e_q, mut e_k, mut e_v], mut e_bias) = gradients();
            let d_s = biased.then_some(e_bias.as_mut_slice());
            attend_backward_naive(shape, &q, &k, &v, &p_stored, &d_o, &mut e_q, &mut e_k, &mut e_v, d_s);
            for tile in Tile::all_available().into_iter().chain([Tile::model_of_amx()]) {
                let mut scratch = AttentionScratch::default();
                attend(tile, shape, &q, &k, &v, biases, &mut p, &mut o, &mut scratch);
                assert_close(&dense(tokens, &p), &e_p, tolerance);
                assert_close(&o, &e_o, tolerance);
                let ([mut d_q, mut d_k, mut d_v], mut d_bias) = gradients();
                let (d_s, p) = (biased.then_some(d_bias.as_mut_slice()), &p_stored);
                attend_backward(tile, shape, &q, &k, &v, p, &d_o, &mut d_q, &mut d_k, &mut d_v, d_s, &mut scratch);
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
        let [s_q, s_k, s_v, s_d_o] = [q, k, v, d_o].map(|x| stored::<T>(shape.tokens, shape.width, x));
        let mut p = vec![T::default(); shape.scores_len::<T>()];
        let mut o = vec![0.0; q.len()];
        let (tile, mut scratch) = (Tile::detect(), AttentionScratch::default());
        attend(tile, shape, &s_q, &s_k, &s_v, &[bias], &mut p, &mut o, &mut scratch);
        let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|_| vec![0.0; q.len()]);
        let mut d_bias = vec![0.0; bias.len()];
        let d_s = Some(d_bias.as_mut_slice());
        attend_backward(tile, shape, &s_q, &s_k, &s_v, &p, &s_d_o, &mut d_q, &mut d_k, &mut d_v, d_s, &mut scratch);
        for (got, expected) in [d_q, d_k, d_v, d_bias].iter().zip(expected) {
            assert_close(got, expected, tolerance);
        }
    }
}
