//! Ranks of scores, in one place: how ties count, and what is not finite.
//!
//! Scores that are equal share their places: whatever is computed from ranks is the expected value over all orders of
//! the tied, each as likely as any other. So a model that knows nothing scores as well as chance, and the same in every
//! run, where a fixed order would favor some classes and `>=` all of them. Scores that are not finite have no rank.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// A score that is not finite, and so has no rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// Its index among the scores.
    pub index: usize,
    /// Its value.
    pub value: f64,
}

/// The places that the labels of an image may take when the scores of all classes are ranked, highest first. Of several
/// labels, the highest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of classes with a higher score.
    higher: usize,
    /// Number of classes with the same score, these labels included.
    tied: usize,
    /// Number of labels among them.
    own: usize,
    /// Number of places that there are.
    places: usize,
}

impl Place {
    /// The places of `labels`, of which there is at least one.
    ///
    /// # Errors
    /// If a score is not finite.
    ///
    /// # Panics
    /// If there is no label, or a label has no score.
    pub fn of<T: Copy + Into<f64>>(scores: &[T], labels: &[usize]) -> Result<Self, NotFinite> {
        Self::of_any(scores, labels).map(|place| place.expect("an image has a label"))
    }

    /// The places of any number of `labels`; `None` if there is none.
    ///
    /// # Errors
    /// If a score is not finite.
    ///
    /// # Panics
    /// If a label has no score.
    pub fn of_any<T: Copy + Into<f64>>(scores: &[T], labels: &[usize]) -> Result<Option<Self>, NotFinite> {
        let score = |index: usize| -> f64 { scores[index].into() };
        let mut all = (0..scores.len()).map(|index| NotFinite { index, value: score(index) });
        if let Some(found) = all.find(|score| !score.value.is_finite()) {
            return Err(found);
        }
        let Some(highest) = labels.iter().map(|label| score(*label)).reduce(f64::max) else { return Ok(None) };
        let mut place = Self { higher: 0, tied: 0, own: 0, places: scores.len() };
        for class in 0..scores.len() {
            place.higher += usize::from(score(class) > highest);
            if score(class) == highest {
                place.tied += 1;
                place.own += usize::from(labels.contains(&class));
            }
        }
        Ok(Some(place))
    }

    /// The same, where only the first `places` are given.
    #[must_use]
    pub fn limited_to(self, places: usize) -> Self {
        Self { places: self.places.min(places), ..self }
    }

    /// Probability that one of the labels is among the first `k`, over all orders of the tied.
    pub fn chance_within(self, k: usize) -> f64 {
        let inside = k.min(self.places).saturating_sub(self.higher).min(self.tied);
        if self.own == 1 {
            return inside as f64 / self.tied as f64;
        }
        // that none is: the labels all lie among the others' places
        let others = self.tied - self.own;
        1.0 - (0..inside).map(|i| others.saturating_sub(i) as f64 / (self.tied - i) as f64).product::<f64>()
    }
}

/// Average precision of a ranking by `scores`, from 0 to 1: the mean, over the relevant items, of the precision among all
/// items down to that place. `None` if no item is relevant. Tied items are expected to lie evenly among each other
/// (McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of tied
/// scores", ECIR 2008).
///
/// # Panics
/// If a score is not finite: [`Place::of`] finds it.
pub fn average_precision(scores: &[f32], is_relevant: impl Fn(usize) -> bool) -> Option<f64> {
    assert!(scores.iter().all(|score| score.is_finite()), "only finite scores have ranks");
    let descending = |a: &usize, b: &usize| scores[*b].partial_cmp(&scores[*a]).unwrap_or(Ordering::Equal);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(descending);
    // items and relevant ones before the tied
    let (mut before, mut found, mut sum) = (0, 0, 0.0);
    for tied in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let relevant = tied.iter().filter(|item| is_relevant(**item)).count();
        if relevant > 0 {
            // of a relevant item at one of these places, each of the others before it is as likely to be relevant
            let likely = (relevant - 1) as f64 / (tied.len() - 1).max(1) as f64;
            let precision = |i: usize| ((found + 1) as f64 + i as f64 * likely) / (before + i + 1) as f64;
            sum += relevant as f64 / tied.len() as f64 * (0..tied.len()).map(precision).sum::<f64>();
        }
        before += tied.len();
        found += relevant;
    }
    (found > 0).then(|| sum / found as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scores: &[f32], labels: &[usize], k: usize, expected: f64) {
        let found = Place::of(scores, labels).unwrap().chance_within(k);
        assert!((found - expected).abs() < 1e-12, "{scores:?} {labels:?} {k}: {found}, expected {expected}");
    }

    #[test]
    fn the_tied_share_their_places() {
        check(&[0.1, 0.9, 0.5], &[1], 1, 1.0);
        check(&[0.1, 0.9, 0.5], &[0], 2, 0.0);
        check(&[0.1, 0.9, 0.5], &[0], 3, 1.0);
        // one is higher, two share the second and third place
        check(&[0.5, 0.9, 0.5], &[0], 1, 0.0);
        check(&[0.5, 0.9, 0.5], &[0], 2, 0.5);
        check(&[0.5, 0.9, 0.5], &[0], 3, 1.0);
        check(&[0.0, -0.0], &[0], 1, 0.5);
        // a head of zeros is chance
        for k in [1, 5, 7, 9] {
            check(&[0.0; 7], &[3], k, k.min(7) as f64 / 7.0);
        }
    }

    #[test]
    fn one_of_several_labels_is_enough() {
        check(&[0.1, 0.9, 0.5], &[0, 1], 1, 1.0);
        check(&[0.5, 0.5, 0.1, 0.5], &[0, 1, 2], 1, 2.0 / 3.0);
        // of four that are tied, two are labels: both lie behind the second place in 1 of 6 cases
        check(&[0.5; 4], &[0, 2], 2, 5.0 / 6.0);
        check(&[0.5; 4], &[0, 2], 3, 1.0);
    }

    #[test]
    fn chances_are_those_of_all_orders_counted_out() {
        let scores = [1.0f32, 2.0, 1.0, 1.0, 0.0];
        for labels in [&[0][..], &[0, 3], &[2, 4], &[1], &[4], &[0, 2, 3]] {
            for k in 0..=5 {
                let orders = permutations(5);
                let is_sorted = |order: &&Vec<usize>| order.windows(2).all(|pair| scores[pair[0]] >= scores[pair[1]]);
                let sorted: Vec<_> = orders.iter().filter(is_sorted).collect();
                let hits = sorted.iter().filter(|order| order[..k].iter().any(|class| labels.contains(class))).count();
                check(&scores, labels, k, hits as f64 / sorted.len() as f64);
            }
        }
    }

    /// All orders of `0..count`.
    fn permutations(count: usize) -> Vec<Vec<usize>> {
        let longer = |orders: Vec<Vec<usize>>, next: usize| {
            let insert = |order: &Vec<usize>, at: usize| [&order[..at], &[next], &order[at..]].concat();
            orders.iter().flat_map(|order| (0..=order.len()).map(|at| insert(order, at)).collect::<Vec<_>>()).collect()
        };
        (0..count).fold(vec![Vec::new()], longer)
    }

    #[test]
    fn a_place_is_not_given_where_there_are_fewer() {
        let place = Place::of(&[0.0; 7], &[3]).unwrap();
        assert_eq!(place.limited_to(1).chance_within(5), 1.0 / 7.0);
        assert_eq!(place.limited_to(9).chance_within(5), 5.0 / 7.0);
    }

    #[test]
    fn what_is_not_finite_is_named_and_never_counts() {
        let refused = |scores: &[f32]| Place::of(scores, &[0]).unwrap_err().index;
        assert_eq!(refused(&[0.0, f32::NAN, 1.0]), 1);
        assert_eq!(refused(&[f32::INFINITY, 1.0]), 0);
        assert_eq!(refused(&[0.0, 1.0, f32::NEG_INFINITY]), 2);
    }

    #[test]
    fn precision_of_distinct_scores_is_that_of_scikit_learn() {
        // sklearn.metrics.average_precision_score(relevant, scores), scikit-learn 1.9.1
        let check = |scores: &[f32], relevant: &[usize], expected: f64| {
            let found = average_precision(scores, |item| relevant.contains(&item)).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        };
        check(&[0.9, 0.8, 0.7, 0.6, 0.5], &[0, 2, 3], 0.805_555_555_555_555_6);
        check(&[0.1, 0.4, 0.35, 0.8], &[2, 3], 0.833_333_333_333_333_3);
        check(&[0.5, -1.0, 2.0, 0.25, 3.0, -2.0], &[0, 1, 5], 0.411_111_111_111_111_15);
        assert_eq!(average_precision(&[0.1, 0.2], |_| false), None);
    }

    #[test]
    fn precision_of_ties_is_the_mean_over_all_orders() {
        let scores = [1.0f32, 2.0, 1.0, 1.0, 0.0, 0.0];
        for relevant in [&[0][..], &[0, 3], &[1, 2, 4], &[4], &[4, 5], &[0, 1, 2, 3, 4, 5]] {
            let orders = permutations(6);
            let is_sorted = |order: &&Vec<usize>| order.windows(2).all(|pair| scores[pair[0]] >= scores[pair[1]]);
            let sorted: Vec<_> = orders.iter().filter(is_sorted).collect();
            // each order as one of distinct scores, whose precision is checked above
            let of_order = |order: &Vec<usize>| {
                let place = |item: usize| order.iter().position(|other| *other == item).unwrap();
                let distinct: Vec<f32> = (0..6).map(|item| -(place(item) as f32)).collect();
                average_precision(&distinct, |item| relevant.contains(&item)).unwrap()
            };
            let expected = sorted.iter().map(|order| of_order(order)).sum::<f64>() / sorted.len() as f64;
            let found = average_precision(&scores, |item| relevant.contains(&item)).unwrap();
            assert!((found - expected).abs() < 1e-12, "{relevant:?}: {found}, expected {expected}");
        }
    }
}
