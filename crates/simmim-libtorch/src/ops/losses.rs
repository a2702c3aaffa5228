//! Losses: sums in f32 over what they are given.

use crate::Libtorch;
use simmim_engine::{CrossEntropy, Distance, Labels, Laplace, Regression, SoftLabels};
use tch::{Kind, Tensor};

fn total(terms: &Tensor) -> Tensor {
    terms.sum(Kind::Float).reshape([1])
}

/// `Σ weight·distance`; prediction `[R, C·S]`.
pub(crate) fn regression(b: &Libtorch, prediction: &Tensor, loss: &Regression) -> Tensor {
    let per_row = prediction.size().last().copied().expect("a tensor has at least one axis");
    let channels = loss.channels as i64;
    let shape = [prediction.numel() as i64 / per_row, channels, per_row / channels];
    let target = b.upload(&shape, loss.target);
    let weight = b.upload(&[shape[0], 1, shape[2]], loss.weight);
    let difference = prediction.reshape(shape) - target; // [R, C, S]
    let distance = match loss.distance {
        Distance::L1 => difference.abs(),
        Distance::L2 => difference.square(),
        Distance::SmoothL1 { beta } => {
            difference.smooth_l1_loss(&difference.zeros_like(), tch::Reduction::None, f64::from(beta))
        }
    };
    total(&(distance * weight))
}

/// `Σ weight·(−log softmax(logits)[id])`; logits `[R, C·S·K]`.
pub(crate) fn cross_entropy(b: &Libtorch, logits: &Tensor, loss: &CrossEntropy) -> Tensor {
    let (channels, classes) = (loss.channels as i64, loss.classes as i64);
    let per_row = logits.size().last().copied().expect("a tensor has at least one axis");
    let shape = [logits.numel() as i64 / per_row, channels, per_row / (channels * classes), classes];
    let ids: Vec<i64> = loss.ids.iter().map(|id| i64::from(*id)).collect();
    let ids = b.upload(&[shape[0], shape[1], shape[2], 1], &ids);
    let weight = b.upload(&[shape[0], 1, shape[2]], loss.weight);
    let chosen = logits.reshape(shape).log_softmax(-1, Kind::Float).gather(-1, &ids, false).squeeze_dim(-1);
    -total(&(chosen * weight))
}

/// The losses of [`SoftLabels`]; logits `[R, K]`.
pub(crate) fn soft_labels(b: &Libtorch, logits: &Tensor, loss: &SoftLabels) -> Tensor {
    let size = logits.size();
    let (target, weight) = (b.upload(&size, loss.target), b.upload(&size, loss.weight));
    let log_likelihood = match loss.labels {
        Labels::One => target * logits.log_softmax(-1, Kind::Float),
        Labels::Many => &target * logits.log_sigmoid() + (1.0 - &target) * (-logits).log_sigmoid(),
    };
    -total(&(log_likelihood * weight))
}

/// `Σ (|t − μ|/b + ln b)`; prediction `[.., 2C]`.
pub(crate) fn laplace(b: &Libtorch, prediction: &Tensor, loss: &Laplace) -> Tensor {
    let halves = prediction.chunk(2, -1); // μ and ln b, [.., C]
    let target = b.upload(&halves[0].size(), loss.target);
    total(&((target - &halves[0]).abs() * (-&halves[1]).exp() + &halves[1]))
}

/// `Σ KL(softmax(logits) ‖ uniform)`; logits `[.., K]`.
pub(crate) fn uniform_divergence(logits: &Tensor) -> Tensor {
    let classes = logits.size().last().copied().expect("a tensor has at least one axis");
    let log_q = logits.log_softmax(-1, Kind::Float);
    total(&(log_q.exp() * (log_q + (classes as f64).ln())))
}
