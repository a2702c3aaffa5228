//! Losses: sums in f32 over what they are given.

use crate::Libtorch;
use simmim_engine::{CrossEntropy, Distance, Labels, Regression};
use tch::{Kind, Tensor};

fn total(terms: &Tensor) -> Tensor {
    terms.flatten(0, -1).sum_dim_intlist(0, true, Kind::Float) // [1]
}

/// Rows, channels and what is left of each, of a loss.
fn regression_shape(prediction: &Tensor, loss: &Regression) -> [i64; 3] {
    let per_row = prediction.size().last().copied().expect("a tensor has at least one axis");
    let channels = loss.channels as i64;
    [prediction.numel() as i64 / per_row, channels, per_row / channels]
}

/// Target and weights of a regression.
pub(crate) fn regression_inputs(b: &Libtorch, prediction: &Tensor, loss: &Regression) -> [Tensor; 2] {
    let shape = regression_shape(prediction, loss);
    [b.upload(&shape, loss.target), b.upload(&[shape[0], 1, shape[2]], loss.weight)]
}

/// `Σ weight·distance`; prediction `[R, C·S]`.
pub(crate) fn regression(prediction: &Tensor, loss: &Regression, [target, weight]: &[Tensor; 2]) -> Tensor {
    let difference = prediction.reshape(regression_shape(prediction, loss)) - target; // [R, C, S]
    let distance = match loss.distance {
        Distance::L1 => difference.abs(),
        Distance::L2 => difference.square(),
        Distance::SmoothL1 { beta } => {
            difference.smooth_l1_loss(&difference.zeros_like(), tch::Reduction::None, f64::from(beta))
        }
    };
    total(&(distance * weight))
}

/// Rows, channels, places and classes of a loss.
fn classes_shape(logits: &Tensor, loss: &CrossEntropy) -> [i64; 4] {
    let (channels, classes) = (loss.channels as i64, loss.classes as i64);
    let per_row = logits.size().last().copied().expect("a tensor has at least one axis");
    [logits.numel() as i64 / per_row, channels, per_row / (channels * classes), classes]
}

/// Classes and weights of a classification.
pub(crate) fn cross_entropy_inputs(b: &Libtorch, logits: &Tensor, loss: &CrossEntropy) -> [Tensor; 2] {
    let shape = classes_shape(logits, loss);
    let ids: Vec<i64> = loss.ids.iter().map(|id| i64::from(*id)).collect();
    [b.upload(&[shape[0], shape[1], shape[2], 1], &ids), b.upload(&[shape[0], 1, shape[2]], loss.weight)]
}

/// `Σ weight·(−log softmax(logits)[id])`; logits `[R, C·S·K]`.
pub(crate) fn cross_entropy(logits: &Tensor, loss: &CrossEntropy, [ids, weight]: &[Tensor; 2]) -> Tensor {
    let logits = logits.reshape(classes_shape(logits, loss));
    let chosen = logits.log_softmax(-1, Kind::Float).gather(-1, ids, false).squeeze_dim(-1);
    -total(&(chosen * weight))
}

/// The losses of soft labels; logits, target and weights `[R, K]`.
pub(crate) fn soft_labels(logits: &Tensor, labels: Labels, target: &Tensor, weight: &Tensor) -> Tensor {
    let log_likelihood = match labels {
        Labels::One => target * logits.log_softmax(-1, Kind::Float),
        Labels::Many => target * logits.log_sigmoid() + (1.0 - target) * (-logits).log_sigmoid(),
    };
    -total(&(log_likelihood * weight))
}

/// The shape of a half of a prediction.
pub(crate) fn half_as_wide(prediction: &Tensor) -> Vec<i64> {
    let mut size = prediction.size();
    if let Some(width) = size.last_mut() {
        *width /= 2;
    }
    size
}

/// `Σ (|t − μ|/b + ln b)`; prediction `[.., 2C]`.
pub(crate) fn laplace(prediction: &Tensor, target: &Tensor) -> Tensor {
    let halves = prediction.chunk(2, -1); // μ and ln b, [.., C]
    total(&((target - &halves[0]).abs() * (-&halves[1]).exp() + &halves[1]))
}

/// `Σ KL(softmax(logits) ‖ uniform)`; logits `[.., K]`.
pub(crate) fn uniform_divergence(logits: &Tensor) -> Tensor {
    let classes = logits.size().last().copied().expect("a tensor has at least one axis");
    let log_q = logits.log_softmax(-1, Kind::Float);
    total(&(log_q.exp() * (log_q + (classes as f64).ln())))
}
