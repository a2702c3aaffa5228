//! Self-attention of one head over one set of tokens (a whole image, or one window of it).
//!
//! Queries arrive already multiplied by their scale, so that the same kernel serves scaled dot
//! products (arXiv:1706.03762) and the cosine similarity of SwinV2 (arXiv:2111.09883).

use crate::bf16::Operands;
use crate::matmul::{Scratch, matmul};
use crate::matrix::Matrix;
use crate::product::Start;
use crate::softmax::{softmax, softmax_backward};

/// Sizes of one head's attention.
#[derive(Clone, Copy, Debug)]
pub struct HeadShape {
    /// Tokens that attend to each other, `M`.
    pub tokens: usize,
    /// Head width, `E`.
    pub width: usize,
}

/// `p = softmax(q·kᵀ + bias)`, `o = p·v`.
///
/// # Shapes
/// `q`, `k`, `v`, `o` `[M, E]`; `p` `[M, M]`; each of `biases` `[M, M]`, all of them are added.
pub fn attend(
    shape: HeadShape,
    operands: Operands,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    biases: &[&[f32]],
    p: &mut [f32],
    o: &mut [f32],
    scratch: &mut Scratch,
) {
    let HeadShape { tokens, width } = shape;
    let rows = |data| Matrix::new(data, tokens, width);
    matmul(rows(q), rows(k).transposed(), p, tokens, Start::Zero, scratch);
    for bias in biases {
        crate::elementwise::add_scaled(p, 1.0, bias);
    }
    softmax(p, tokens);
    operands.round(p);
    matmul(Matrix::new(p, tokens, tokens), rows(v), o, width, Start::Zero, scratch);
}

/// Specification of [`attend`], in f64.
pub fn attend_naive(
    shape: HeadShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    biases: &[&[f32]],
    p: &mut [f32],
    o: &mut [f32],
) {
    let HeadShape { tokens, width } = shape;
    for i in 0..tokens {
        let scores: Vec<f64> = (0..tokens)
            .map(|j| {
                let product: f64 = (0..width).map(|e| q[i * width + e] as f64 * k[j * width + e] as f64).sum();
                product + biases.iter().map(|b| b[i * tokens + j] as f64).sum::<f64>()
            })
            .collect();
        let total: f64 = scores.iter().map(|s| s.exp()).sum();
        for j in 0..tokens {
            p[i * tokens + j] = (scores[j].exp() / total) as f32;
        }
        for e in 0..width {
            o[i * width + e] =
                (0..tokens).map(|j| scores[j].exp() / total * v[j * width + e] as f64).sum::<f64>() as f32;
        }
    }
}

/// Gradients of [`attend`]; all outputs are overwritten.
///
/// # Shapes
/// `q`, `k`, `v`, `d_o`, `d_q`, `d_k`, `d_v` `[M, E]`; `p`, `d_s` `[M, M]`. `d_s` is the gradient of
/// the scores before the softmax, which is the gradient of every bias.
pub fn attend_backward(
    shape: HeadShape,
    operands: Operands,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    p: &[f32],
    d_o: &[f32],
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    d_s: &mut [f32],
    scratch: &mut Scratch,
) {
    let HeadShape { tokens, width } = shape;
    let rows = |data| Matrix::new(data, tokens, width);
    matmul(Matrix::new(p, tokens, tokens).transposed(), rows(d_o), d_v, width, Start::Zero, scratch);
    matmul(rows(d_o), rows(v).transposed(), d_s, tokens, Start::Zero, scratch);
    softmax_backward(p, d_s, tokens);
    operands.round(d_s);
    matmul(Matrix::new(d_s, tokens, tokens), rows(k), d_q, width, Start::Zero, scratch);
    matmul(Matrix::new(d_s, tokens, tokens).transposed(), rows(q), d_k, width, Start::Zero, scratch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn attention_equals_naive() {
        for (tokens, width, biased) in [(1, 4, false), (5, 12, true), (64, 64, true), (50, 40, false)] {
            let shape = HeadShape { tokens, width };
            let [q, k, v] = [1, 2, 3].map(|s| numbers(tokens * width, s));
            let bias = numbers(tokens * tokens, 4);
            let biases: &[&[f32]] = if biased { &[&bias, &bias] } else { &[] };
            let (mut p, mut o) = (vec![0.0; tokens * tokens], vec![0.0; tokens * width]);
            let (mut e_p, mut e_o) = (p.clone(), o.clone());
            attend(shape, Operands::F32, &q, &k, &v, biases, &mut p, &mut o, &mut Scratch::default());
            attend_naive(shape, &q, &k, &v, biases, &mut e_p, &mut e_o);
            assert_close(&p, &e_p, 5e-6);
            assert_close(&o, &e_o, 5e-6);
        }
    }

    #[test]
    fn backward_equals_finite_differences_of_naive() {
        let shape = HeadShape { tokens: 4, width: 3 };
        let [q, k, v, d_o] = [1, 2, 3, 4].map(|s| numbers(12, s));
        let bias = numbers(16, 5);
        let objective = |q: &[f32], k: &[f32], v: &[f32], bias: &[f32]| -> f64 {
            let (mut p, mut o) = (vec![0.0; 16], vec![0.0; 12]);
            attend_naive(shape, q, k, v, &[bias], &mut p, &mut o);
            o.iter().zip(&d_o).map(|(o, d)| *o as f64 * *d as f64).sum()
        };
        let (mut p, mut o) = (vec![0.0; 16], vec![0.0; 12]);
        attend(shape, Operands::F32, &q, &k, &v, &[&bias], &mut p, &mut o, &mut Scratch::default());
        let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|_| vec![0.0; 12]);
        let mut d_s = vec![0.0; 16];
        attend_backward(
            shape,
            Operands::F32,
            &q,
            &k,
            &v,
            &p,
            &d_o,
            &mut d_q,
            &mut d_k,
            &mut d_v,
            &mut d_s,
            &mut Scratch::default(),
        );

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
        // central differences with a step of 1e-2 leave an error of about 1e-4
        assert_close(&d_q, &difference(&q, &|q| objective(q, &k, &v, &bias)), 1e-3);
        assert_close(&d_k, &difference(&k, &|k| objective(&q, k, &v, &bias)), 1e-3);
        assert_close(&d_v, &difference(&v, &|v| objective(&q, &k, v, &bias)), 1e-3);
        assert_close(&d_s, &difference(&bias, &|b| objective(&q, &k, &v, b)), 1e-3);
    }
}
