//! Passes over the images of a source that ranks divide: batch after batch goes to one rank after the other, and the first
//! rank takes what they computed in the order of the images.
//!
//! Batches are those of one process, whatever the number of ranks. So are the results, to the bit; every image counts once,
//! also where the number of images does not divide.

use super::stream::FeatureBatch;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use simmim_data::{Batch, OrderedPass, Skipped, Source, Subset, Transform};
use simmim_engine::{Activity, Collective};
use std::sync::Arc;

/// What a rank is asked to pass over.
pub(super) struct Pass {
    pub(super) source: Arc<dyn Source>,
    pub(super) transform: Transform,
    /// Images of a batch.
    pub(super) batch: usize,
    /// Threads that read and decode images.
    pub(super) workers: usize,
    /// The first image: that of a batch, or behind the last one.
    pub(super) first: usize,
}

/// Computes the batches of a pass, each on one rank, and gives `take` all of them in their order, on the first rank. Ends early
/// after a round in which `is_stopping` was true on any rank, and returns whether it did.
///
/// # Errors
/// Those of reading, `compute` and `take`, and if a rank is lost.
pub(super) fn each_batch(
    pass: Pass,
    collective: &mut dyn Collective,
    mut compute: impl FnMut(Batch) -> Result<FeatureBatch>,
    mut take: impl FnMut(FeatureBatch) -> Result<()>,
    is_stopping: impl Fn() -> bool,
) -> Result<bool> {
    let Pass { source, transform, batch, workers, first } = pass;
    if collective.world() == 1 {
        for batch in OrderedPass::from(first, source, transform, batch, workers)? {
            take(compute(batch?)?)?;
            if is_stopping() {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let share = Share { first, batch, rank: collective.rank(), world: collective.world() };
    let own: Vec<usize> = (first..source.len()).filter(|sample| share.is_own(*sample)).collect();
    let rounds = source.len().saturating_sub(first).div_ceil(batch).div_ceil(share.world);
    let own: Arc<dyn Source> = Arc::new(Subset::of(source, own));
    let mut batches = OrderedPass::new(own, transform, batch, workers)?;
    for round in 0..rounds {
        collective.announce(Activity::Step(round as u64 + 1));
        let computed = match batches.next() {
            None => Vec::new(), // other ranks have the last batches
            Some(batch) => to_bytes(&compute(share.numbered(batch?))?),
        };
        for bytes in collective.gather_bytes(&computed)?.iter().filter(|bytes| !bytes.is_empty()) {
            take(of_bytes(bytes))?;
        }
        let mut stopping = [f64::from(u8::from(is_stopping()))];
        collective.all_reduce_sum_f64(&mut stopping)?;
        if stopping[0] > 0.0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which images are a rank's.
struct Share {
    first: usize,
    batch: usize,
    rank: usize,
    world: usize,
}

impl Share {
    /// Whether an image is in a batch of this rank.
    fn is_own(&self, sample: usize) -> bool {
        (sample - self.first) / self.batch % self.world == self.rank
    }

    /// A batch of this rank's images with their numbers in the whole source.
    fn numbered(&self, mut batch: Batch) -> Batch {
        let whole = |own: usize| {
            let before = (own / self.batch * self.world + self.rank) * self.batch;
            self.first + before + own % self.batch
        };
        batch.samples.iter_mut().for_each(|sample| *sample = whole(*sample));
        batch.skipped.iter_mut().for_each(|skipped| skipped.index = whole(skipped.index));
        batch
    }
}

/// A batch on its way, but for its values.
#[derive(Serialize, Deserialize)]
struct Sent {
    samples: Vec<usize>,
    labels: Vec<Option<usize>>,
    skipped: Vec<(usize, String, String)>,
    shape: Vec<usize>,
}

/// A batch as bytes: the length of its description, that, and the values.
fn to_bytes(batch: &FeatureBatch) -> Vec<u8> {
    let skipped = batch.skipped.iter().map(|s| (s.index, s.name.clone(), s.reason.clone())).collect();
    let (samples, labels, shape) = (batch.samples.clone(), batch.labels.clone(), batch.shape.clone());
    let text = serde_json::to_vec(&Sent { samples, labels, skipped, shape }).expect("names are text");
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes.extend(batch.values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The batch of such bytes, which a rank of the same build has sent.
fn of_bytes(bytes: &[u8]) -> FeatureBatch {
    let (len, rest) = bytes.split_first_chunk().expect("a rank sends whole batches");
    let (text, values) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let Sent { samples, labels, skipped, shape } = serde_json::from_slice(text).expect("a rank sends whole batches");
    let skipped = skipped.into_iter().map(|(index, name, reason)| Skipped { index, name, reason }).collect();
    let values = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    FeatureBatch { samples, labels, skipped, shape, values }
}

/// Checks that this rank was started with what the first rank was started with: `own` are a name and a value of each thing
/// that results depend on.
///
/// # Errors
/// Names the first thing that differs.
pub(super) fn check_like_first_rank(
    collective: &mut dyn Collective,
    own: impl FnOnce() -> Vec<(String, String)>,
) -> Result<()> {
    if collective.world() == 1 {
        return Ok(());
    }
    let own = own();
    let mut bytes = serde_json::to_vec(&own).expect("names are text");
    collective.broadcast_bytes(&mut bytes, 0)?;
    let first: Vec<(String, String)> = serde_json::from_slice(&bytes).expect("the first rank sends what it has");
    let differs = |((name, own), (_, first)): (&(String, String), &(String, String))| {
        (own != first).then(|| format!("another {name} than the first rank: `{own}`, not `{first}`"))
    };
    match own.iter().zip(&first).find_map(differs) {
        None => Ok(collective.barrier()?), // nothing is written before all ranks agree
        Some(what) => Err(Error::Input {
            what: format!("this rank has {what}"),
            hint: Some("start all ranks with the same command on the same data".into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::{Augmentation, Normalization, idx_from_bytes};
    use simmim_engine::{Alone, InProcess};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const IMAGES: usize = 83;

    fn source() -> Arc<dyn Source> {
        let header = [0, 0, 8, 3, 0, 0, 0, IMAGES as u8, 0, 0, 0, 1, 0, 0, 0, 1];
        idx_from_bytes(&[&header[..], &(0..IMAGES as u8).collect::<Vec<_>>()].concat(), None, 1).unwrap()
    }

    /// Samples and values of a batch.
    type Taken = (Vec<usize>, Vec<f32>);

    /// The batches that the first rank takes from image `first` on, of a pass that stops after `most` of them.
    fn taken(collective: &mut dyn Collective, first: usize, most: usize) -> (Vec<Taken>, bool) {
        let transform = Transform {
            height: 1,
            width: 1,
            augmentation: Augmentation::Center,
            normalization: Normalization { mean: vec![0.0], std: vec![1.0] },
        };
        let pass = Pass { source: source(), transform, batch: 8, workers: 1, first };
        let (mut found, count) = (Vec::new(), AtomicUsize::new(0));
        let compute = |batch: Batch| {
            let Batch { samples, labels, skipped, images, .. } = batch;
            Ok(FeatureBatch { samples, labels, skipped, shape: vec![1], values: images })
        };
        let take = |batch: FeatureBatch| {
            count.fetch_add(1, Ordering::Relaxed);
            found.push((batch.samples, batch.values));
            Ok(())
        };
        let is_stopped = each_batch(pass, collective, compute, take, || count.load(Ordering::Relaxed) >= most).unwrap();
        (found, is_stopped)
    }

    #[test]
    fn ranks_pass_over_every_image_once_in_its_order() {
        for first in [0, 16, IMAGES] {
            let alone = taken(&mut Alone, first, usize::MAX);
            let samples: Vec<usize> = alone.0.iter().flat_map(|(samples, _)| samples.clone()).collect();
            assert_eq!(samples, (first..IMAGES).collect::<Vec<_>>());
            for world in [2, 3, 4, 12] {
                let of_ranks: Vec<_> = std::thread::scope(|scope| {
                    let ranks = InProcess::ranks(world).into_iter();
                    let running: Vec<_> =
                        ranks.map(|mut rank| scope.spawn(move || taken(&mut rank, first, usize::MAX))).collect();
                    running.into_iter().map(|rank| rank.join().unwrap()).collect()
                });
                assert_eq!(of_ranks[0], alone, "{world} ranks from image {first} on");
                assert!(of_ranks[1..].iter().all(|(found, _)| found.is_empty()), "the first rank takes all");
            }
        }
    }

    #[test]
    fn ranks_stop_together_behind_whole_batches() {
        let of_ranks: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> =
                InProcess::ranks(3).into_iter().map(|mut rank| scope.spawn(move || taken(&mut rank, 0, 3))).collect();
            running.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        let samples: Vec<usize> = of_ranks[0].0.iter().flat_map(|(samples, _)| samples.clone()).collect();
        assert_eq!(samples, (0..24).collect::<Vec<_>>());
        assert!(of_ranks.iter().all(|(_, is_stopped)| *is_stopped));
    }

    #[test]
    fn a_batch_survives_the_wire() {
        let skipped = vec![Skipped { index: 7, name: "naïve\u{1b}".into(), reason: "is cut".into() }];
        let values = vec![1.5, -0.0, f32::MIN_POSITIVE];
        let batch = FeatureBatch { samples: vec![8, 9], labels: vec![Some(3), None], skipped, shape: vec![3], values };
        let found = of_bytes(&to_bytes(&batch));
        assert_eq!((&found.samples, &found.labels, &found.shape), (&batch.samples, &batch.labels, &batch.shape));
        assert_eq!((found.values, found.skipped), (batch.values, batch.skipped));
    }
}
