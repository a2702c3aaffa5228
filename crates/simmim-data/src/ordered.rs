//! One pass over a source in its order, for evaluation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::hint::OfStore;
use crate::loader::{Batch, Skipped};
use crate::rng::{Purpose, rng};
use crate::source::Source;
use crate::transform::Transform;
use crate::workers::InOrder;

/// An iterator over batches that hold every sample of a source once, in the order of the source.
///
/// Samples that cannot be read are left out and reported as [skipped](Batch::skipped), so a batch may be smaller than
/// `batch_size`, or even empty. The last batch holds what remains. A random augmentation is drawn with seed 0, so that
/// every pass is the same. After an error the iterator ends.
pub struct OrderedPass {
    batches: InOrder<Batch>,
}

impl OrderedPass {
    /// Starts a pass with `workers` threads; with 0 a batch is made when it is taken.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyBatch`] if `batch_size` is 0, or [`Error::NoThread`] if the system does not start a thread.
    pub fn new(source: Arc<dyn Source>, transform: Transform, batch_size: usize, workers: usize) -> Result<Self> {
        Self::from(0, source, transform, batch_size, workers)
    }

    /// Starts a pass at sample `first`, with the batches that a whole pass has from there on.
    ///
    /// # Errors
    ///
    /// As [`OrderedPass::new`].
    ///
    /// # Panics
    ///
    /// Panics if `first` is neither the first sample of a batch nor behind the last sample.
    pub fn from(
        first: usize,
        source: Arc<dyn Source>,
        transform: Transform,
        batch_size: usize,
        workers: usize,
    ) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::EmptyBatch);
        }
        assert!(first.is_multiple_of(batch_size) || first >= source.len(), "sample {first} is within a batch");
        let first = first.div_ceil(batch_size) as u64;
        let make = move |number: u64, stop: &AtomicBool| batch(&*source, &transform, batch_size, number, stop);
        Ok(Self { batches: InOrder::new(Arc::new(make), first, workers, workers)? })
    }
}

impl Iterator for OrderedPass {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        self.batches.next()
    }
}

/// Makes batch `number`; `None` after the last one, or if `stop` is set. An image that cannot be read is left out, but a store that
/// does not answer ends the pass: it would leave out all that is left.
fn batch(
    source: &dyn Source,
    transform: &Transform,
    batch_size: usize,
    number: u64,
    stop: &AtomicBool,
) -> Option<Result<Batch>> {
    let start = (number as usize).checked_mul(batch_size).filter(|start| *start < source.len())?;
    let end = source.len().min(start + batch_size);
    let mut batch = Batch {
        number,
        epoch: 0,
        images: vec![0.0; (end - start) * transform.values()],
        samples: Vec::with_capacity(end - start),
        labels: Vec::with_capacity(end - start),
        skipped: Vec::new(),
    };
    for index in start..end {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let out = &mut batch.images[batch.samples.len() * transform.values()..][..transform.values()];
        let rng = &mut rng(0, Purpose::Augment, 0, index as u64);
        match source.encoded(index).and_then(|encoded| transform.decode(encoded, rng, out)) {
            Ok(()) => {
                batch.samples.push(index);
                batch.labels.push(source.label(index));
            }
            Err(error) if OfStore::of(&error).is_some_and(|of_store| of_store.is_outage) => return Some(Err(error)),
            Err(error) => batch.skipped.push(Skipped::new(source, index, &error)),
        }
    }
    batch.images.truncate(batch.samples.len() * transform.values());
    Some(Ok(batch))
}

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::*;
    use crate::encoded::Encoded;
    use crate::error::Error;
    use crate::image::{Image, Pixels};
    use crate::source::Fault;
    use crate::{Augmentation, Normalization};

    /// Images of a store that cannot be reached from the third on, and does not have the second.
    struct Failing;

    impl Source for Failing {
        fn len(&self) -> usize {
            6
        }

        fn classes(&self) -> &[String] {
            &[]
        }

        fn name(&self, index: usize) -> String {
            index.to_string()
        }

        fn encoded(&self, index: usize) -> Result<Encoded> {
            let fault = match index {
                0 => {
                    let image = Image { channels: 1, height: 2, width: 2, pixels: Pixels::U8(vec![0; 4]) };
                    return Ok(Encoded::pixels(image, self.name(0)));
                }
                1 => Fault::Missing,
                _ => Fault::GaveUp { tries: 3, seconds: 120, last: Box::new(Fault::Silent { seconds: 10 }) },
            };
            Err(Error::Read { path: self.name(index).into(), cause: fault.into() })
        }

        fn label(&self, _: usize) -> Option<usize> {
            None
        }
    }

    #[test]
    fn a_store_that_cannot_be_reached_ends_a_pass_and_an_image_that_is_missing_does_not() {
        for workers in [0, 2] {
            let normalization = Normalization::none(1);
            let transform = Transform { height: 2, width: 2, augmentation: Augmentation::Center, normalization };
            let mut pass = OrderedPass::new(Arc::new(Failing), transform, 2, workers).unwrap();
            let first = pass.next().unwrap().unwrap();
            assert_eq!((first.samples.as_slice(), first.skipped.len()), (&[0][..], 1));
            let error = pass.next().unwrap().unwrap_err().to_string();
            assert!(error.contains("given up after 3 tries"), "{error}");
        }
    }
}
