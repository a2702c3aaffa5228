//! The class of an image by those of its nearest neighbours among labelled features (arXiv:1805.01978): nothing is
//! learnt, so it shows what the features themselves tell apart.

use crate::accuracy::Accuracy;
use crate::features::Features;
use simmim_engine::{Backend, Cpu, Linear, Operations, ParameterTable, Precision, Slot};

/// How neighbours vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbours {
    /// How many vote.
    pub count: usize,
    /// A vote weighs `exp(cosine / temperature)`.
    pub temperature: f64,
}

impl Default for Neighbours {
    /// The usual setting (arXiv:2104.14294, section 4).
    fn default() -> Self {
        Self { count: 20, temperature: 0.07 }
    }
}

/// Images that are compared with the bank together.
const BATCH: usize = 128;

/// How often the neighbours in `bank` vote for the class of each image of `queries`; classes are below `classes`.
///
/// # Panics
/// If the features are of different widths, or there is none in the bank.
pub fn knn(bank: &Features, queries: &Features, classes: usize, neighbours: Neighbours, threads: usize) -> Accuracy {
    assert_eq!(bank.width, queries.width, "features of one encoder have one width");
    assert!(!bank.is_empty(), "there are neighbours");
    let mut table = ParameterTable::default();
    let linear = Linear { weight: table.add("bank", &[bank.len(), bank.width]), bias: None };
    let b = Cpu::new(table, Precision::F32, threads);
    b.write_slot(Slot::Values, &unit_rows(bank));
    let queries_values = unit_rows(queries);
    let mut all = Accuracy::default();
    for (rows, labels) in queries_values.chunks(BATCH * bank.width).zip(queries.labels.chunks(BATCH)) {
        b.start(false);
        let rows = b.tensor(&[labels.len(), bank.width], rows);
        let cosines = b.read(&b.linear(&rows, &linear)); // [Q, N]
        let per_thread = labels.len().div_ceil(threads.max(1));
        let vote = |(cosines, labels): (&[f32], &[usize])| {
            let mut accuracy = Accuracy::default();
            for (cosines, label) in cosines.chunks_exact(bank.len()).zip(labels) {
                accuracy.count(&votes(cosines, &bank.labels, classes, neighbours), *label);
            }
            accuracy
        };
        let parts = cosines.chunks(per_thread * bank.len()).zip(labels.chunks(per_thread));
        all = std::thread::scope(|scope| {
            let running: Vec<_> = parts.map(|part| scope.spawn(move || vote(part))).collect();
            running.into_iter().fold(all, |sum, part| sum.and(part.join().expect("a vote does not panic")))
        });
    }
    all
}

/// The weight of all votes for each class.
fn votes(cosines: &[f32], labels: &[usize], classes: usize, neighbours: Neighbours) -> Vec<f64> {
    let count = neighbours.count.clamp(1, cosines.len());
    let mut nearest: Vec<u32> = (0..cosines.len() as u32).collect();
    // of equal ones the first, so that the result does not hang on how they are picked
    let nearer = |a: &u32, b: &u32| cosines[*b as usize].total_cmp(&cosines[*a as usize]).then(a.cmp(b));
    nearest.select_nth_unstable_by(count - 1, nearer);
    let mut votes = vec![0.0; classes];
    nearest.truncate(count);
    nearest.sort_unstable(); // sums in one order
    for neighbour in nearest {
        let neighbour = neighbour as usize;
        votes[labels[neighbour]] += (cosines[neighbour] as f64 / neighbours.temperature).exp();
    }
    votes
}

/// The features scaled to length 1.
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

    fn features(rows: &[[f32; 2]], labels: &[usize]) -> Features {
        Features { width: 2, values: rows.concat(), labels: labels.to_vec(), skipped: Vec::new() }
    }

    #[test]
    fn near_ones_outvote_many_far_ones_at_a_low_temperature() {
        let bank = features(&[[2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [0.0, 2.0]], &[0, 1, 1, 1]);
        let query = features(&[[5.0, 0.0]], &[0]);
        let right = |count, temperature| knn(&bank, &query, 2, Neighbours { count, temperature }, 2).right;
        assert_eq!(right(1, 1.0), 1);
        assert_eq!(right(4, 0.07), 1);
        assert_eq!(right(4, 100.0), 0); // all count the same, and three are of the other class
        assert_eq!(right(99, 0.07), 1);
    }
}
