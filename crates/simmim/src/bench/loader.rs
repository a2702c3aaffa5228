//! Benchmark of the loader: decoding, cropping and normalizing images.

use crate::error::Result;
use crate::pictures::mask_comparison::MOOSE;
use crate::recipe::Recipe;
use simmim_data::{Augmentation, Loader, LoaderConfig, Normalization, Sample, Source, decode};
use std::sync::Arc;
use std::time::Instant;

/// Duration of the measurement.
const SECONDS: f64 = 1.0;

/// Images per second of `workers` threads that decode the embedded photo and augment it as in `recipe`.
///
/// # Errors
/// If the photo cannot be decoded to the channels of the recipe.
pub fn loader_images_per_second(recipe: &Recipe, workers: usize) -> Result<f64> {
    let channels = recipe.data.channels;
    let augmentation = Augmentation::RandomResizedCrop(recipe.data.random_resized_crop());
    let transform = recipe.data.transform(augmentation, Normalization::none(channels));
    let batch_size = recipe.train.batch_size.min(32);
    let config = LoaderConfig { batch_size, rank: 0, world: 1, seed: 0, workers, shuffle: true, prefetch: 2 };
    let photos: Arc<dyn Source> = Arc::new(RepeatedPhoto { channels, count: batch_size });
    let mut loader = Loader::new(photos, transform, config, 0)?;
    let (mut images, started) = (0, Instant::now());
    while images == 0 || started.elapsed().as_secs_f64() < SECONDS {
        let Some(batch) = loader.next() else { break };
        let batch = batch?;
        images += batch.samples.len();
        loader.recycle(batch.images);
    }
    Ok(images as f64 / started.elapsed().as_secs_f64())
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

    fn get(&self, index: usize) -> simmim_data::Result<Sample> {
        let name = self.name(index);
        Ok(Sample { image: decode(MOOSE, &name, self.channels)?, label: None, name })
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }
}
