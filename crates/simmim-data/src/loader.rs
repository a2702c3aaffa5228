//! Endless shuffled batches, the same bits for any number of workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::rng::{Purpose, below, permutation, rng};
use crate::source::{Sample, Source};
use crate::transform::Transform;
use crate::workers::InOrder;

/// How batches are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// B.
    pub batch_size: usize,
    /// The seed of the order and of the augmentation.
    pub seed: u64,
    /// How many threads decode; with 0 a batch is made when it is asked for.
    pub workers: usize,
    /// Whether every epoch has an order of its own, or that of the source.
    pub shuffle: bool,
    /// How many batches are made ahead; at least one for every worker.
    pub prefetch: usize,
}

/// Some images, ready for a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The number of the batch since the first epoch's first, from 0.
    pub number: u64,
    /// The epoch it belongs to, from 0.
    pub epoch: u64,
    /// Normalised pixels, `[B, C, H, W]`.
    pub images: Vec<f32>,
    /// The index of each image in the source, the one in fact used, `[B]`.
    pub samples: Vec<usize>,
    /// The class of each image, `[B]`.
    pub labels: Vec<Option<usize>>,
    /// The samples that were to be here and could not be read.
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
/// Epoch `e` goes through the source in the order `permutation(rng(seed, Shuffle, e, 0))` and
/// leaves out the rest that does not fill a batch. The augmentation of sample `i` is drawn from
/// `rng(seed, Augment, e, i)`. A sample that cannot be read is replaced by the first readable one
/// of the indices drawn from `rng(seed, Replace, e, i)`, and reported. So a batch is a function of
/// its number alone.
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
    /// [`Error::EmptyBatch`], [`Error::TooFewSamples`], or [`Error::NoThread`] if the system
    /// refuses one.
    pub fn new(source: Arc<dyn Source>, transform: Transform, config: LoaderConfig, first_batch: u64) -> Result<Self> {
        let (samples, batch_size) = (source.len(), config.batch_size);
        if batch_size == 0 {
            return Err(Error::EmptyBatch);
        }
        if samples < batch_size {
            return Err(Error::TooFewSamples { samples, batch_size });
        }
        // as many as there can be batches at once: made ahead, being made, and in use
        let buffers = Arc::new(Buffers::new(config.prefetch.max(config.workers) + 2));
        let recipe = Recipe { source, transform, config, orders: Mutex::default(), buffers: Arc::clone(&buffers) };
        let make = move |number, stop: &AtomicBool| recipe.batch(number, stop).transpose();
        let batches = InOrder::new(Arc::new(make), first_batch, config.workers, config.prefetch)?;
        Ok(Self { batches, buffers })
    }

    /// Returns how many batches an epoch has: what does not fill a batch is left out.
    ///
    /// # Panics
    ///
    /// Panics if `batch_size` is 0.
    #[must_use]
    pub fn batches_per_epoch(len: usize, batch_size: usize) -> u64 {
        (len / batch_size) as u64
    }

    /// Takes the buffer of a batch back, to be filled again.
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

/// Buffers of images that are not in use.
struct Buffers {
    free: Mutex<Vec<Vec<f32>>>,
    most: usize,
}

impl Buffers {
    fn new(most: usize) -> Self {
        Self { free: Mutex::default(), most }
    }

    fn give(&self, buffer: Vec<f32>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.most {
            free.push(buffer);
        }
    }

    /// A buffer of `values` values, whichever they are.
    fn take(&self, values: usize) -> Vec<f32> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = free.unwrap_or_default();
        buffer.resize(values, 0.0);
        buffer
    }
}

/// Everything a batch is made from.
struct Recipe {
    source: Arc<dyn Source>,
    transform: Transform,
    config: LoaderConfig,
    /// The orders of the epochs that are in use, at the end the latest.
    orders: Mutex<VecDeque<(u64, Arc<Vec<usize>>)>>,
    buffers: Arc<Buffers>,
}

/// Workers are at most an epoch apart, unless an epoch is very short.
const ORDERS_KEPT: usize = 2;

/// So many draws fail by chance once in 10³⁰ if half of the images are unreadable.
const MOST_DRAWS: usize = 100;

impl Recipe {
    /// Makes batch `number`; `None` if told to stop.
    fn batch(&self, number: u64, stop: &AtomicBool) -> Result<Option<Batch>> {
        let size = self.config.batch_size;
        let per_epoch = Loader::batches_per_epoch(self.source.len(), size);
        let epoch = number / per_epoch;
        let start = (number % per_epoch) as usize * size;
        let order = self.order(epoch);
        let values = self.transform.values();
        let mut batch = Batch {
            number,
            epoch,
            images: self.buffers.take(size * values),
            samples: Vec::with_capacity(size),
            labels: Vec::with_capacity(size),
            skipped: Vec::new(),
        };
        for place in 0..size {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (index, sample) = self.readable(epoch, order[start + place], &mut batch.skipped)?;
            let mut rng = rng(self.config.seed, Purpose::Augment, epoch, index as u64);
            let out = &mut batch.images[place * values..][..values];
            self.transform.apply(&sample.image, &mut rng, out);
            batch.samples.push(index);
            batch.labels.push(sample.label);
        }
        Ok(Some(batch))
    }

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
        if orders.len() == ORDERS_KEPT {
            orders.pop_front();
        }
        orders.push_back((epoch, Arc::clone(&order)));
        order
    }

    /// The sample `index`, or what stands in for it.
    fn readable(&self, epoch: u64, index: usize, skipped: &mut Vec<Skipped>) -> Result<(usize, Sample)> {
        let error = match self.source.get(index) {
            Ok(sample) => return Ok((index, sample)),
            Err(error) => error,
        };
        let failed = Skipped::new(&*self.source, index, &error);
        let mut rng = rng(self.config.seed, Purpose::Replace, epoch, index as u64);
        for _ in 0..MOST_DRAWS {
            let other = below(&mut rng, self.source.len());
            if let Ok(sample) = self.source.get(other) {
                skipped.push(failed);
                return Ok((other, sample));
            }
        }
        let Skipped { name, reason, .. } = failed;
        Err(Error::TooManyUnreadable { name, draws: MOST_DRAWS, reason })
    }
}
