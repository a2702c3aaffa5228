//! How well a classifier tells the classes of images: top-1, top-5, loss, and which it takes for which.

use crate::accuracy::{Accuracy, percent};
use crate::build::Builder;
use crate::classifier::Classifier;
use crate::encoder::Pass;
use crate::error::{Error, Result};
use crate::found::Found;
use crate::labels::relabelled;
use crate::recipe::{AnyRecipe, DistortionKind, FinetuneRecipe, InterpolationKind};
use crate::run::Resolved;
use simmim_data::{
    Augmentation, CentreCrop, ColourJitter, Distortion, Filter, FineTuning, Interpolation, OrderedPass, RandAugment,
    RandomErasing, RandomResizedCrop, Skipped, Source, Transform,
};
use simmim_engine::{Backend, Cpu, Images, Labels, Precision, Slot};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Images that are looked at together.
const BATCH: usize = 64;

/// What came of looking at labelled images.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Right guesses among the images.
    pub accuracy: Accuracy,
    /// Mean loss, without label smoothing or weights of classes.
    pub loss: f64,
    /// Mean over the classes of the average precision, in percent, where images may be of several classes.
    pub mean_average_precision: Option<f64>,
    /// How often images of each class (row) were taken for each (column), `[K, K]`.
    pub confusion: Vec<u32>,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// Throughput, reading included.
    pub images_per_second: f64,
}

impl Evaluation {
    fn classes(&self) -> usize {
        self.confusion.len().isqrt()
    }

    /// For each class: its images, and those told rightly in percent.
    pub fn per_class(&self) -> Vec<(usize, f64)> {
        let rows = self.confusion.chunks_exact(self.classes()).enumerate();
        rows.map(|(class, row)| {
            let images = row.iter().sum::<u32>() as usize;
            (images, percent(row[class] as usize, images))
        })
        .collect()
    }
}

/// Looks at every image of `source`, whose labels are the model's classes.
///
/// # Errors
/// If reading stops for another reason than single images.
pub fn evaluate<B: Backend>(
    b: &B,
    model: &Classifier,
    source: Arc<dyn Source>,
    transform: Transform,
    labels: Labels,
    batch_size: usize,
    workers: usize,
) -> Result<Evaluation> {
    let started = Instant::now();
    let classes = model.classes();
    let (channels, height, width) = (transform.normalisation.mean.len(), transform.height, transform.width);
    let mut done = Evaluation {
        accuracy: Accuracy::default(),
        loss: 0.0,
        mean_average_precision: None,
        confusion: vec![0; classes * classes],
        skipped: Vec::new(),
        images_per_second: 0.0,
    };
    let mut scores: Vec<(Vec<f32>, Vec<usize>)> = Vec::new();
    for batch in OrderedPass::new(Arc::clone(&source), transform, batch_size, workers)? {
        let batch = batch?;
        done.skipped.extend(batch.skipped);
        if batch.samples.is_empty() {
            continue;
        }
        b.start(false);
        let images = Images { pixels: &batch.images, count: batch.samples.len(), channels, height, width };
        let logits = b.read(&model.logits(b, &images, &mut Pass::evaluate()));
        for (logits, sample) in logits.chunks_exact(classes).zip(&batch.samples) {
            let own = source.labels(*sample);
            // of several classes of its own the one with the highest score
            let highest = |a: &&usize, b: &&usize| logits[**a].total_cmp(&logits[**b]).then(b.cmp(a));
            let label = *own.iter().max_by(highest).expect("every held-out image has a label");
            done.accuracy.count(logits, label);
            let best = (0..classes).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
            // of equal scores the right one counts
            let guess = if logits[best] > logits[label] { best } else { label };
            done.confusion[label * classes + guess] += 1;
            done.loss += loss(logits, &own, labels);
            if labels == Labels::Many {
                scores.push((logits.to_vec(), own));
            }
        }
    }
    done.mean_average_precision = (labels == Labels::Many).then(|| mean_average_precision(&scores, classes));
    done.loss /= done.accuracy.images.max(1) as f64;
    done.images_per_second = done.accuracy.images as f64 / started.elapsed().as_secs_f64();
    Ok(done)
}

/// For each class, how far up its images stand when all are ordered by its score; in percent, averaged over the
/// classes that images have.
fn mean_average_precision(scores: &[(Vec<f32>, Vec<usize>)], classes: usize) -> f64 {
    let of_class = |class: usize| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].0[class].total_cmp(&scores[*a].0[class]));
        let (mut found, mut sum) = (0, 0.0);
        for (rank, image) in order.into_iter().enumerate() {
            if scores[image].1.contains(&class) {
                found += 1;
                sum += found as f64 / (rank + 1) as f64;
            }
        }
        (found > 0).then(|| sum / found as f64)
    };
    let precisions: Vec<f64> = (0..classes).filter_map(of_class).collect();
    100.0 * precisions.iter().sum::<f64>() / precisions.len().max(1) as f64
}

/// The loss of one image of the classes `own`.
fn loss(logits: &[f32], own: &[usize], labels: Labels) -> f64 {
    match labels {
        Labels::One => {
            let largest = logits.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v as f64));
            let total: f64 = logits.iter().map(|v| (*v as f64 - largest).exp()).sum();
            largest + total.ln() - logits[own[0]] as f64
        }
        Labels::Many => {
            let of_class = |(class, v): (usize, &f32)| {
                let x = *v as f64;
                x.max(0.0) + (-x.abs()).exp().ln_1p() - if own.contains(&class) { x } else { 0.0 }
            };
            logits.iter().enumerate().map(of_class).sum::<f64>() / logits.len() as f64
        }
    }
}

/// How a run's held-out images become input: resized, and their middle cut out.
pub fn transform(resolved: &Resolved<FinetuneRecipe>) -> Transform {
    let recipe = &resolved.recipe;
    let filter = match recipe.augment.interpolation {
        InterpolationKind::Bilinear => Filter::Bilinear,
        InterpolationKind::Bicubic | InterpolationKind::Random => Filter::Bicubic,
    };
    let crop = CentreCrop { enlargement: 1.0 / recipe.evaluate.crop, filter };
    with(resolved, Augmentation::CentreCrop(crop))
}

/// How a run's training images become input.
pub(crate) fn train_transform(resolved: &Resolved<FinetuneRecipe>) -> Transform {
    let FinetuneRecipe { data, augment, .. } = &resolved.recipe;
    let steps = FineTuning {
        crop: RandomResizedCrop { scale: data.crop_scale, ratio: data.crop_ratio, hflip: data.flip },
        interpolation: match augment.interpolation {
            InterpolationKind::Bilinear => Interpolation::Bilinear,
            InterpolationKind::Bicubic => Interpolation::Bicubic,
            InterpolationKind::Random => Interpolation::Random,
        },
        distortion: match augment.distortion {
            DistortionKind::None => Distortion::None,
            DistortionKind::Randaugment => Distortion::RandAugment(RandAugment {
                operations: augment.operations,
                probability: augment.operation_probability,
                magnitude: augment.magnitude,
                magnitude_std: augment.magnitude_std,
            }),
            DistortionKind::ColourJitter => Distortion::ColourJitter(ColourJitter::uniform(augment.jitter)),
        },
        erasing: (augment.erase_probability > 0.0).then(|| RandomErasing {
            probability: augment.erase_probability,
            area: augment.erase_area,
            ..RandomErasing::default()
        }),
    };
    with(resolved, Augmentation::FineTuning(steps))
}

fn with(resolved: &Resolved<FinetuneRecipe>, augmentation: Augmentation) -> Transform {
    let (height, width) = resolved.recipe.data.image_size.height_and_width();
    Transform { height, width, augmentation, normalisation: resolved.run.normalisation() }
}

/// A fine-tuned model, ready to look at images.
pub struct FinetunedModel {
    model: Classifier,
    backend: Cpu,
    resolved: Resolved<FinetuneRecipe>,
    damaged: Vec<Error>,
}

impl FinetunedModel {
    /// Loads a run folder (its newest sound checkpoint), a checkpoint folder or a weights file.
    ///
    /// # Errors
    /// If there is no such thing, or it is not of a fine-tuned model.
    pub fn load(from: &Path, precision: Precision, threads: usize) -> Result<Self> {
        let found = Found::at(from)?;
        let resolved = match found.known {
            Some((AnyRecipe::Finetune(recipe), run)) => Resolved { recipe, run },
            Some((AnyRecipe::Pretrain(_) | AnyRecipe::Tokenizer(_), _)) | None => {
                return Err(Error::Input {
                    what: format!("`{}` holds no fine-tuned model", from.display()),
                    hint: Some(
                        "fine-tune it first by `simmim finetune`, or try `simmim knn` and `simmim probe`".into(),
                    ),
                });
            }
        };
        let mut builder = Builder::default();
        let (recipe, classes) = (&resolved.recipe, resolved.run.classes.len());
        let image_px = recipe.data.image_size.height_and_width();
        let model = Classifier::new(&recipe.encoder, image_px, recipe.data.channels, classes, &mut builder);
        let (table, _) = builder.finish();
        let values = found.file.flat(&table, "")?;
        let backend = Cpu::new(table, precision, threads);
        backend.write_slot(Slot::Values, &values);
        Ok(Self { model, backend, resolved, damaged: found.damaged })
    }

    /// Recipe and circumstances of the run.
    pub fn resolved(&self) -> &Resolved<FinetuneRecipe> {
        &self.resolved
    }

    /// What was wrong with checkpoints newer than the one that was loaded.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Looks at labelled images, which `description` names in errors.
    ///
    /// # Errors
    /// If their classes are not the model's, or they cannot be read.
    pub fn evaluate(&self, source: Arc<dyn Source>, description: &str, workers: usize) -> Result<Evaluation> {
        simmim_data::check_readable(source.as_ref())?;
        let per_image = self.resolved.recipe.labels.per_image;
        let source = relabelled(source, description, &self.resolved.run.classes, per_image)?;
        let labels = per_image.loss();
        evaluate(&self.backend, &self.model, source, transform(&self.resolved), labels, BATCH, workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_off_the_confusion() {
        let done = Evaluation {
            accuracy: Accuracy { images: 10, right: 6, among_five: 9 },
            loss: 0.0,
            mean_average_precision: None,
            confusion: vec![4, 1, 0, 0, 2, 0, 2, 1, 0],
            skipped: Vec::new(),
            images_per_second: 1.0,
        };
        assert_eq!(done.per_class(), [(5, 80.0), (2, 100.0), (3, 0.0)]);
    }

    #[test]
    fn precision_is_averaged_over_the_places_of_a_class_and_over_classes() {
        let image = |a: f32, b: f32, own: &[usize]| (vec![a, b], own.to_vec());
        // class 0 stands at places 1 and 3: (1 + 2/3) / 2; class 1 at 1 and 2
        let scores = [image(0.9, 0.9, &[0, 1]), image(0.5, 0.8, &[1]), image(0.1, 0.1, &[0])];
        let expected = 100.0 * (5.0 / 6.0 + 1.0) / 2.0;
        assert!((mean_average_precision(&scores, 2) - expected).abs() < 1e-9);
    }

    #[test]
    fn losses_are_those_of_their_definitions() {
        assert!((loss(&[0.3, 0.3, 0.3, 0.3], &[2], Labels::One) - 4f64.ln()).abs() < 1e-7);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let expected = -(sigmoid(1.0).ln() + (1.0 - sigmoid(-2.0)).ln()) / 2.0;
        assert!((loss(&[1.0, -2.0], &[0], Labels::Many) - expected).abs() < 1e-7);
    }
}
