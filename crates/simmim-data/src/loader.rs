//! Endless shuffled batches, the same for any number of workers and ranks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::hint::OfStore;
use crate::rng::{Purpose, below, permutation, rng};
use crate::source::Source;
use crate::transform::Transform;
use crate::workers::InOrder;

/// How batches are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// The number of samples of the global batch, of all ranks together.
    pub batch_size: usize,
    /// The rank that this loader serves, from 0; without data parallelism it is 0.
    pub rank: usize,
    /// The number of ranks that the global batch is divided among; without data parallelism it is 1.
    pub world: usize,
    /// The seed of the shuffle and of the augmentation.
    pub seed: u64,
    /// The number of threads that decode; with 0 a batch is made when it is taken.
    pub workers: usize,
    /// Whether every epoch is shuffled; otherwise it has the order of the source.
    pub shuffle: bool,
    /// The number of batches that are made ahead; every worker makes at least one.
    pub prefetch: usize,
}

impl LoaderConfig {
    /// Returns the places in the global batch that the samples of this rank have, in their local order.
    fn places(self) -> impl Iterator<Item = usize> {
        let share = self.batch_size / self.world;
        let (front, back) = if share.is_multiple_of(2) {
            let start = self.rank * share / 2;
            let end = self.batch_size - start;
            (start..start + share / 2, end - share / 2..end)
        } else {
            (self.rank * share..(self.rank + 1) * share, 0..0)
        };
        front.chain(back)
    }
}

/// Some images, ready for a network. B is the number of them, `batch_size / world` in the batch of a [`Loader`].
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The number of the batch, counted from 0 at the start of the first epoch.
    pub number: u64,
    /// The epoch that the batch belongs to, from 0.
    pub epoch: u64,
    /// Normalized pixels, `[B, C, H, W]`.
    pub images: Vec<f32>,
    /// The index in the source of each image, `[B]`; for a replaced image, that of its replacement.
    pub samples: Vec<usize>,
    /// The class of each image, `[B]`.
    pub labels: Vec<Option<usize>>,
    /// The samples that should be in this batch but could not be read.
    pub skipped: Vec<Skipped>,
}

/// A sample that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its index in the source.
    pub index: usize,
    /// Where it comes from.
    pub name: String,
    /// Why it could not be read.
    pub reason: String,
}

impl Skipped {
    /// Describes the sample `index` of `source`, which failed with `error`.
    pub(crate) fn new(source: &dyn Source, index: usize, error: &Error) -> Self {
        Self { index, name: source.name(index), reason: error.to_string() }
    }
}

/// An endless iterator over batches.
///
/// A batch is a function of its number, the seed, the rank and the world alone, so a run can resume at any batch and
/// with any number of workers:
///
/// - Epoch `e` goes through the source in the order `permutation(rng(seed, Shuffle, e, 0))`. The samples at the end
///   that do not fill a batch are left out of the epoch.
/// - The augmentation of sample `i` is drawn from `rng(seed, Augment, e, i)`.
/// - If sample `i` cannot be read, indices are drawn from `rng(seed, Replace, e, i)`. The first one that can be read
///   replaces it, and the batch reports it as [skipped](Batch::skipped).
///
/// # Ranks
///
/// With data parallelism every rank has a loader of its own, whose batches hold the share of that rank,
/// `batch_size / world` samples. Nothing above depends on the rank, so the shares together are exactly the batch that
/// a single rank would have.
///
/// Mixup and CutMix mix image `i` with image `B - 1 - i` of the global batch (see [`Mix`](crate::Mix)), and a rank can
/// only mix images that it has. If the share is even, it therefore consists of two blocks of `h = share / 2` samples:
/// rank `r` takes the `r`-th block from the front of the global batch and then the `r`-th block from its back, both in
/// ascending order. This makes the local images `i` and `share - 1 - i` a pair of the global batch too. If the share
/// is odd, it is the `r`-th contiguous block of `share` samples, and most pairs lie on two ranks.
///
/// # End
///
/// After an error the iterator ends. Dropping it ends its threads.
pub struct Loader {
    batches: InOrder<Batch>,
    buffers: Arc<Buffers>,
}

impl Loader {
    /// Starts loading from batch number `first_batch`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyBatch`], [`Error::TooFewSamples`] if the source does not fill a global batch, or
    /// [`Error::NoThread`] if the system does not start a thread.
    ///
    /// # Panics
    ///
    /// Panics if `rank` is not below `world`, or `world` does not divide `batch_size`.
    pub fn new(source: Arc<dyn Source>, transform: Transform, config: LoaderConfig, first_batch: u64) -> Result<Self> {
        let LoaderConfig { batch_size, rank, world, .. } = config;
        assert!(rank < world, "rank {rank} is not below the number of ranks, {world}");
        assert!(batch_size.is_multiple_of(world), "{world} ranks do not divide a batch of {batch_size} evenly");
        let samples = source.len();
        if batch_size == 0 {
            return Err(Error::EmptyBatch);
        }
        if samples < batch_size {
            return Err(Error::TooFewSamples { samples, batch_size });
        }
        // no more batches than this exist at once: those made ahead, one that is being made and one that is in use
        let buffers = Arc::new(Buffers::new(config.prefetch.max(config.workers) + 2));
        let recipe = Recipe { source, transform, config, orders: Mutex::default(), buffers: Arc::clone(&buffers) };
        let make = move |number, stop: &AtomicBool| recipe.batch(number, stop).transpose();
        let batches = InOrder::new(Arc::new(make), first_batch, config.workers, config.prefetch)?;
        Ok(Self { batches, buffers })
    }

    /// Returns the number of batches per epoch of `len` samples; samples that do not fill a batch are left out.
    ///
    /// # Panics
    ///
    /// Panics if `batch_size` is 0.
    #[must_use]
    pub fn batches_per_epoch(len: usize, batch_size: usize) -> u64 {
        (len / batch_size) as u64
    }

    /// Takes back the pixel buffer of a batch, so that a later batch can use its memory.
    pub fn recycle(&self, images: Vec<f32>) {
        self.buffers.give(images);
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        self.batches.next()
    }
}

/// Pixel buffers that are not in use.
struct Buffers {
    free: Mutex<Vec<Vec<f32>>>,
    /// Buffers beyond this number are freed.
    max_free: usize,
}

impl Buffers {
    fn new(max_free: usize) -> Self {
        Self { free: Mutex::default(), max_free }
    }

    fn give(&self, buffer: Vec<f32>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.max_free {
            free.push(buffer);
        }
    }

    /// Returns a buffer of `values` values, with any content.
    fn take(&self, values: usize) -> Vec<f32> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = free.unwrap_or_default();
        buffer.resize(values, 0.0);
        buffer
    }
}

/// Everything that the content of a batch depends on, apart from its number.
struct Recipe {
    source: Arc<dyn Source>,
    transform: Transform,
    config: LoaderConfig,
    /// The orders of the epochs in use, the newest at the end.
    orders: Mutex<VecDeque<(u64, Arc<Vec<usize>>)>>,
    buffers: Arc<Buffers>,
}

/// Two, because workers are at most one epoch apart unless an epoch is very short; an order that is missing is computed
/// again.
const MAX_ORDERS: usize = 2;

/// If half of the images are unreadable, this many draws fail by chance once in 10³⁰ times.
const MAX_DRAWS: usize = 100;

impl Recipe {
    /// Makes this rank's share of batch `number`; `None` if `stop` is set.
    fn batch(&self, number: u64, stop: &AtomicBool) -> Result<Option<Batch>> {
        let LoaderConfig { batch_size, world, .. } = self.config;
        let per_epoch = Loader::batches_per_epoch(self.source.len(), batch_size);
        let epoch = number / per_epoch;
        let start = (number % per_epoch) as usize * batch_size;
        let order = self.order(epoch);
        let (share, values) = (batch_size / world, self.transform.values());
        let mut batch = Batch {
            number,
            epoch,
            images: self.buffers.take(share * values),
            samples: Vec::with_capacity(share),
            labels: Vec::with_capacity(share),
            skipped: Vec::new(),
        };
        for (out, place) in batch.images.chunks_exact_mut(values).zip(self.config.places()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let index = self.write(epoch, order[start + place], out, &mut batch.skipped)?;
            batch.samples.push(index);
            batch.labels.push(self.source.label(index));
        }
        Ok(Some(batch))
    }

    /// Returns the order of the samples in an epoch.
    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = orders.iter().find(|(of, _)| *of == epoch) {
            return Arc::clone(order);
        }
        let len = self.source.len();
        let order = Arc::new(if self.config.shuffle {
            permutation(&mut rng(self.config.seed, Purpose::Shuffle, epoch, 0), len)
        } else {
            (0..len).collect()
        });
        if orders.len() == MAX_ORDERS {
            orders.pop_front();
        }
        orders.push_back((epoch, Arc::clone(&order)));
        order
    }

    /// Writes the pixels of the sample `index`, or else of its replacement, and returns the index that was used.
    fn write(&self, epoch: u64, index: usize, out: &mut [f32], skipped: &mut Vec<Skipped>) -> Result<usize> {
        let mut write = |index: usize| {
            let rng = &mut rng(self.config.seed, Purpose::Augment, epoch, index as u64);
            self.transform.decode(self.source.encoded(index)?, rng, out)
        };
        let Err(error) = write(index) else { return Ok(index) };
        let failed = Skipped::new(&*self.source, index, &error);
        let mut rng = rng(self.config.seed, Purpose::Replace, epoch, index as u64);
        for _ in 0..MAX_DRAWS {
            let other = below(&mut rng, self.source.len());
            if write(other).is_ok() {
                skipped.push(failed);
                return Ok(other);
            }
        }
        if OfStore::of(&error).is_some_and(|of_store| of_store.is_outage) {
            return Err(error);
        }
        let Skipped { name, reason, .. } = failed;
        Err(Error::TooManyUnreadable { name, draws: MAX_DRAWS, reason })
    }
}
