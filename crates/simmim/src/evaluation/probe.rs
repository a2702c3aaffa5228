//! Linear probing: a linear classifier on frozen features, trained at several learning rates at once.
//!
//! The layer is trained with AdamW and a cosine schedule. Its input is normalized to mean 0 and standard deviation 1
//! with the statistics of all training features: batch normalization without an affine transform.
//!
//! Each rate is trained by itself, so one that diverges changes no other.

use super::ranks::Place;
use super::{Accuracy, Features};
use simmim_data::Purpose;
use simmim_data::rng::{permutation, rng};
use simmim_engine::{Backend, CrossEntropy, Device, Linear, OptimizerStep, ParameterTable, Precision, Slot, StepSize};

/// Added to a variance (PyTorch, `BatchNorm1d`).
const NORM_EPS: f64 = 1e-5;

/// AdamW's `β₁`, `β₂` and `ε` (PyTorch, `AdamW`).
const BETAS: (f32, f32) = (0.9, 0.999);
const EPS: f32 = 1e-8;

/// Settings of a linear probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Epochs.
    pub epochs: usize,
    /// Features per step, or all features if there are fewer.
    pub batch_size: usize,
    /// Peak learning rates; each one trains its own layer.
    pub rates: Vec<f64>,
    /// Whether features are normalized to mean 0 and standard deviation 1.
    pub is_normalized: bool,
    /// Seed of the order of the features.
    pub seed: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            epochs: 50,
            batch_size: 512,
            rates: vec![1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
            is_normalized: true,
            seed: 0,
        }
    }
}

/// A learning rate and the accuracy that it reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbedRate {
    /// The learning rate.
    pub rate: f64,
    /// The accuracy; `None` if the training diverged: a loss, a weight or a score is not finite.
    pub accuracy: Option<Accuracy>,
}

/// The rate with the highest top-1 accuracy, and this accuracy; in a tie that of the lowest rate. `None` if all diverged.
pub fn best_rate(rates: &[ProbedRate]) -> Option<(f64, Accuracy)> {
    let trained = rates.iter().filter_map(|probed| Some((probed.rate, probed.accuracy?)));
    let better = |best: (f64, Accuracy), other: (f64, Accuracy)| {
        let ((rate, accuracy), (other_rate, other_accuracy)) = (best, other);
        let is_better = other_accuracy.correct > accuracy.correct;
        let is_lower = other_accuracy.correct == accuracy.correct && other_rate < rate;
        if is_better || is_lower { other } else { best }
    };
    trained.reduce(better)
}

/// Trains on `train` and classifies `val`, at each learning rate. Labels of both are below `classes`.
///
/// # Panics
/// If there are no features or no learning rates, or the widths of the features differ.
pub fn probe(
    train: &Features,
    val: &Features,
    classes: usize,
    config: &Probe,
    device: &impl Device,
) -> Vec<ProbedRate> {
    assert!(!train.is_empty() && !config.rates.is_empty(), "there are features and learning rates");
    assert_eq!(train.width, val.width, "features of one encoder have one width");
    let statistics = if config.is_normalized { statistics(train) } else { vec![(0.0, 1.0); train.width] };
    let (train_rows, val_rows) = (normalized(train, &statistics), normalized(val, &statistics));
    let of_rate = |rate: &f64| {
        let mut table = ParameterTable::default();
        let weight = table.add("weight", &[classes, train.width]);
        let head = Linear { weight, bias: Some(table.add("bias", &[classes])) };
        // all zero: the problem is convex, so initial values do not matter
        let b = device.open(table, Precision::F32);
        let is_trained = fit(&b, &head, &train_rows, train, classes, config, *rate);
        let accuracy = if is_trained { accuracy(&b, &head, &val_rows, val, classes) } else { None };
        ProbedRate { rate: *rate, accuracy }
    };
    config.rates.iter().map(of_rate).collect()
}

/// Trains a layer at a learning rate; returns whether everything stays finite.
fn fit<B: Backend>(
    b: &B,
    head: &Linear,
    rows: &[f32],
    train: &Features,
    classes: usize,
    config: &Probe,
    rate: f64,
) -> bool {
    let batch = config.batch_size.clamp(1, train.len());
    let per_epoch = train.len() / batch;
    let total = (config.epochs * per_epoch) as u64;
    let weight = vec![1.0; batch];
    let mut number = 0;
    for epoch in 0..config.epochs as u64 {
        let order = permutation(&mut rng(config.seed, Purpose::Shuffle, epoch, 0), train.len());
        for chosen in order.chunks_exact(batch) {
            let rows: Vec<f32> = chosen.iter().flat_map(|i| &rows[i * train.width..][..train.width]).copied().collect();
            let ids: Vec<u32> = chosen.iter().map(|i| train.labels[*i] as u32).collect();
            b.clear_gradients();
            b.start(true);
            let logits = b.linear(&b.tensor(&[batch, train.width], &rows), head);
            let loss = b.cross_entropy(&logits, &CrossEntropy { ids: &ids, weight: &weight, channels: 1, classes });
            b.backward(&loss);
            number += 1;
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * (number - 1) as f64 / total as f64).cos());
            let norm = b.step(&OptimizerStep {
                number,
                betas: BETAS,
                eps: EPS,
                gradient_scale: 1.0 / batch as f64,
                clip_norm: None,
                // weight and bias
                step_sizes: &[StepSize { lr: (rate * cosine) as f32, weight_decay: 0.0 }; 2],
            });
            if !(b.read(&loss)[0].is_finite() && b.read(&norm)[0].is_finite()) {
                return false;
            }
        }
    }
    b.read_slot(Slot::Values).iter().all(|value| value.is_finite())
}

/// The accuracy of a layer; `None` if a score is not finite.
fn accuracy<B: Backend>(b: &B, head: &Linear, rows: &[f32], val: &Features, classes: usize) -> Option<Accuracy> {
    let mut accuracy = Accuracy::default();
    for (rows, labels) in rows.chunks(512 * val.width).zip(val.labels.chunks(512)) {
        b.start(false);
        let logits = b.read(&b.linear(&b.tensor(&[labels.len(), val.width], rows), head));
        for (logits, label) in logits.chunks_exact(classes).zip(labels) {
            accuracy.count(Some(Place::of(logits, &[*label]).ok()?));
        }
    }
    Some(accuracy)
}

/// Mean and standard deviation of each dimension of the features.
fn statistics(features: &Features) -> Vec<(f64, f64)> {
    let count = features.len() as f64;
    let mut sums = vec![(0.0, 0.0); features.width];
    for row in features.values.chunks_exact(features.width) {
        for ((sum, squares), v) in sums.iter_mut().zip(row) {
            *sum += *v as f64;
            *squares += (*v as f64).powi(2);
        }
    }
    let of = |(sum, squares): (f64, f64)| {
        let mean = sum / count;
        (mean, ((squares / count - mean * mean).max(0.0) + NORM_EPS).sqrt())
    };
    sums.into_iter().map(of).collect()
}

fn normalized(features: &Features, statistics: &[(f64, f64)]) -> Vec<f32> {
    let value = |(v, (mean, std)): (&f32, &(f64, f64))| ((*v as f64 - mean) / std) as f32;
    features.values.chunks_exact(features.width).flat_map(|row| row.iter().zip(statistics).map(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::DEVICE;
    use simmim_data::rng::normal;

    /// Three classes that are separable by two features, with means far from 0 and very different deviations.
    fn classes(count: usize, seed: u64) -> Features {
        let mut rng = rng(seed, Purpose::Initialize, 0, 0);
        let labels: Vec<usize> = (0..count).map(|i| i % 3).collect();
        let row = |label: &usize| {
            let (x, y) = ([0.0, 6.0, 0.0][*label], [0.0, 0.0, 6.0][*label]);
            [50.0 + 0.01 * (x + normal(&mut rng)) as f32, 10.0 * (y + normal(&mut rng)) as f32]
        };
        Features {
            width: 2,
            values: labels.iter().flat_map(row).collect(),
            labels,
            skipped: Vec::new(),
            not_cached: None,
        }
    }

    #[test]
    fn classes_that_a_line_separates_are_learned_at_a_good_rate() {
        let config = Probe { epochs: 20, batch_size: 32, rates: vec![1e-7, 3e-2], ..Probe::default() };
        let results = probe(&classes(300, 1), &classes(300, 2), 3, &config, &DEVICE);
        assert_eq!(results[0].rate, 1e-7);
        assert!(results[1].accuracy.unwrap().top1() > 98.0, "{results:?}");
        // a second run gives the same result
        assert_eq!(results, probe(&classes(300, 1), &classes(300, 2), 3, &config, &DEVICE));
    }

    #[test]
    fn a_rate_that_diverges_is_never_the_best_and_changes_no_other() {
        let probed = |rates: &[f64]| {
            let config = Probe { epochs: 20, batch_size: 32, rates: rates.to_vec(), ..Probe::default() };
            probe(&classes(300, 1), &classes(300, 2), 3, &config, &DEVICE)
        };
        let alone = probed(&[3e-2]);
        let beside = probed(&[1e38, 3e-2, f64::MAX]);
        assert_eq!((beside[0].accuracy, beside[1], beside[2].accuracy), (None, alone[0], None));
        assert_eq!(best_rate(&beside), best_rate(&alone));
        assert_eq!(best_rate(&probed(&[1e38])), None);
    }

    #[test]
    fn the_best_of_equal_rates_is_the_lowest() {
        let of = |rate, correct| ProbedRate { rate, accuracy: Some(Accuracy { images: 9, correct, in_top5: 9.0 }) };
        let diverged = ProbedRate { rate: 1e-9, accuracy: None };
        let rate = |rates: &[ProbedRate]| best_rate(rates).map(|(rate, _)| rate);
        assert_eq!(rate(&[of(1.0, 5.0), of(0.1, 5.0), of(0.5, 5.0), diverged, of(2.0, 4.0)]), Some(0.1));
        assert_eq!(rate(&[diverged, of(0.1, 5.0), of(1.0, 5.5)]), Some(1.0));
        assert_eq!(rate(&[diverged]), None);
    }

    #[test]
    fn features_that_say_nothing_are_chance() {
        // all equal, and as many of each class: every score is the bias, which is the same for all
        let equal = |count: usize| Features {
            width: 3,
            values: vec![0.25; 3 * count],
            labels: (0..count).map(|i| i % 7).collect(),
            skipped: Vec::new(),
            not_cached: None,
        };
        let config = Probe { epochs: 0, rates: vec![0.1], ..Probe::default() };
        let accuracy = probe(&equal(28), &equal(70), 7, &config, &DEVICE)[0].accuracy.unwrap();
        assert!((accuracy.top1() - 100.0 / 7.0).abs() < 1e-9, "{accuracy:?}");
    }
}
