//! Weighted k-nearest-neighbor classification of frozen features (arXiv:1805.01978). It trains nothing, so it measures
//! the features alone.

use super::{Accuracy, Features};
use simmim_engine::{Backend, Device, Linear, Operations, ParameterTable, Precision, Slot};

/// Settings of the k-NN classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbors {
    /// Number of neighbors, `k`.
    pub count: usize,
    /// `τ`: a vote has the weight `exp(cosine / τ)`.
    pub temperature: f64,
}

impl Default for Neighbors {
    /// The settings of DINO (arXiv:2104.14294, section 4).
    fn default() -> Self {
        Self { count: 20, temperature: 0.07 }
    }
}

/// Queries per batch.
const BATCH: usize = 128;

/// Classifies `queries` by their nearest neighbors in `bank`. Labels of both are below `classes`.
///
/// # Panics
/// If the widths of the features differ, or the bank is empty.
pub fn knn(
    bank: &Features,
    queries: &Features,
    classes: usize,
    neighbors: Neighbors,
    device: &impl Device,
) -> Accuracy {
    assert_eq!(bank.width, queries.width, "features of one encoder have one width");
    assert!(!bank.is_empty(), "there are neighbors");
    let mut table = ParameterTable::default();
    let linear = Linear { weight: table.add("bank", &[bank.len(), bank.width]), bias: None };
    let b = device.open(table, Precision::F32);
    b.write_slot(Slot::Values, &unit_rows(bank));
    let query_rows = unit_rows(queries);
    let mut all = Accuracy::default();
    for (rows, labels) in query_rows.chunks(BATCH * bank.width).zip(queries.labels.chunks(BATCH)) {
        b.start(false);
        let rows = b.tensor(&[labels.len(), bank.width], rows);
        let cosines = b.read(&b.linear(&rows, &linear)); // [Q, N]
        let per_thread = labels.len().div_ceil(device.threads().max(1));
        let vote = |(cosines, labels): (&[f32], &[usize])| {
            let mut accuracy = Accuracy::default();
            for (cosines, label) in cosines.chunks_exact(bank.len()).zip(labels) {
                accuracy.count(&votes(cosines, &bank.labels, classes, neighbors), *label);
            }
            accuracy
        };
        let parts = cosines.chunks(per_thread * bank.len()).zip(labels.chunks(per_thread));
        all = std::thread::scope(|scope| {
            let running: Vec<_> = parts.map(|part| scope.spawn(move || vote(part))).collect();
            running.into_iter().fold(all, |sum, thread| sum.and(thread.join().expect("a vote does not panic")))
        });
    }
    all
}

/// Sum of the votes for each class, `[K]`.
fn votes(cosines: &[f32], labels: &[usize], classes: usize, neighbors: Neighbors) -> Vec<f64> {
    let count = neighbors.count.clamp(1, cosines.len());
    let mut nearest: Vec<u32> = (0..cosines.len() as u32).collect();
    // in a tie, the first is nearer, so that the result does not depend on the selection algorithm
    let nearer = |a: &u32, b: &u32| cosines[*b as usize].total_cmp(&cosines[*a as usize]).then(a.cmp(b));
    nearest.select_nth_unstable_by(count - 1, nearer);
    let mut votes = vec![0.0; classes];
    nearest.truncate(count);
    nearest.sort_unstable(); // a fixed order of summation
    for neighbor in nearest {
        let neighbor = neighbor as usize;
        votes[labels[neighbor]] += (cosines[neighbor] as f64 / neighbors.temperature).exp();
    }
    votes
}

/// The features scaled to unit length, `[N, D]`.
fn unit_rows(features: &Features) -> Vec<f32> {
    let mut rows = features.values.clone();
    for row in rows.chunks_exact_mut(features.width) {
        let length = row.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|v| *v = (*v as f64 / length) as f32);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_cpu::CpuDevice;

    fn features(rows: &[[f32; 2]], labels: &[usize]) -> Features {
        Features { width: 2, values: rows.concat(), labels: labels.to_vec(), skipped: Vec::new(), not_cached: None }
    }

    #[test]
    fn near_ones_outvote_many_far_ones_at_a_low_temperature() {
        let bank = features(&[[2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [0.0, 2.0]], &[0, 1, 1, 1]);
        let query = features(&[[5.0, 0.0]], &[0]);
        let correct = |count, temperature| {
            knn(&bank, &query, 2, Neighbors { count, temperature }, &CpuDevice { threads: 2 }).correct
        };
        assert_eq!(correct(1, 1.0), 1);
        assert_eq!(correct(4, 0.07), 1);
        assert_eq!(correct(4, 100.0), 0); // all votes count the same, and three are for the other class
        assert_eq!(correct(99, 0.07), 1);
    }
}
