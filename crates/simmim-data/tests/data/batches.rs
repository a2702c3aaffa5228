//! Batches: the same for any number of workers and ranks, from any start, and with broken images.

use std::sync::Arc;

use simmim_data::{
    Augmentation, Batch, Encoded, Error, FineTuning, Image, Loader, LoaderConfig, Mixture, Normalization, OrderedPass,
    Pixels, RandomResizedCrop, Result, Source, Transform, open,
};
use tempfile::{TempDir, tempdir};

use crate::files::{colorful, write};

/// A folder of `count` images, of which those in `broken` cannot be read.
fn images(count: u8, broken: &[u8]) -> (TempDir, Arc<dyn Source>) {
    let root = tempdir().unwrap();
    for index in 0..count {
        let bytes = if broken.contains(&index) { b"\x89PNG\r\n\x1a\nbroken".to_vec() } else { colorful(index) };
        write(&root.path().join(format!("{index:03}.png")), &bytes);
    }
    let source = open(&root.path().display().to_string(), 3).unwrap();
    (root, source)
}

fn transform() -> Transform {
    Transform {
        height: 8,
        width: 6,
        augmentation: Augmentation::RandomResizedCrop(RandomResizedCrop::default()),
        normalization: Normalization::imagenet(),
    }
}

fn config(batch_size: usize, workers: usize) -> LoaderConfig {
    LoaderConfig { batch_size, rank: 0, world: 1, seed: 5, workers, shuffle: true, prefetch: 3 }
}

fn load(source: &Arc<dyn Source>, config: LoaderConfig, first: u64, count: usize) -> Vec<Batch> {
    let loader = Loader::new(Arc::clone(source), transform(), config, first).unwrap();
    loader.take(count).map(Result::unwrap).collect()
}

#[test]
fn batches_are_the_same_for_any_worker_count() {
    let (_root, source) = images(23, &[4, 17]);
    let expected = load(&source, config(5, 0), 0, 15);
    for workers in [1, 2, 5, 40] {
        for prefetch in [0, 3] {
            let config = LoaderConfig { prefetch, ..config(5, workers) };
            assert!(load(&source, config, 0, 15) == expected, "{workers} workers, {prefetch} ahead");
        }
    }
}

#[test]
fn fine_tuning_batches_are_the_same_for_any_worker_count() {
    let (_root, source) = images(11, &[4]);
    let augmentation = Augmentation::FineTuning(FineTuning::default());
    let load = |workers| -> Vec<Batch> {
        let transform = Transform { augmentation, ..transform() };
        Loader::new(Arc::clone(&source), transform, config(4, workers), 0)
            .unwrap()
            .take(9)
            .map(Result::unwrap)
            .collect()
    };
    let expected = load(0);
    assert!(load(1) == expected && load(3) == expected);
    // in every epoch the same image is augmented differently
    let first = |epoch: usize| {
        let batches = &expected[epoch * 2..][..2];
        let place = batches.iter().flat_map(|batch| &batch.samples).position(|sample| *sample == 1);
        place.map(|place| batches[place / 4].images[place % 4 * 144..][..144].to_vec())
    };
    let drawn: Vec<Vec<f32>> = (0..4).filter_map(first).collect();
    assert!(drawn.len() > 1 && drawn.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn a_loader_that_starts_late_gives_the_remaining_batches() {
    let (_root, source) = images(23, &[4]);
    let expected = load(&source, config(5, 0), 0, 14);
    for (first, workers) in [(1, 0), (3, 2), (4, 1), (9, 3)] {
        let remaining = load(&source, config(5, workers), first, 14 - first as usize);
        assert!(remaining == expected[first as usize..], "from {first}");
    }
}

/// Checks that each rank's batch has the images at `places` of the batch of a single rank, and that together they have
/// all of them. Returns how many images were replaced.
fn check_ranks<const SHARE: usize>(source: &Arc<dyn Source>, places: &[[usize; SHARE]]) -> usize {
    let (world, batch_size) = (places.len(), places.len() * SHARE);
    let mut all = places.concat();
    all.sort_unstable();
    assert_eq!(all, (0..batch_size).collect::<Vec<_>>(), "the ranks have every place once");
    let values = transform().values();
    let mut replaced = 0;
    // from the start, and from the middle of the second epoch if it has more than one batch
    for first in [0, Loader::batches_per_epoch(source.len(), batch_size) + 1] {
        let expected = load(source, config(batch_size, 0), first, 7);
        let mut skipped = vec![Vec::new(); expected.len()];
        for (rank, places) in places.iter().enumerate() {
            // ranks do not need the same number of workers
            let config = LoaderConfig { rank, world, ..config(batch_size, rank) };
            for (step, (batch, whole)) in load(source, config, first, 7).into_iter().zip(&expected).enumerate() {
                assert_eq!((batch.number, batch.epoch), (whole.number, whole.epoch));
                assert_eq!(batch.samples, places.map(|place| whole.samples[place]), "rank {rank} of {world}");
                assert_eq!(batch.labels, places.map(|place| whole.labels[place]));
                let pixels = places.map(|place| &whole.images[place * values..][..values]);
                assert!(batch.images == pixels.concat(), "rank {rank} of {world}");
                skipped[step].extend(batch.skipped);
            }
        }
        for (mut skipped, whole) in skipped.into_iter().zip(expected) {
            let mut expected = whole.skipped;
            skipped.sort_by_key(|skipped| skipped.index);
            expected.sort_by_key(|skipped| skipped.index);
            assert_eq!(skipped, expected, "{world} ranks");
            replaced += skipped.len();
        }
    }
    replaced
}

#[test]
fn the_batches_of_all_ranks_together_are_the_batch_of_one_rank() {
    let (_root, source) = images(23, &[4, 17]);
    let replaced = [
        check_ranks(&source, &[[0, 1, 2, 3]]),
        // even shares: a block from the front and its mirror image from the back
        check_ranks(&source, &[[0, 1, 6, 7], [2, 3, 4, 5]]),
        check_ranks(&source, &[[0, 5], [1, 4], [2, 3]]),
        check_ranks(&source, &[[0, 1, 10, 11], [2, 3, 8, 9], [4, 5, 6, 7]]),
        check_ranks(&source, &[[0, 7], [1, 6], [2, 5], [3, 4]]),
        // odd shares: contiguous blocks
        check_ranks(&source, &[[0, 1, 2], [3, 4, 5]]),
        check_ranks(&source, &[[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        check_ranks(&source, &[[0], [1], [2], [3]]),
    ];
    assert!(replaced.iter().all(|count| *count > 0), "broken images are part of every case: {replaced:?}");
}

#[test]
fn ranks_with_even_shares_mix_their_images_as_one_rank_does() {
    let (_root, source) = images(12, &[]);
    let (mixture, values) = (Mixture::Mixup { share: 0.3 }, transform().values());
    let mixed = |config| {
        let mut batch = load(&source, config, 0, 1).remove(0);
        mixture.mix_images(&mut batch.images, [3, 8, 6]);
        batch
    };
    let whole = mixed(config(12, 0));
    for world in [2, 3, 6] {
        for rank in 0..world {
            let batch = mixed(LoaderConfig { rank, world, ..config(12, 0) });
            for (sample, pixels) in batch.samples.iter().zip(batch.images.chunks_exact(values)) {
                let place = whole.samples.iter().position(|other| other == sample).unwrap();
                assert!(pixels == &whole.images[place * values..][..values], "rank {rank} of {world}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "4 ranks do not divide a batch of 6 evenly")]
fn a_batch_that_ranks_do_not_divide_evenly_is_refused() {
    let config = LoaderConfig { world: 4, ..config(6, 0) };
    drop(Loader::new(Arc::new(Panics), transform(), config, 0));
}

#[test]
fn recycled_buffers_leave_no_trace() {
    let (_root, source) = images(12, &[]);
    let expected = load(&source, config(4, 0), 0, 9);
    for workers in [0, 2] {
        let mut loader = Loader::new(Arc::clone(&source), transform(), config(4, workers), 0).unwrap();
        loader.recycle(vec![f32::NAN; 7]);
        for expected in &expected {
            let batch = loader.next().unwrap().unwrap();
            assert!(batch == *expected);
            loader.recycle(vec![f32::NAN; batch.images.len()]);
        }
    }
}

#[test]
fn an_epoch_has_no_image_twice_and_an_order_of_its_own() {
    let (_root, source) = images(11, &[]);
    assert_eq!(Loader::batches_per_epoch(11, 3), 3);
    let batches = load(&source, config(3, 2), 0, 60);
    let mut orders = std::collections::HashSet::new();
    let mut left_out = std::collections::HashSet::new();
    for (epoch, batches) in batches.chunks(3).enumerate() {
        let order: Vec<usize> = batches.iter().flat_map(|batch| batch.samples.clone()).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 9);
        left_out.extend((0..11).filter(|index| !sorted.contains(index)));
        orders.insert(order);
        assert!(batches.iter().all(|batch| batch.epoch == epoch as u64));
    }
    assert_eq!(orders.len(), 20, "every epoch has an order of its own");
    assert_eq!(left_out.len(), 11, "over 20 epochs every image is left out once");
    assert!(batches.iter().enumerate().all(|(number, batch)| batch.number == number as u64));
    assert!(batches.iter().all(|batch| batch.images.len() == 3 * 3 * 8 * 6 && batch.labels.len() == 3));
}

#[test]
fn without_shuffling_the_order_is_that_of_the_source() {
    let (_root, source) = images(7, &[]);
    let config = LoaderConfig { shuffle: false, ..config(3, 2) };
    let samples: Vec<Vec<usize>> = load(&source, config, 0, 3).into_iter().map(|batch| batch.samples).collect();
    assert_eq!(samples, [[0, 1, 2], [3, 4, 5], [0, 1, 2]]);
}

#[test]
fn seeds_and_epochs_change_the_augmentation() {
    let (_root, source) = images(1, &[]);
    let one = load(&source, config(1, 0), 0, 2);
    assert_ne!(one[0].images, one[1].images);
    let other = load(&source, LoaderConfig { seed: 6, ..config(1, 0) }, 0, 1);
    assert_ne!(one[0].images, other[0].images);
}

#[test]
fn a_broken_image_is_replaced_and_reported() {
    let (_root, source) = images(10, &[3]);
    for batch in load(&source, config(10, 2), 0, 6) {
        assert_eq!(batch.samples.len(), 10);
        assert!(!batch.samples.contains(&3));
        assert!(batch.images.iter().all(|value| value.is_finite()));
        assert_eq!(batch.skipped.len(), 1);
        let skipped = &batch.skipped[0];
        assert_eq!(skipped.index, 3);
        assert!(skipped.name.ends_with("003.png"), "{skipped:?}");
        assert!(skipped.reason.contains("cannot decode"), "{skipped:?}");
    }
}

#[test]
fn a_folder_of_broken_images_is_an_error() {
    let (_root, source) = images(4, &[0, 1, 2, 3]);
    for workers in [0, 2] {
        let mut loader = Loader::new(Arc::clone(&source), transform(), config(2, workers), 0).unwrap();
        let error = loader.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("too many unreadable images"), "{error}");
        assert!(error.to_string().contains("cannot decode"), "{error}");
        assert!(loader.next().is_none(), "after an error nothing follows");
    }
    let error = Normalization::measure(&*source, 3).unwrap_err();
    assert!(error.to_string().contains("none of 3 images can be read"), "{error}");
}

#[test]
fn too_few_images_for_a_batch_is_an_error_with_a_hint() {
    let (_root, source) = images(3, &[]);
    let error = Loader::new(Arc::clone(&source), transform(), config(4, 1), 0).err().unwrap();
    assert_eq!(error.to_string(), "3 images do not fill a batch of 4");
    assert_eq!(error.hint().unwrap(), "lower `train.batch_size` to at most 3");
    let error = Loader::new(Arc::clone(&source), transform(), config(0, 1), 0).err().unwrap();
    assert!(matches!(error, Error::EmptyBatch));
    assert!(matches!(OrderedPass::new(source, transform(), 0, 1).err().unwrap(), Error::EmptyBatch));
}

#[test]
fn an_ordered_pass_has_every_readable_image_once() {
    let (_root, source) = images(10, &[0, 8, 9]);
    for workers in [0, 1, 2, 5] {
        let pass = OrderedPass::new(Arc::clone(&source), transform(), 4, workers).unwrap();
        let batches: Vec<Batch> = pass.map(Result::unwrap).collect();
        let samples: Vec<&[usize]> = batches.iter().map(|batch| &batch.samples[..]).collect();
        assert_eq!(samples, [&[1, 2, 3][..], &[4, 5, 6, 7], &[]]);
        let skipped: Vec<usize> =
            batches.iter().flat_map(|batch| batch.skipped.iter().map(|skipped| skipped.index)).collect();
        assert_eq!(skipped, [0, 8, 9]);
        for batch in &batches {
            assert_eq!(batch.images.len(), batch.samples.len() * 3 * 8 * 6);
            assert_eq!(batch.labels.len(), batch.samples.len());
        }
    }
}

/// A source that panics when sample 2 is read.
struct Panics;

impl Source for Panics {
    fn len(&self) -> usize {
        4
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        assert_ne!(index, 2, "sample 2 is poisoned");
        let image = Image { channels: 3, height: 1, width: 1, pixels: Pixels::U8(vec![0; 3]) };
        Ok(Encoded::pixels(image, self.name(index)))
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }
}

#[test]
fn a_panic_in_a_worker_becomes_an_error() {
    let config = LoaderConfig { shuffle: false, ..config(1, 2) };
    let mut loader = Loader::new(Arc::new(Panics), transform(), config, 0).unwrap();
    assert!(loader.next().unwrap().is_ok());
    assert!(loader.next().unwrap().is_ok());
    let error = loader.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("sample 2 is poisoned"), "{error}");
    assert!(!error.is_users_fault());
    assert!(loader.next().is_none());
}
