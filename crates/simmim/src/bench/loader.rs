//! Benchmark of the loader: decoding, cropping and normalizing images.

use crate::error::Result;
use crate::pictures::mask_comparison::MOOSE;
use crate::recipe::Recipe;
use simmim_data::{Augmentation, Encoded, Loader, LoaderConfig, Normalization, Source};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// Duration of a measurement.
const SECONDS: f64 = 1.0;

/// How fast images are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoaderSpeed {
    /// The median of the measurements.
    pub images_per_second: f64,
    /// The number of images that were loaded in all of them.
    pub images: usize,
    /// How many images cannot be read; others took their place.
    pub skipped: usize,
}

/// Images per second of `workers` threads that decode the embedded photo and augment it as in `recipe`.
///
/// # Errors
/// If the photo cannot be decoded to the channels of the recipe.
pub fn loader_images_per_second(recipe: &Recipe, workers: usize) -> Result<f64> {
    let photos = RepeatedPhoto { channels: recipe.data.channels, count: recipe.train.batch_size.min(32) };
    Ok(loader_speed(Arc::new(photos), recipe, workers, 1)?.images_per_second)
}

/// Loads images of a source on `workers` threads and augments them as in `recipe`, `rounds` times for a second, after a
/// first batch that is not timed.
///
/// # Errors
/// If the source does not fill a batch, or too many images cannot be read.
pub fn loader_speed(source: Arc<dyn Source>, recipe: &Recipe, workers: usize, rounds: usize) -> Result<LoaderSpeed> {
    let augmentation = Augmentation::RandomResizedCrop(recipe.data.random_resized_crop());
    // any values take the same time
    let normalization = recipe.data.known_normalization().unwrap_or_else(|| Normalization::none(recipe.data.channels));
    let transform = recipe.data.transform(augmentation, normalization);
    let batch_size = recipe.train.batch_size.min(source.len()).min(32);
    let config = LoaderConfig { batch_size, rank: 0, world: 1, seed: 0, workers, shuffle: true, prefetch: 2 };
    let mut loader = Loader::new(source, transform, config, 0)?;
    let (mut speeds, mut images, mut skipped) = (Vec::new(), 0, HashSet::new());
    loader.next().transpose()?;
    for _ in 0..rounds {
        let (before, started) = (images, Instant::now());
        while images == before || started.elapsed().as_secs_f64() < SECONDS {
            let Some(batch) = loader.next() else { break };
            let batch = batch?;
            images += batch.samples.len();
            skipped.extend(batch.skipped.iter().map(|skipped| skipped.index));
            loader.recycle(batch.images);
        }
        speeds.push((images - before) as f64 / started.elapsed().as_secs_f64());
    }
    speeds.sort_by(f64::total_cmp);
    Ok(LoaderSpeed {
        images_per_second: speeds.get(rounds / 2).copied().unwrap_or(0.0),
        images,
        skipped: skipped.len(),
    })
}

/// A source of `count` copies of the embedded photo.
struct RepeatedPhoto {
    channels: usize,
    count: usize,
}

impl Source for RepeatedPhoto {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn name(&self, _index: usize) -> String {
        "the embedded photo".into()
    }

    fn encoded(&self, index: usize) -> simmim_data::Result<Encoded> {
        Ok(Encoded::file(MOOSE.to_vec(), self.channels, self.name(index)))
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }
}
