//! A linear probe: one linear layer learns classes from frozen features, at several learning rates in one pass.
//!
//! The layer is trained with AdamW on a cosine; before it features are brought to mean 0 and deviation 1, which is
//! batch normalisation without scale and shift, with the statistics of all training images.

use crate::accuracy::Accuracy;
use crate::features::Features;
use simmim_data::Purpose;
use simmim_data::rng::{permutation, rng};
use simmim_engine::{
    Backend, Cpu, CrossEntropy, Linear, Operations, ParameterTable, Precision, Slot, StepSize, Update,
};

/// Added to a variance (PyTorch, `BatchNorm1d`).
const NORM_EPS: f64 = 1e-5;

/// Decay rates of AdamW's moments, and what guards its root.
const BETAS: (f32, f32) = (0.9, 0.999);
const EPS: f32 = 1e-8;

/// How the layer is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Passes over the features.
    pub epochs: usize,
    /// Features per update; all if there are fewer.
    pub batch_size: usize,
    /// Peak learning rates; each trains a layer of its own.
    pub rates: Vec<f64>,
    /// Whether features are brought to mean 0 and deviation 1.
    pub is_normalised: bool,
    /// Seed of the order.
    pub seed: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            epochs: 50,
            batch_size: 512,
            rates: vec![1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
            is_normalised: true,
            seed: 0,
        }
    }
}

/// Trains on `train` and guesses the classes of `val`, which are below `classes`; one accuracy for each rate.
///
/// # Panics
/// If there are no features or no rates, or the widths differ.
pub fn probe(train: &Features, val: &Features, classes: usize, config: &Probe, threads: usize) -> Vec<(f64, Accuracy)> {
    assert!(!train.is_empty() && !config.rates.is_empty(), "there is something to learn, and a rate");
    assert_eq!(train.width, val.width, "features of one encoder have one width");
    let statistics = if config.is_normalised { statistics(train) } else { vec![(0.0, 1.0); train.width] };
    let (train_rows, val_rows) = (normalised(train, &statistics), normalised(val, &statistics));

    let mut table = ParameterTable::default();
    let heads: Vec<Linear> = (0..config.rates.len())
        .map(|i| Linear {
            weight: table.add(&format!("{i}.weight"), &[classes, train.width]),
            bias: Some(table.add(&format!("{i}.bias"), &[classes])),
        })
        .collect();
    let len = table.len();
    let b = Cpu::new(table, Precision::F32, threads);
    b.write_slot(Slot::Values, &vec![0.0; len]); // the problem is convex: any beginning will do

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
            let loss = CrossEntropy { ids: &ids, weight: &weight, channels: 1, classes, denominator: batch as f64 };
            b.clear_gradients();
            for head in &heads {
                b.start(true);
                let logits = b.linear(&b.tensor(&[batch, train.width], &rows), head);
                b.backward(&b.cross_entropy(&logits, &loss));
            }
            number += 1;
            let share = 0.5 * (1.0 + (std::f64::consts::PI * (number - 1) as f64 / total as f64).cos());
            // weight and bias of each layer
            let step = |rate: &f64| [StepSize { lr: (rate * share) as f32, weight_decay: 0.0 }; 2];
            let steps: Vec<StepSize> = config.rates.iter().flat_map(step).collect();
            b.update(&Update { number, betas: BETAS, eps: EPS, gradient_scale: 1.0, steps: &steps });
        }
    }
    let accuracies = heads.iter().map(|head| accuracy(&b, head, &val_rows, val, classes));
    config.rates.iter().copied().zip(accuracies).collect()
}

fn accuracy(b: &Cpu, head: &Linear, rows: &[f32], val: &Features, classes: usize) -> Accuracy {
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

/// Mean and deviation of each feature.
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

fn normalised(features: &Features, statistics: &[(f64, f64)]) -> Vec<f32> {
    let value = |(v, (mean, std)): (&f32, &(f64, f64))| ((*v as f64 - mean) / std) as f32;
    features.values.chunks_exact(features.width).flat_map(|row| row.iter().zip(statistics).map(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::rng::normal;

    /// Two features that tell three classes apart, far from 0 and of very different deviations.
    fn classes(count: usize, seed: u64) -> Features {
        let mut rng = rng(seed, Purpose::Initialise, 0, 0);
        let labels: Vec<usize> = (0..count).map(|i| i % 3).collect();
        let row = |label: &usize| {
            let (x, y) = ([0.0, 6.0, 0.0][*label], [0.0, 0.0, 6.0][*label]);
            [50.0 + 0.01 * (x + normal(&mut rng)) as f32, 10.0 * (y + normal(&mut rng)) as f32]
        };
        Features { width: 2, values: labels.iter().flat_map(row).collect(), labels, skipped: Vec::new() }
    }

    #[test]
    fn classes_that_a_line_separates_are_learnt_at_a_good_rate() {
        let config = Probe { epochs: 20, batch_size: 32, rates: vec![1e-7, 3e-2], ..Probe::default() };
        let results = probe(&classes(300, 1), &classes(300, 2), 3, &config, 1);
        assert_eq!(results[0].0, 1e-7);
        assert!(results[1].1.top1() > 98.0, "{results:?}");
        // the same again gives the same
        assert_eq!(results, probe(&classes(300, 1), &classes(300, 2), 3, &config, 1));
    }
}
