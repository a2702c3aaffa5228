//! Weighted k-nearest-neighbor classification of frozen features (arXiv:1805.01978). It trains nothing, so it measures
//! the features alone.
//!
//! Nothing depends on the order of the neighbors. Those that are equally near at the `k`-th place share the votes that
//! are left: each has the same part of a vote. Classes with equal votes share their ranks (see `ranks.rs`), classes
//! without a vote have none, and there are no more ranks than neighbors.

use super::cosines::{CosineBank, scale_to_unit};
use super::ranks::Place;
use super::{Accuracy, Features};
use simmim_engine::{Alone, Collective, CollectiveError, Device};

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

/// Classifies `queries` by their nearest neighbors in `bank`. A feature vector of zeros has no direction; its cosine with
/// all others is 0.
///
/// # Panics
/// If the widths of the features differ, the bank is empty, or a feature is not finite.
pub fn knn(bank: &Features, queries: &Features, neighbors: Neighbors, device: &impl Device) -> Accuracy {
    knn_on_ranks(bank, queries, neighbors, device, &mut Alone).expect("a rank alone loses none")
}

/// [`knn`] on all ranks, which have the same features: each one classifies its share of the queries. The first one has the
/// accuracy, with the bits of one process.
///
/// # Errors
/// If a rank is lost.
///
/// # Panics
/// As [`knn`].
pub fn knn_on_ranks(
    bank: &Features,
    queries: &Features,
    neighbors: Neighbors,
    device: &impl Device,
    collective: &mut dyn Collective,
) -> Result<Accuracy, CollectiveError> {
    assert_eq!(bank.width, queries.width, "features of one encoder have one width");
    assert!(!bank.is_empty(), "there are neighbors");
    let cosine_bank = CosineBank::new(bank.len(), bank.width, device);
    cosine_bank.fill(&unit_rows(bank));
    let query_rows = unit_rows(queries);
    // whole batches, as one process has them
    let share = queries.len().div_ceil(BATCH).div_ceil(collective.world()) * BATCH;
    let own = (share * collective.rank()).min(queries.len())..(share * (collective.rank() + 1)).min(queries.len());
    let (rows, labels) = (&query_rows[own.start * bank.width..own.end * bank.width], &queries.labels[own]);
    let mut places: Vec<Option<Place>> = Vec::with_capacity(labels.len());
    for (rows, labels) in rows.chunks(BATCH * bank.width).zip(labels.chunks(BATCH)) {
        let cosines = cosine_bank.cosines(rows); // [Q, N]
        let per_thread = labels.len().div_ceil(device.threads().max(1));
        let places_of = |(cosines, labels): (&[f32], &[usize])| -> Vec<Option<Place>> {
            let each = cosines.chunks_exact(bank.len()).zip(labels);
            each.map(|(cosines, label)| place(cosines, &bank.labels, *label, neighbors)).collect()
        };
        let parts = cosines.chunks(per_thread * bank.len()).zip(labels.chunks(per_thread));
        std::thread::scope(|scope| {
            let running: Vec<_> = parts.map(|part| scope.spawn(move || places_of(part))).collect();
            for thread in running {
                places.extend(thread.join().expect("a vote does not panic"));
            }
        });
    }
    // in the order of the queries: a sum in another order may differ in its last bits
    let mut accuracy = Accuracy::default();
    let own = serde_json::to_vec(&places).expect("numbers serialize");
    for of_rank in collective.gather_bytes(&own)? {
        let places: Vec<Option<Place>> = serde_json::from_slice(&of_rank).expect("a rank sends its places");
        places.into_iter().for_each(|place| accuracy.count(place));
    }
    Ok(accuracy)
}

/// The place of `label` among the classes that the neighbors name; `None` if they do not name it.
fn place(cosines: &[f32], labels: &[usize], label: usize, neighbors: Neighbors) -> Option<Place> {
    let count = neighbors.count.clamp(1, cosines.len());
    let mut descending: Vec<u32> = (0..cosines.len() as u32).collect();
    let farther = |a: &u32, b: &u32| cosines[*b as usize].total_cmp(&cosines[*a as usize]);
    let (_, last, _) = descending.select_nth_unstable_by(count - 1, farther);
    let last = cosines[*last as usize];
    let nearer = cosines.iter().filter(|cosine| **cosine > last).count();
    let tied = cosines.iter().filter(|cosine| **cosine == last).count();
    let share = (count - nearer) as f64 / tied as f64;
    let vote = |cosine: f32| if cosine > last { 1.0 } else { share };
    // class, cosine and vote of each neighbor
    let mut votes: Vec<(usize, f64, f64)> = cosines
        .iter()
        .zip(labels)
        .filter(|(cosine, _)| **cosine >= last)
        .map(|(cosine, label)| (*label, f64::from(*cosine), vote(*cosine)))
        .collect();
    // by class and then by distance: classes with the same votes get the same bits
    votes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let classes: Vec<&[(usize, f64, f64)]> = votes.chunk_by(|a, b| a.0 == b.0).collect();
    let own = classes.iter().position(|votes| votes[0].0 == label)?;
    let scores: Vec<f64> = classes.iter().map(|votes| score(votes, neighbors.temperature)).collect();
    let place = Place::of(&scores, &[own]).expect("cosines of finite features are finite");
    Some(place.limited_to(count))
}

/// The logarithm of `Σ vote·exp(cosine / τ)` of a class, times τ below 1. It ranks classes as the sum does, and neither
/// overflows nor vanishes at any temperature. `votes` are class, cosine and vote, the nearest first.
fn score(votes: &[(usize, f64, f64)], temperature: f64) -> f64 {
    let nearest = votes[0].1;
    let relative = |(_, cosine, vote): &(usize, f64, f64)| vote * ((cosine - nearest) / temperature).exp();
    let log = votes.iter().map(relative).sum::<f64>().ln();
    if temperature < 1.0 { nearest + temperature * log } else { nearest / temperature + log }
}

/// The features scaled to unit length, `[N, D]`; zeros stay zeros.
fn unit_rows(features: &Features) -> Vec<f32> {
    let mut rows = features.values.clone();
    scale_to_unit(&mut rows, features.width);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_cpu::CpuDevice;

    fn features<const W: usize>(rows: &[[f32; W]], labels: &[usize]) -> Features {
        Features { width: W, values: rows.concat(), labels: labels.to_vec(), skipped: Vec::new(), not_cached: None }
    }

    fn of(bank: &Features, queries: &Features, count: usize, temperature: f64) -> Accuracy {
        let with = |threads| knn(bank, queries, Neighbors { count, temperature }, &CpuDevice { threads });
        let accuracy = with(2);
        assert_eq!(accuracy, with(5), "any number of threads");
        accuracy
    }

    #[test]
    fn near_ones_outvote_many_far_ones_at_a_low_temperature() {
        let bank = features(&[[2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [0.0, 2.0]], &[0, 1, 1, 1]);
        let query = features(&[[5.0, 0.0]], &[0]);
        let correct = |count, temperature| of(&bank, &query, count, temperature).correct;
        assert_eq!(correct(1, 1.0), 1.0);
        assert_eq!(correct(4, 0.07), 1.0);
        assert_eq!(correct(4, 100.0), 0.0); // all votes count the same, and three are for the other class
        assert_eq!(correct(99, 0.07), 1.0);
        // exp(1 / τ) is beyond f64, and so is 1 / τ
        assert_eq!((correct(4, 1e-4), correct(4, 1e-310)), (1.0, 1.0));
        assert_eq!(correct(4, f64::MAX), 0.0);
    }

    #[test]
    fn a_class_that_no_neighbor_names_has_no_rank() {
        // one neighbor of each of three classes, of which the query's own is the farthest
        let bank = features(&[[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]], &[0, 1, 2]);
        let query = features(&[[1.0, 0.0]], &[2]);
        let in_top5 = |count| of(&bank, &query, count, 0.07).in_top5;
        assert_eq!((in_top5(1), in_top5(2), in_top5(3)), (0.0, 0.0, 1.0));
    }

    #[test]
    fn equal_features_are_chance_whatever_their_order() {
        // 37 of 7 classes: no multiple of any width of vectors, and some classes have one more
        let labels: Vec<usize> = (0..37).map(|i| i * 5 % 7).collect();
        let check = |row: [f32; 3], count: usize, top1: f64, top5: f64| {
            let bank = features(&[row; 37], &labels);
            for label in 0..7 {
                let found = of(&bank, &features(&[[0.3, 0.1, 0.7]], &[label]), count, 0.07);
                let is_frequent = labels.iter().filter(|other| **other == label).count() == 6;
                // those with six images share the first two places
                let expected =
                    if is_frequent { (top1, top5) } else { (0.0, (count.min(5) as f64 - 2.0).max(0.0) / 5.0) };
                assert!((found.correct - expected.0).abs() < 1e-12, "{row:?} {count} {label}: {found:?}");
                assert!((found.in_top5 - expected.1).abs() < 1e-12, "{row:?} {count} {label}: {found:?}");
            }
        };
        for row in [[1.0, 0.0, 0.0], [0.1, 0.2, 0.3], [1e-30, 1e-30, 0.0], [0.0; 3]] {
            check(row, 20, 0.5, 1.0);
            check(row, 1, 0.5, 0.5);
        }
    }

    #[test]
    fn neighbors_that_are_tied_at_the_last_place_share_its_vote() {
        // by cosine: one of class 2, then three tied, two of class 1 and one of class 0
        let rows = [[1.0, 0.0], [1.0, 1.0], [2.0, 2.0], [4.0, 4.0], [0.0, 1.0]];
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 1, 0, 3]] {
            let labels = [2, 1, 1, 0, 3];
            let bank = features(&order.map(|i| rows[i]), &order.map(|i| labels[i]));
            let correct =
                |label, count, temperature| of(&bank, &features(&[[1.0, 0.0]], &[label]), count, temperature).correct;
            // votes of k = 2 at a high temperature: 1 for class 2, 2/3 for class 1, 1/3 for class 0
            assert_eq!([2, 1, 0].map(|label| correct(label, 2, 1e6)), [1.0, 0.0, 0.0], "{order:?}");
            // of k = 4: 1 for class 2, 2 for class 1, 1 for class 0
            assert_eq!([2, 1, 0].map(|label| correct(label, 4, 1e6)), [0.0, 1.0, 0.0], "{order:?}");
            let in_top5 = |label| of(&bank, &features(&[[1.0, 0.0]], &[label]), 2, 1e6).in_top5;
            // two neighbors name two classes at most: 2, and then the one with the larger share
            assert_eq!([2, 1, 0, 3].map(in_top5), [1.0, 1.0, 0.0, 0.0], "{order:?}");
        }
    }
}
