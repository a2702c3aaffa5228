//! Linear probing: a linear classifier on frozen features, trained at several learning rates at once.
//!
//! The layer is trained with AdamW and a cosine schedule. Its input is normalized to mean 0 and standard deviation 1
//! with the statistics of all training features: batch normalization without an affine transform.

use super::{Accuracy, Features};
use simmim_data::Purpose;
use simmim_data::rng::{permutation, rng};
use simmim_engine::{
    Backend, CrossEntropy, Device, Linear, Operations, OptimizerStep, ParameterTable, Precision, StepSize,
};

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

/// Trains on `train` and classifies `val`; returns the accuracy of each learning rate. Labels of both are below
/// `classes`.
///
/// # Panics
/// If there are no features or no learning rates, or the widths of the features differ.
pub fn probe(
    train: &Features,
    val: &Features,
    classes: usize,
    config: &Probe,
    device: &impl Device,
) -> Vec<(f64, Accuracy)> {
    assert!(!train.is_empty() && !config.rates.is_empty(), "there are features and learning rates");
    assert_eq!(train.width, val.width, "features of one encoder have one width");
    let statistics = if config.is_normalized { statistics(train) } else { vec![(0.0, 1.0); train.width] };
    let (train_rows, val_rows) = (normalized(train, &statistics), normalized(val, &statistics));

    let mut table = ParameterTable::default();
    let heads: Vec<Linear> = (0..config.rates.len())
        .map(|i| Linear {
            weight: table.add(&format!("{i}.weight"), &[classes, train.width]),
            bias: Some(table.add(&format!("{i}.bias"), &[classes])),
        })
        .collect();
    let b = device.open(table, Precision::F32); // all zero: the problem is convex, so initial values do not matter

    let batch = config.batch_size.clamp(1, train.len());
    let per_epoch = train.len() / batch;
    let total = (config.epochs * per_epoch) as u64;
    let weight = vec![1.0; batch];
    let mut number = 0;
    for epoch in 0..config.epochs as u64 {
        let order = permutation(&mut rng(config.seed, Purpose::Shuffle, epoch, 0), train.len());
        for chosen in order.chunks_exact(batch) {
            let rows: Vec<f32> =
                chosen.iter().flat_map(|i| &train_rows[i * train.width..][..train.width]).copied().collect();
            let ids: Vec<u32> = chosen.iter().map(|i| train.labels[*i] as u32).collect();
            let loss = CrossEntropy { ids: &ids, weight: &weight, channels: 1, classes };
            b.clear_gradients();
            for head in &heads {
                b.start(true);
                let logits = b.linear(&b.tensor(&[batch, train.width], &rows), head);
                b.backward(&b.cross_entropy(&logits, &loss));
            }
            number += 1;
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * (number - 1) as f64 / total as f64).cos());
            // weight and bias of each layer
            let step = |rate: &f64| [StepSize { lr: (rate * cosine) as f32, weight_decay: 0.0 }; 2];
            let step_sizes: Vec<StepSize> = config.rates.iter().flat_map(step).collect();
            b.step(&OptimizerStep {
                number,
                betas: BETAS,
                eps: EPS,
                gradient_scale: 1.0 / batch as f64,
                clip_norm: None,
                step_sizes: &step_sizes,
            });
        }
    }
    let accuracies = heads.iter().map(|head| accuracy(&b, head, &val_rows, val, classes));
    config.rates.iter().copied().zip(accuracies).collect()
}

fn accuracy<B: Backend>(b: &B, head: &Linear, rows: &[f32], val: &Features, classes: usize) -> Accuracy {
    let mut accuracy = Accuracy::default();
    for (rows, labels) in rows.chunks(512 * val.width).zip(val.labels.chunks(512)) {
        b.start(false);
        let logits = b.read(&b.linear(&b.tensor(&[labels.len(), val.width], rows), head));
        for (logits, label) in logits.chunks_exact(classes).zip(labels) {
            accuracy.count(logits, *label);
        }
    }
    accuracy
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
        assert_eq!(results[0].0, 1e-7);
        assert!(results[1].1.top1() > 98.0, "{results:?}");
        // a second run gives the same result
        assert_eq!(results, probe(&classes(300, 1), &classes(300, 2), 3, &config, &DEVICE));
    }
}
