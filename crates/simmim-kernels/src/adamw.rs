//! An AdamW step in one pass over flat buffers (arXiv:1711.05101, computed in PyTorch's order).

use multiversion::multiversion;

/// The settings of one optimizer step, the same for a whole range of parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay rate of the first moment.
    pub beta1: f32,
    /// Decay rate of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Number of this step, from 1: the exponent of the bias corrections.
    pub number: u64,
    /// Factor on the gradient, such as the clipping coefficient.
    pub gradient_scale: f32,
}

impl AdamWStep {
    /// `lr / (1 − β₁ᵗ)` and `1 / √(1 − β₂ᵗ)`: the bias corrections, in f64 as in PyTorch.
    fn corrections(&self) -> (f32, f32) {
        let power = |beta: f32| 1.0 - (beta as f64).powi(self.number.min(i32::MAX as u64) as i32);
        ((self.lr as f64 / power(self.beta1)) as f32, (1.0 / power(self.beta2).sqrt()) as f32)
    }
}

/// Makes the step: updates `parameter` and its `first` and `second` moments from `gradient`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn adamw(step: &AdamWStep, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let n = parameter.len();
    assert!(gradient.len() == n && first.len() == n && second.len() == n);
    let (step_size, root_correction) = step.corrections();
    let decay = 1.0 - step.lr * step.weight_decay;
    for i in 0..n {
        let g = gradient[i] * step.gradient_scale;
        let m = step.beta1 * first[i] + (1.0 - step.beta1) * g;
        let v = step.beta2 * second[i] + (1.0 - step.beta2) * g * g;
        first[i] = m;
        second[i] = v;
        parameter[i] = parameter[i] * decay - step_size * m / (v.sqrt() * root_correction + step.eps);
    }
}

/// Specification of [`adamw`], in f64.
pub fn adamw_naive(step: &AdamWStep, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let (beta1, beta2) = (step.beta1 as f64, step.beta2 as f64);
    for i in 0..parameter.len() {
        let g = gradient[i] as f64 * step.gradient_scale as f64;
        let m = beta1 * first[i] as f64 + (1.0 - beta1) * g;
        let v = beta2 * second[i] as f64 + (1.0 - beta2) * g * g;
        let m_hat = m / (1.0 - beta1.powf(step.number as f64));
        let v_hat = v / (1.0 - beta2.powf(step.number as f64));
        let decayed = parameter[i] as f64 * (1.0 - step.lr as f64 * step.weight_decay as f64);
        parameter[i] = (decayed - step.lr as f64 * m_hat / (v_hat.sqrt() + step.eps as f64)) as f32;
        first[i] = m as f32;
        second[i] = v as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn three_steps_equal_naive() {
        let n = 77;
        let (mut p, mut m, mut v) = (numbers(n, 1), vec![0.0; n], vec![0.0; n]);
        let (mut e_p, mut e_m, mut e_v) = (p.clone(), m.clone(), v.clone());
        for number in 1..=3 {
            let step = AdamWStep {
                lr: 1e-3,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.05,
                number,
                gradient_scale: 0.7,
            };
            let g = numbers(n, 10 + number);
            adamw(&step, &mut p, &g, &mut m, &mut v);
            adamw_naive(&step, &mut e_p, &g, &mut e_m, &mut e_v);
        }
        assert_close(&p, &e_p, 1e-6);
        assert_close(&m, &e_m, 1e-6);
        assert_close(&v, &e_v, 1e-6);
    }
}
