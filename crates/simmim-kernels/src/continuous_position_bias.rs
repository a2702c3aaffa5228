//! SwinV2's continuous position bias (arXiv:2111.09883, section 3.3): a small MLP that computes a bias per head from
//! the two offsets between a pair of tokens, `16·sigmoid(W₂·relu(W₁·offset + b₁))`.
//!
//! It depends on parameters alone, so it runs once per block and batch. All of it is f32.

use crate::math::exp;
use crate::reductions::dot;
use multiversion::multiversion;

/// The largest bias, the factor of the sigmoid.
const LARGEST: f32 = 16.0;

/// The parameters of the MLP.
#[derive(Clone, Copy, Debug)]
pub struct PositionBiasWeights<'a> {
    /// First weight, `[hidden, 2]`.
    pub w1: &'a [f32],
    /// First bias, `[hidden]`.
    pub b1: &'a [f32],
    /// Second weight, `[A, hidden]`.
    pub w2: &'a [f32],
}

/// The gradients of [`PositionBiasWeights`], in the same shapes.
#[derive(Clone, Debug)]
pub struct PositionBiasGradients {
    /// Gradient of the first weight.
    pub d_w1: Vec<f32>,
    /// Gradient of the first bias.
    pub d_b1: Vec<f32>,
    /// Gradient of the second weight.
    pub d_w2: Vec<f32>,
}

impl PositionBiasWeights<'_> {
    /// Gradients of zero.
    pub fn zero_gradients(&self) -> PositionBiasGradients {
        let zeros = |like: &[f32]| vec![0.0; like.len()];
        PositionBiasGradients { d_w1: zeros(self.w1), d_b1: zeros(self.b1), d_w2: zeros(self.w2) }
    }
}

/// Computes the bias of each head for each pair of offsets.
///
/// # Shapes
/// `offsets` `[T, 2]` → `hidden` `[T, hidden]`, which the backward pass needs, and `bias` `[T, A]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn continuous_position_bias(mlp: PositionBiasWeights, offsets: &[f32], hidden: &mut [f32], bias: &mut [f32]) {
    let (width, heads) = (mlp.b1.len(), mlp.w2.len() / mlp.b1.len());
    assert_eq!(offsets.len() / 2 * width, hidden.len());
    assert_eq!(offsets.len() / 2 * heads, bias.len());
    let rows = offsets.chunks_exact(2).zip(hidden.chunks_exact_mut(width)).zip(bias.chunks_exact_mut(heads));
    for ((offset, hidden), bias) in rows {
        for i in 0..width {
            let sum = mlp.w1[2 * i] * offset[0] + mlp.w1[2 * i + 1] * offset[1] + mlp.b1[i];
            hidden[i] = if sum < 0.0 { 0.0 } else { sum }; // NaN stays NaN
        }
        for (bias, w2) in bias.iter_mut().zip(mlp.w2.chunks_exact(width)) {
            *bias = LARGEST / (1.0 + exp::<false>(-dot::<false>(hidden, w2)));
        }
    }
}

/// Specification of [`continuous_position_bias`].
pub fn continuous_position_bias_naive(mlp: PositionBiasWeights, offsets: &[f32], hidden: &mut [f32], bias: &mut [f32]) {
    let (width, heads) = (mlp.b1.len(), mlp.w2.len() / mlp.b1.len());
    for t in 0..offsets.len() / 2 {
        for i in 0..width {
            let sum = mlp.w1[2 * i] * offsets[2 * t] + mlp.w1[2 * i + 1] * offsets[2 * t + 1] + mlp.b1[i];
            hidden[t * width + i] = if sum < 0.0 { 0.0 } else { sum };
        }
        for a in 0..heads {
            let logit: f64 = (0..width).map(|i| hidden[t * width + i] as f64 * mlp.w2[a * width + i] as f64).sum();
            bias[t * heads + a] = (16.0 / (1.0 + (-logit).exp())) as f32;
        }
    }
}

/// Adds the gradients of [`continuous_position_bias`] with respect to the parameters to `gradients`.
///
/// # Shapes
/// `offsets`, `hidden` and `bias` as in [`continuous_position_bias`]; `d_bias` `[T, A]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn continuous_position_bias_backward(
    mlp: PositionBiasWeights,
    offsets: &[f32],
    hidden: &[f32],
    bias: &[f32],
    d_bias: &[f32],
    gradients: &mut PositionBiasGradients,
) {
    let (width, heads) = (mlp.b1.len(), mlp.w2.len() / mlp.b1.len());
    assert_eq!(offsets.len() / 2 * width, hidden.len());
    assert!(offsets.len() / 2 * heads == bias.len() && bias.len() == d_bias.len());
    let PositionBiasGradients { d_w1, d_b1, d_w2 } = gradients;
    let mut d_hidden = vec![0.0; width];
    for (t, hidden) in hidden.chunks_exact(width).enumerate() {
        d_hidden.fill(0.0);
        for a in 0..heads {
            let bias = bias[t * heads + a];
            let d_logit = d_bias[t * heads + a] * bias * (1.0 - bias / LARGEST);
            let (w2, d_w2) = (&mlp.w2[a * width..][..width], &mut d_w2[a * width..][..width]);
            for i in 0..width {
                d_w2[i] += d_logit * hidden[i];
                d_hidden[i] += d_logit * w2[i];
            }
        }
        for i in 0..width {
            let d = if hidden[i] > 0.0 { d_hidden[i] } else { 0.0 };
            d_b1[i] += d;
            d_w1[2 * i] += d * offsets[2 * t];
            d_w1[2 * i + 1] += d * offsets[2 * t + 1];
        }
    }
}

/// Specification of [`continuous_position_bias_backward`]: each gradient as its sum over offsets and heads, in f64.
pub fn continuous_position_bias_backward_naive(
    mlp: PositionBiasWeights,
    offsets: &[f32],
    hidden: &[f32],
    bias: &[f32],
    d_bias: &[f32],
    gradients: &mut PositionBiasGradients,
) {
    let (width, heads, rows) = (mlp.b1.len(), mlp.w2.len() / mlp.b1.len(), offsets.len() / 2);
    let d_logit = |t: usize, a: usize| {
        let sigmoid = bias[t * heads + a] as f64 / 16.0;
        d_bias[t * heads + a] as f64 * 16.0 * sigmoid * (1.0 - sigmoid)
    };
    for i in 0..width {
        for a in 0..heads {
            let d = (0..rows).map(|t| d_logit(t, a) * hidden[t * width + i] as f64).sum::<f64>();
            gradients.d_w2[a * width + i] += d as f32;
        }
        let d_hidden = |t: usize| match hidden[t * width + i] > 0.0 {
            true => (0..heads).map(|a| d_logit(t, a) * mlp.w2[a * width + i] as f64).sum::<f64>(),
            false => 0.0,
        };
        gradients.d_b1[i] += (0..rows).map(d_hidden).sum::<f64>() as f32;
        for j in 0..2 {
            let d = (0..rows).map(|t| d_hidden(t) * offsets[2 * t + j] as f64).sum::<f64>();
            gradients.d_w1[2 * i + j] += d as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    const OFFSETS: usize = 15;
    const WIDTH: usize = 37;
    const HEADS: usize = 3;

    #[test]
    fn forward_equals_the_naive_twin() {
        let (w1, b1, w2) = (numbers(2 * WIDTH, 1), numbers(WIDTH, 2), numbers(HEADS * WIDTH, 3));
        let (mlp, offsets) = (PositionBiasWeights { w1: &w1, b1: &b1, w2: &w2 }, numbers(2 * OFFSETS, 4));
        let zeros = || (vec![0.0; OFFSETS * WIDTH], vec![0.0; OFFSETS * HEADS]);
        let ((mut hidden, mut bias), (mut hidden_naive, mut bias_naive)) = (zeros(), zeros());
        continuous_position_bias(mlp, &offsets, &mut hidden, &mut bias);
        continuous_position_bias_naive(mlp, &offsets, &mut hidden_naive, &mut bias_naive);
        assert_close(&hidden, &hidden_naive, 1e-6);
        assert_close(&bias, &bias_naive, 1e-6);
    }

    #[test]
    fn backward_equals_naive_and_finite_differences_of_the_forward_twin() {
        let parameters = [numbers(2 * WIDTH, 1), numbers(WIDTH, 2), numbers(HEADS * WIDTH, 3)];
        let (offsets, d_bias) = (numbers(2 * OFFSETS, 4), numbers(OFFSETS * HEADS, 5));
        let (mut hidden, mut bias) = (vec![0.0; OFFSETS * WIDTH], vec![0.0; OFFSETS * HEADS]);
        let objective = |p: &[Vec<f32>; 3]| {
            let (mut hidden, mut bias) = (vec![0.0; OFFSETS * WIDTH], vec![0.0; OFFSETS * HEADS]);
            continuous_position_bias_naive(
                PositionBiasWeights { w1: &p[0], b1: &p[1], w2: &p[2] },
                &offsets,
                &mut hidden,
                &mut bias,
            );
            bias.iter().zip(&d_bias).map(|(b, d)| *b as f64 * *d as f64).sum::<f64>()
        };
        let mlp = PositionBiasWeights { w1: &parameters[0], b1: &parameters[1], w2: &parameters[2] };
        let mut gradients = mlp.zero_gradients();
        continuous_position_bias(mlp, &offsets, &mut hidden, &mut bias);
        continuous_position_bias_backward(mlp, &offsets, &hidden, &bias, &d_bias, &mut gradients);
        for (which, got) in [&gradients.d_w1, &gradients.d_b1, &gradients.d_w2].into_iter().enumerate() {
            let slope = |i: usize| {
                let moved = |by: f32| {
                    let mut p = parameters.clone();
                    p[which][i] += by;
                    objective(&p)
                };
                ((moved(1e-3) - moved(-1e-3)) / 2e-3) as f32
            };
            let expected: Vec<f32> = (0..got.len()).map(slope).collect();
            assert_close(got, &expected, 5e-3); // differences of f32 values 2e-3 apart, and kinks of the ReLU
        }
        let mut naive = mlp.zero_gradients();
        continuous_position_bias_backward_naive(mlp, &offsets, &hidden, &bias, &d_bias, &mut naive);
        assert_close(&gradients.d_w1, &naive.d_w1, 2e-6);
        assert_close(&gradients.d_b1, &naive.d_b1, 2e-6);
        assert_close(&gradients.d_w2, &naive.d_w2, 2e-6);
    }
}
