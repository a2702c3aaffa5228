//! Losses over rows of predictions. Each is a weighted sum, and its gradient is computed in the same pass.

use crate::math::softmax_exp;
use multiversion::multiversion;

/// Distance between a predicted and a true value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// `|e|`: the choice of SimMIM (arXiv:2111.09886).
    L1,
    /// `e²`.
    L2,
    /// `e²/(2·beta)` below `beta`, `|e| − beta/2` above it.
    SmoothL1 {
        /// Where the parabola meets the line.
        beta: f32,
    },
}

impl Distance {
    /// The distance of error `e` and its derivative.
    #[inline(always)]
    fn value_and_slope(self, e: f32) -> (f32, f32) {
        match self {
            // torch.abs has derivative 0 at 0, f32::signum has 1
            Distance::L1 => (
                e.abs(),
                if e > 0.0 {
                    1.0
                } else if e < 0.0 {
                    -1.0
                } else {
                    0.0
                },
            ),
            Distance::L2 => (e * e, 2.0 * e),
            Distance::SmoothL1 { beta } if e.abs() < beta => (0.5 * e * e / beta, e / beta),
            Distance::SmoothL1 { beta } => (e.abs() - 0.5 * beta, e.signum()),
        }
    }
}

/// The sum of `weight·distance`, in f64, and its gradient, `d_prediction = weight·slope`.
///
/// # Shapes
/// `prediction`, `target`, `d_prediction` `[rows, C, S]` with `S` values per channel; `weight` `[rows, S]`, shared by
/// the channels.
pub fn regression(
    distance: Distance,
    prediction: &[f32],
    target: &[f32],
    weight: &[f32],
    channels: usize,
    per_channel: usize,
    d_prediction: &mut [f32],
) -> f64 {
    assert!(prediction.len() == target.len() && prediction.len() == d_prediction.len());
    assert_eq!(weight.len() * channels, prediction.len());
    let mut sum = 0.0;
    let plane = |i: usize| i * per_channel..(i + 1) * per_channel;
    for i in 0..prediction.len() / per_channel {
        let weight = &weight[plane(i / channels)];
        let (p, t, d) = (&prediction[plane(i)], &target[plane(i)], &mut d_prediction[plane(i)]);
        for j in 0..per_channel {
            let (value, slope) = distance.value_and_slope(p[j] - t[j]);
            sum += (value * weight[j]) as f64;
            d[j] = weight[j] * slope;
        }
    }
    sum
}

/// Specification of [`regression`], in f64.
pub fn regression_naive(
    distance: Distance,
    prediction: &[f32],
    target: &[f32],
    weight: &[f32],
    channels: usize,
    per_channel: usize,
    d_prediction: &mut [f32],
) -> f64 {
    let mut sum = 0.0;
    for at in 0..prediction.len() {
        let weight = weight[at / (channels * per_channel) * per_channel + at % per_channel] as f64;
        let e = prediction[at] as f64 - target[at] as f64;
        let sign = if e == 0.0 { 0.0 } else { e.signum() };
        let (value, slope) = match distance {
            Distance::L1 => (e.abs(), sign),
            Distance::L2 => (e.powi(2), 2.0 * e),
            Distance::SmoothL1 { beta } => {
                let beta = beta as f64;
                if e.abs() < beta { (e.powi(2) / (2.0 * beta), e / beta) } else { (e.abs() - beta / 2.0, sign) }
            }
        };
        sum += weight * value;
        d_prediction[at] = (weight * slope) as f32;
    }
    sum
}

/// The sum of `weight·(−Σ target·ln softmax(logits))`, in f64; `logits` are replaced by their gradient.
///
/// # Shapes
/// `logits`, `target` `[rows, classes]`; `weight` `[rows]`.
pub fn cross_entropy(logits: &mut [f32], target: &[f32], weight: &[f32], classes: usize) -> f64 {
    assert_eq!(logits.len(), target.len());
    assert_eq!(logits.len(), weight.len() * classes);
    let mut sum = 0.0;
    for (row, weight) in weight.iter().enumerate() {
        let logits = &mut logits[row * classes..][..classes];
        let target = &target[row * classes..][..classes];
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let total: f64 = logits.iter().map(|v| (*v as f64 - largest).exp()).sum();
        let mass: f64 = target.iter().map(|t| *t as f64).sum();
        for (v, t) in logits.iter_mut().zip(target) {
            let log_p = *v as f64 - largest - total.ln();
            sum -= *weight as f64 * *t as f64 * log_p;
            *v = *weight * (log_p.exp() * mass - *t as f64) as f32;
        }
    }
    sum
}

/// Specification of [`cross_entropy`], for logits whose exponentials f64 can hold.
pub fn cross_entropy_naive(logits: &mut [f32], target: &[f32], weight: &[f32], classes: usize) -> f64 {
    let mut sum = 0.0;
    for (row, weight) in weight.iter().enumerate() {
        let logits = &mut logits[row * classes..][..classes];
        let target = &target[row * classes..][..classes];
        let total: f64 = logits.iter().map(|v| (*v as f64).exp()).sum();
        let mass: f64 = target.iter().map(|t| *t as f64).sum();
        for i in 0..classes {
            let (p, t) = ((logits[i] as f64).exp() / total, target[i] as f64);
            sum -= *weight as f64 * t * p.ln();
            logits[i] = (*weight as f64 * (mass * p - t)) as f32;
        }
    }
    sum
}

/// The sum of binary cross-entropies, `−weight·(t·ln p + (1 − t)·ln(1 − p))` for target `t` and `p = sigmoid(logit)`,
/// in f64; `logits` are replaced by their gradient.
///
/// # Shapes
/// `logits`, `target`, `weight` of one length.
pub fn binary_cross_entropy(logits: &mut [f32], target: &[f32], weight: &[f32]) -> f64 {
    assert!(logits.len() == target.len() && logits.len() == weight.len());
    let mut sum = 0.0;
    for ((v, t), weight) in logits.iter_mut().zip(target).zip(weight) {
        let (x, t, weight) = (*v as f64, *t as f64, *weight as f64);
        // the same as ln(1 + eˣ) − t·x, written so that it cannot overflow
        sum += weight * (x.max(0.0) + (-x.abs()).exp().ln_1p() - t * x);
        *v = (weight * (1.0 / (1.0 + (-x).exp()) - t)) as f32;
    }
    sum
}

/// Specification of [`binary_cross_entropy`], for logits so small that neither `p` nor `1 − p` is 0.
pub fn binary_cross_entropy_naive(logits: &mut [f32], target: &[f32], weight: &[f32]) -> f64 {
    let mut sum = 0.0;
    for i in 0..logits.len() {
        let (t, weight) = (target[i] as f64, weight[i] as f64);
        let p = 1.0 / (1.0 + (-logits[i] as f64).exp());
        sum -= weight * (t * p.ln() + (1.0 - t) * (1.0 - p).ln());
        logits[i] = (weight * (p - t)) as f32;
    }
    sum
}

/// The sum of `−weight·ln softmax(logits)[id]`, in f64; `logits` are replaced by their gradient.
///
/// # Shapes
/// `logits` `[rows, C, S, K]` with `S` positions and `K` classes; `ids` `[rows, C, S]`; `weight` `[rows, S]`, shared by
/// the channels.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn class_cross_entropy(
    logits: &mut [f32],
    ids: &[u32],
    weight: &[f32],
    channels: usize,
    positions: usize,
    classes: usize,
) -> f64 {
    assert_eq!(logits.len(), ids.len() * classes);
    assert_eq!(ids.len(), weight.len() * channels);
    let mut sum = 0.0;
    for (i, (logits, id)) in logits.chunks_exact_mut(classes).zip(ids).enumerate() {
        let weight = weight[i / (channels * positions) * positions + i % positions];
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let of_truth = logits[*id as usize] - largest;
        for v in logits.iter_mut() {
            *v = softmax_exp::<false>(*v - largest);
        }
        let total: f64 = logits.iter().map(|v| *v as f64).sum();
        sum += weight as f64 * (total.ln() - of_truth as f64);
        let factor = weight / total as f32;
        for v in logits.iter_mut() {
            *v *= factor;
        }
        logits[*id as usize] -= weight;
    }
    sum
}

/// Specification of [`class_cross_entropy`]: a class is a soft label with all its mass in one place.
pub fn class_cross_entropy_naive(
    logits: &mut [f32],
    ids: &[u32],
    weight: &[f32],
    channels: usize,
    positions: usize,
    classes: usize,
) -> f64 {
    let mut labels = vec![0.0; logits.len()];
    (0..ids.len()).for_each(|i| labels[i * classes + ids[i] as usize] = 1.0);
    let weight_of = |i: usize| weight[i / (channels * positions) * positions + i % positions];
    let weights: Vec<f32> = (0..ids.len()).map(weight_of).collect();
    cross_entropy_naive(logits, &labels, &weights, classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn distances_and_slopes_are_those_of_the_definitions() {
        let cases = [
            (Distance::L1, [2.0, 0.0, -0.5], [2.0, 0.0, 0.5], [1.0, 0.0, -1.0]),
            (Distance::L2, [2.0, 0.0, -0.5], [4.0, 0.0, 0.25], [4.0, 0.0, -1.0]),
            (Distance::SmoothL1 { beta: 1.0 }, [2.0, 0.0, -0.5], [1.5, 0.0, 0.125], [1.0, 0.0, -0.5]),
        ];
        for (distance, errors, values, slopes) in cases {
            let mut d = [0.0; 3];
            let sum = regression(distance, &errors, &[0.0; 3], &[1.0, 1.0, 3.0], 1, 3, &mut d);
            assert_eq!(sum, values[0] + values[1] + 3.0 * values[2], "{distance:?}");
            assert_eq!(d, [slopes[0], slopes[1], 3.0 * slopes[2]], "{distance:?}");
        }
    }

    #[test]
    fn channels_share_a_weight() {
        let mut d = [0.0; 4];
        let sum = regression(Distance::L1, &[1.0, 1.0, 1.0, 1.0], &[0.0; 4], &[1.0, 0.0], 2, 2, &mut d);
        assert_eq!((sum, d), (2.0, [1.0, 0.0, 1.0, 0.0]));
    }

    #[test]
    fn cross_entropy_of_equal_logits_is_log_of_classes() {
        let mut logits = [0.3; 4];
        let sum = cross_entropy(&mut logits, &[0.0, 1.0, 0.0, 0.0], &[1.0], 4);
        assert!((sum - 4f64.ln()).abs() < 1e-7);
        assert_close(&logits, &[0.25, -0.75, 0.25, 0.25], 1e-6);
    }

    #[test]
    fn binary_cross_entropy_is_that_of_its_definition_and_survives_large_logits() {
        let mut logits = [0.5, -2.0, 200.0, -200.0];
        let (target, weight) = ([1.0, 0.25, 1.0, 1.0], [1.0, 2.0, 1.0, 0.5]);
        let p = |x: f64| 1.0 / (1.0 + (-x).exp());
        let expected = -p(0.5).ln() - 2.0 * (0.25 * p(-2.0).ln() + 0.75 * (1.0 - p(-2.0)).ln()) + 0.5 * 200.0;
        let sum = binary_cross_entropy(&mut logits, &target, &weight);
        assert!((sum - expected).abs() < 1e-6, "{sum} {expected}");
        assert_close(&logits, &[(p(0.5) - 1.0) as f32, 2.0 * (p(-2.0) - 0.25) as f32, 0.0, -0.5], 1e-6);
    }

    #[test]
    fn regression_equals_naive() {
        let (rows, channels, positions) = (3, 2, 37);
        let (prediction, target) = (numbers(rows * channels * positions, 1), numbers(rows * channels * positions, 2));
        let weight = numbers(rows * positions, 3);
        for distance in [Distance::L1, Distance::L2, Distance::SmoothL1 { beta: 0.3 }] {
            let [mut fast, mut naive] = [8.0, 9.0].map(|v| vec![v; prediction.len()]);
            let got = regression(distance, &prediction, &target, &weight, channels, positions, &mut fast);
            let sum = regression_naive(distance, &prediction, &target, &weight, channels, positions, &mut naive);
            assert!((got - sum).abs() < 1e-5 * sum.abs(), "{distance:?}: {got} {sum}");
            assert_close(&fast, &naive, 1e-6);
        }
    }

    #[test]
    fn cross_entropies_equal_naive() {
        let (channels, positions, classes, rows) = (2, 3, 5, 4);
        let choices = rows * channels * positions;
        let logits: Vec<f32> = numbers(choices * classes, 1).iter().map(|v| 9.0 * v).collect();
        let target: Vec<f32> = numbers(logits.len(), 2).iter().map(|v| v.abs()).collect();
        let weight = numbers(logits.len(), 3);
        let check = |fast: &dyn Fn(&mut [f32]) -> f64, naive: &dyn Fn(&mut [f32]) -> f64| {
            let (mut d_fast, mut d_naive) = (logits.clone(), logits.clone());
            let (got, sum) = (fast(&mut d_fast), naive(&mut d_naive));
            assert!((got - sum).abs() < 1e-4 * sum.abs(), "{got} {sum}");
            assert_close(&d_fast, &d_naive, 1e-6);
        };
        let each = &weight[..choices];
        check(&|l| cross_entropy(l, &target, each, classes), &|l| cross_entropy_naive(l, &target, each, classes));
        check(&|l| binary_cross_entropy(l, &target, &weight), &|l| binary_cross_entropy_naive(l, &target, &weight));
        let ids: Vec<u32> = (0..choices).map(|i| (i * 3 % classes) as u32).collect();
        let shared = &weight[..rows * positions];
        check(&|l| class_cross_entropy(l, &ids, shared, channels, positions, classes), &|l| {
            class_cross_entropy_naive(l, &ids, shared, channels, positions, classes)
        });
    }
}
