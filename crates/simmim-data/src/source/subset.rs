//! A subset of another source.

use std::sync::Arc;

use super::{PassedOver, Source};
use crate::encoded::Encoded;
use crate::error::{Error, Result};
use crate::rng::{Purpose, permutation, rng};

/// The samples of a source at chosen indices, in that order.
pub struct Subset {
    source: Arc<dyn Source>,
    indices: Vec<usize>,
}

impl Subset {
    /// Takes the samples at these indices, each of which is one of the source.
    #[must_use]
    pub fn of(source: Arc<dyn Source>, indices: Vec<usize>) -> Self {
        Self { source, indices }
    }

    /// Takes at most `count` samples, evenly spaced, so that a source that is sorted by class is represented evenly.
    #[must_use]
    pub fn spread(source: Arc<dyn Source>, count: usize) -> Self {
        let (len, count) = (source.len(), count.min(source.len()));
        Self { source, indices: (0..count).map(|i| i * len / count).collect() }
    }

    /// Takes a share of the samples of every class, rounded to a whole number of samples and at least one.
    ///
    /// The seed decides which samples are taken; their order is that of the source. Samples without a class are treated
    /// as one more class. With the same seed, a larger share contains all samples of a smaller one.
    #[must_use]
    pub fn balanced(source: Arc<dyn Source>, share: f64, seed: u64) -> Self {
        let classes = source.classes().len();
        let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); classes + 1];
        (0..source.len()).for_each(|index| of_class[source.label(index).unwrap_or(classes)].push(index));
        let mut indices = Vec::new();
        for (class, samples) in of_class.iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
            let count = ((samples.len() as f64 * share).round() as usize).clamp(1, samples.len());
            let order = permutation(&mut rng(seed, Purpose::Label, 0, class as u64), samples.len());
            indices.extend(order[..count].iter().map(|place| samples[*place]));
        }
        indices.sort_unstable();
        Self { source, indices }
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn name(&self, index: usize) -> String {
        self.source.name(self.indices[index])
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        self.source.encoded(self.indices[index])
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.source.label(self.indices[index])
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.source.labels(self.indices[index])
    }

    fn is_labeled(&self, index: usize) -> bool {
        self.source.is_labeled(self.indices[index])
    }

    fn passed_over(&self) -> &PassedOver {
        self.source.passed_over()
    }

    fn why_unlabeled(&self) -> Option<Error> {
        self.source.why_unlabeled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::idx_from_bytes;

    #[test]
    fn a_balanced_subset_takes_the_same_share_of_every_class() {
        // 40 images of class 0 and 10 of class 1
        let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0, 0, 1].into_iter().chain(0..50).collect();
        let labels: Vec<u8> =
            [0, 0, 8, 1, 0, 0, 0, 50].into_iter().chain((0..50).map(|i| u8::from(i % 5 == 0))).collect();
        let source = idx_from_bytes(&images, Some(&labels), 1).unwrap();
        let subset = |share, seed| Subset::balanced(Arc::clone(&source), share, seed);
        let tenth = subset(0.1, 0);
        let count = |class| (0..tenth.len()).filter(|i| tenth.label(*i) == Some(class)).count();
        assert_eq!((count(0), count(1)), (4, 1));
        assert!(tenth.indices.is_sorted() && tenth.indices == subset(0.1, 0).indices);
        assert_ne!(tenth.indices, subset(0.1, 1).indices);
        assert!(tenth.indices.iter().all(|i| subset(0.5, 0).indices.contains(i)));
        assert_eq!((subset(1e-6, 0).len(), subset(1.0, 0).len()), (2, 50));
    }

    #[test]
    fn a_spread_subset_takes_every_nth_sample() {
        // ten 1×1 images, image i has value i
        let bytes: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 1].into_iter().chain(0..10).collect();
        let source = idx_from_bytes(&bytes, None, 1).unwrap();
        let values = |count: usize| {
            let subset = Subset::spread(Arc::clone(&source), count);
            let value = |i| match subset.get(i).unwrap().image.pixels {
                crate::Pixels::U8(v) => v[0],
                crate::Pixels::F32(_) => unreachable!("an IDX file holds bytes"),
            };
            (0..subset.len()).map(value).collect::<Vec<u8>>()
        };
        assert_eq!(values(3), [0, 3, 6]);
        assert_eq!(values(99), (0..10).collect::<Vec<u8>>());
    }
}
