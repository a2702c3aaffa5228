//! Some samples of another source.

use std::sync::Arc;

use super::{Sample, Source};
use crate::error::Result;

/// The samples of a source at chosen indices, in that order.
pub struct Subset {
    source: Arc<dyn Source>,
    indices: Vec<usize>,
}

impl Subset {
    /// At most `count` samples, evenly spaced: every class of a source sorted by class is among them.
    #[must_use]
    pub fn spread(source: Arc<dyn Source>, count: usize) -> Self {
        let (len, count) = (source.len(), count.min(source.len()));
        Self { source, indices: (0..count).map(|i| i * len / count).collect() }
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

    fn get(&self, index: usize) -> Result<Sample> {
        self.source.get(self.indices[index])
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.source.label(self.indices[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::idx_from_bytes;

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
