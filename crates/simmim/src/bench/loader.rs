//! How fast images are read, decoded, cropped and normalised.

use crate::error::Result;
use crate::mask_comparison::MOOSE;
use crate::recipe::Recipe;
use simmim_data::{
    Augmentation, Loader, LoaderConfig, Normalisation, RandomResizedCrop, Sample, Source, Transform, decode,
};
use std::sync::Arc;
use std::time::Instant;

/// How long to load for.
const SECONDS: f64 = 1.0;

/// Images per second of `workers` threads that decode the embedded photograph and augment it as `recipe` does.
///
/// # Errors
/// If the photograph cannot be decoded to the recipe's channels.
pub fn loader_images_per_second(recipe: &Recipe, workers: usize) -> Result<f64> {
    let (height, width) = recipe.data.image_size.height_and_width();
    let channels = recipe.data.channels;
    let transform = Transform {
        height,
        width,
        augmentation: Augmentation::RandomResizedCrop(RandomResizedCrop {
            scale: recipe.data.crop_scale,
            ratio: recipe.data.crop_ratio,
            hflip: recipe.data.flip,
        }),
        normalisation: Normalisation { mean: vec![0.0; channels], std: vec![1.0; channels] },
    };
    let batch_size = recipe.train.batch_size.min(32);
    let config = LoaderConfig { batch_size, seed: 0, workers, shuffle: true, prefetch: 2 };
    let photographs: Arc<dyn Source> = Arc::new(Photographs { channels, count: batch_size });
    let mut loader = Loader::new(photographs, transform, config, 0)?;
    let (mut images, started) = (0, Instant::now());
    while images == 0 || started.elapsed().as_secs_f64() < SECONDS {
        let Some(batch) = loader.next() else { break };
        let batch = batch?;
        images += batch.samples.len();
        loader.recycle(batch.images);
    }
    Ok(images as f64 / started.elapsed().as_secs_f64())
}

/// The embedded photograph, again and again.
struct Photographs {
    channels: usize,
    count: usize,
}

impl Source for Photographs {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn name(&self, _index: usize) -> String {
        "the embedded photograph".into()
    }

    fn get(&self, index: usize) -> simmim_data::Result<Sample> {
        let name = self.name(index);
        Ok(Sample { image: decode(MOOSE, &name, self.channels)?, label: None, name })
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }
}
