//! The samples of another source with other class numbers.

use std::sync::Arc;

use super::{PassedOver, Source};
use crate::encoded::Encoded;
use crate::error::{Error, Result};

/// A source whose class numbers are replaced, for example by those that a model was trained with.
pub struct Relabeled {
    source: Arc<dyn Source>,
    /// The new number of every class of `source`.
    map: Vec<usize>,
    classes: Vec<String>,
}

impl Relabeled {
    /// Gives class `i` of `source` the number `map[i]` among `classes`.
    ///
    /// # Panics
    ///
    /// Panics if `map` does not have a number for every class of `source`, or a number is not below the length of
    /// `classes`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, map: Vec<usize>, classes: Vec<String>) -> Self {
        assert_eq!(map.len(), source.classes().len(), "a number for every class");
        assert!(map.iter().all(|class| *class < classes.len()), "{map:?} are not below {}", classes.len());
        Self { source, map, classes }
    }
}

impl Source for Relabeled {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        self.source.encoded(index)
    }

    fn label(&self, index: usize) -> Option<usize> {
        Some(self.map[self.source.label(index)?])
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.source.labels(index).into_iter().map(|label| self.map[label]).collect()
    }

    fn is_labeled(&self, index: usize) -> bool {
        self.source.is_labeled(index)
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
    fn labels_are_replaced_by_their_new_numbers() {
        let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1].into_iter().chain(0..3).collect();
        let labels = [0, 0, 8, 1, 0, 0, 0, 3, 1, 0, 1];
        let source = idx_from_bytes(&images, Some(&labels), 1).unwrap();
        let names = ["c", "b", "a"].map(str::to_owned).to_vec();
        let source = Relabeled::new(source, vec![2, 0], names.clone());
        assert_eq!((0..3).map(|i| source.label(i).unwrap()).collect::<Vec<_>>(), [0, 2, 0]);
        assert_eq!(source.get(1).unwrap().label, Some(2));
        assert_eq!(source.classes(), names);
    }
}
