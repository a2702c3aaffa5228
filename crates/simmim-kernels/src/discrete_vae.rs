//! The two terms of a discrete VAE's loss (arXiv:2102.12092, section 2.1 and appendix A.3): the likelihood of the
//! reconstruction, and the divergence of the tokens' distribution from the uniform one. Each is a sum, and its gradient
//! is computed in the same pass.

use crate::math::exp;
use multiversion::multiversion;

/// The negative logarithm of Laplace densities, up to a constant: the sum of `|t − μ|/b + ln b`, in f64, and its
/// gradient.
///
/// # Shapes
/// `prediction`, `d_prediction` `[rows, 2C]`, every `μ` of a row before every `ln b`; `target` `t` `[rows, C]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn laplace(prediction: &[f32], target: &[f32], channels: usize, d_prediction: &mut [f32]) -> f64 {
    assert!(prediction.len() == 2 * target.len() && prediction.len() == d_prediction.len());
    let mut sum = 0.0;
    let predicted = prediction.chunks_exact(2 * channels).zip(d_prediction.chunks_exact_mut(2 * channels));
    for ((p, d), t) in predicted.zip(target.chunks_exact(channels)) {
        for i in 0..channels {
            let (error, log_b) = (t[i] - p[i], p[channels + i]);
            let inverse = exp::<false>(-log_b);
            sum += (error.abs() * inverse + log_b) as f64;
            // the slope of |e| at 0 is 0, as that of torch.abs
            let sign = if error > 0.0 { 1.0 } else { 0.0 } - if error < 0.0 { 1.0 } else { 0.0 };
            d[i] = -sign * inverse;
            d[channels + i] = 1.0 - error.abs() * inverse;
        }
    }
    sum
}

/// Specification of [`laplace`], in f64.
pub fn laplace_naive(prediction: &[f32], target: &[f32], channels: usize, d_prediction: &mut [f32]) -> f64 {
    let mut sum = 0.0;
    for i in 0..target.len() {
        let at = i / channels * 2 * channels + i % channels;
        let (error, log_b) = (target[i] as f64 - prediction[at] as f64, prediction[at + channels] as f64);
        sum += error.abs() / log_b.exp() + log_b;
        let sign = if error == 0.0 { 0.0 } else { error.signum() };
        d_prediction[at] = (-sign / log_b.exp()) as f32;
        d_prediction[at + channels] = (1.0 - error.abs() / log_b.exp()) as f32;
    }
    sum
}

/// The sum over rows of `KL(softmax(logits) ‖ uniform) = Σ q·ln q + ln K`, in f64; `logits` are replaced by their
/// gradient.
///
/// # Shapes
/// `logits` `[rows, K]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn uniform_divergence(logits: &mut [f32], classes: usize) -> f64 {
    let mut total = 0.0;
    let mut q = vec![0.0; classes];
    for row in logits.chunks_exact_mut(classes) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (q, v) in q.iter_mut().zip(row.iter()) {
            *q = exp::<false>(*v - largest);
        }
        let sum: f32 = q.iter().sum();
        let (inverse, log_sum) = (1.0 / sum, largest + sum.ln());
        let mut negative_entropy = 0.0;
        for (q, v) in q.iter_mut().zip(row.iter_mut()) {
            *q *= inverse;
            *v -= log_sum;
            negative_entropy += *q * *v;
        }
        for (v, q) in row.iter_mut().zip(&q) {
            *v = *q * (*v - negative_entropy);
        }
        total += negative_entropy as f64 + (classes as f64).ln();
    }
    total
}

/// Specification of [`uniform_divergence`], in f64.
pub fn uniform_divergence_naive(logits: &mut [f32], classes: usize) -> f64 {
    let mut sum = 0.0;
    for row in logits.chunks_exact_mut(classes) {
        let total: f64 = row.iter().map(|v| (*v as f64).exp()).sum();
        let q: Vec<f64> = row.iter().map(|v| (*v as f64).exp() / total).collect();
        let negative_entropy: f64 = q.iter().map(|q| q * q.ln()).sum();
        for (v, q) in row.iter_mut().zip(&q) {
            *v = (q * (q.ln() - negative_entropy)) as f32;
        }
        sum += negative_entropy + (classes as f64).ln();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    /// The gradient of `value` at `at` by central differences.
    fn gradient_of(at: &[f32], value: impl Fn(&[f32]) -> f64) -> Vec<f32> {
        let step = 1e-2;
        let moved = |i: usize, by: f32| {
            let mut at = at.to_vec();
            at[i] += by;
            value(&at)
        };
        (0..at.len()).map(|i| ((moved(i, step) - moved(i, -step)) / (2.0 * step as f64)) as f32).collect()
    }

    #[test]
    fn laplace_equals_naive_and_its_gradient_finite_differences() {
        let (prediction, target) = (numbers(5 * 6, 1), numbers(5 * 3, 2));
        let [mut d, mut d_naive] = [8.0, 9.0].map(|v| vec![v; prediction.len()]);
        let sum = laplace(&prediction, &target, 3, &mut d);
        let expected = laplace_naive(&prediction, &target, 3, &mut d_naive);
        assert!((sum - expected).abs() < 1e-5 * expected.abs(), "{sum} {expected}");
        assert_close(&d, &d_naive, 1e-6);
        // central differences with a step of 1e-2 leave an error of about 1e-4
        assert_close(&d, &gradient_of(&prediction, |p| laplace_naive(p, &target, 3, &mut vec![0.0; p.len()])), 1e-3);
    }

    #[test]
    fn uniform_divergence_equals_naive_and_its_gradient_finite_differences() {
        let logits: Vec<f32> = numbers(4 * 37, 3).iter().map(|v| v * 5.0).collect();
        let [mut d, mut d_naive] = [(); 2].map(|_| logits.clone());
        let sum = uniform_divergence(&mut d, 37);
        let expected = uniform_divergence_naive(&mut d_naive, 37);
        assert!((sum - expected).abs() < 1e-5 * expected, "{sum} {expected}");
        assert_close(&d, &d_naive, 2e-5); // differences of logarithms
        assert_close(&d, &gradient_of(&logits, |l| uniform_divergence_naive(&mut l.to_vec(), 37)), 1e-3);
    }

    #[test]
    fn equal_logits_have_no_divergence() {
        assert!(uniform_divergence(&mut [3.0; 8], 8).abs() < 1e-6);
    }
}
