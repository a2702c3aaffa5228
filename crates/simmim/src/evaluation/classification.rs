//! Evaluation of a classifier: top-1, top-5, loss, mean average precision and the confusion matrix.

use super::feature_cache::names_and_classes;
use super::features::weights_checksum;
use super::ranks::{Place, average_precision};
use super::shares::{Pass, check_like_first_rank, each_batch};
use super::stream::FeatureBatch;
use super::{Accuracy, Confusion, relabeled};
use crate::classifier::Classifier;
use crate::encoders::ForwardContext;
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{AnyRecipe, FinetuneRecipe, edit};
use crate::run::{Resolved, image_sample};
use crate::weights::{Builder, Import, LoadedWeights};
use simmim_data::{Batch, Skipped, Source, Transform};
use simmim_engine::{Alone, Backend, Collective, Device, Images, Labels, Precision};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Images per batch.
const BATCH: usize = 64;

/// Result of classifying labeled images.
#[derive(Clone, Debug)]
pub struct ClassificationReport {
    /// Number of images that could be read.
    pub images: usize,
    /// Counts of correctly classified images, of those that are of a class.
    pub accuracy: Accuracy,
    /// Mean loss, without label smoothing or class weights.
    pub loss: f64,
    /// Mean average precision over the classes that have images, in percent, if images may have several labels.
    pub mean_average_precision: Option<f64>,
    /// Images by label and predicted class.
    pub confusion: Confusion,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// Throughput, including reading and decoding.
    pub images_per_second: f64,
}

/// Classifies every image of `source`, whose labels must be the classes of the model.
///
/// # Errors
/// If no image can be read, reading fails for another reason than an unreadable image, or a score is not finite.
///
/// # Panics
/// If an image has no label, and `labels` is [`Labels::One`].
pub fn classify<B: Backend>(
    b: &B,
    model: &Classifier,
    source: Arc<dyn Source>,
    transform: Transform,
    labels: Labels,
    batch_size: usize,
    workers: usize,
) -> Result<ClassificationReport> {
    let report = classify_unless_stopped((b, model), source, transform, labels, batch_size, workers, &|| false)?;
    Ok(report.expect("nothing stops it"))
}

/// [`classify`], which ends without a report soon after `is_stopping` is true.
pub(crate) fn classify_unless_stopped<B: Backend>(
    model: (&B, &Classifier),
    source: Arc<dyn Source>,
    transform: Transform,
    labels: Labels,
    batch_size: usize,
    workers: usize,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Option<ClassificationReport>> {
    classify_on_ranks(model, &mut Alone, source, transform, labels, batch_size, workers, is_stopping)
}

/// The same on all ranks, each of which computes the scores of its share of the batches. The first one has the report.
fn classify_on_ranks<B: Backend>(
    (b, model): (&B, &Classifier),
    collective: &mut dyn Collective,
    source: Arc<dyn Source>,
    transform: Transform,
    labels: Labels,
    batch_size: usize,
    workers: usize,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Option<ClassificationReport>> {
    let started = Instant::now();
    let classes = model.classes();
    let (channels, height, width) = (transform.normalization.mean.len(), transform.height, transform.width);
    let images = memory::of_values(batch_size * channels * height * width).saturating_mul(workers as u64 + 2);
    // its cells are f64
    let confusion = memory::of_values(classes).saturating_mul(2 * classes as u64);
    let what = || format!("evaluating {batch_size} images of {height} × {width} px at once, in {classes} classes,");
    memory::check(what, images.saturating_add(confusion))?;
    let mut report = ClassificationReport {
        images: 0,
        accuracy: Accuracy::default(),
        loss: 0.0,
        mean_average_precision: None,
        confusion: Confusion::new(classes),
        skipped: Vec::new(),
        images_per_second: 0.0,
    };
    let mut scores: Vec<(Vec<f32>, Vec<usize>)> = Vec::new();
    let compute = |batch: Batch| {
        let Batch { samples, labels, skipped, images: pixels, .. } = batch;
        let mut scores = FeatureBatch { samples, labels, skipped, shape: vec![classes], values: Vec::new() };
        if !scores.samples.is_empty() {
            b.start(false);
            let images = Images { pixels: &pixels, count: scores.samples.len(), channels, height, width };
            scores.values = b.read(&model.logits(b, &images, &mut ForwardContext::evaluate()));
        }
        Ok(scores)
    };
    let take = |batch: FeatureBatch| {
        report.skipped.extend(batch.skipped);
        for (logits, sample) in batch.values.chunks_exact(classes).zip(&batch.samples) {
            let own_labels = source.labels(*sample);
            let place = Place::of_any(logits, &own_labels).map_err(|found| Error::OutputNotFinite {
                what: format!("the score of class `{}`", source.classes()[found.index]),
                image: source.name(*sample),
                value: found.value,
            })?;
            report.images += 1;
            if place.is_some() {
                report.accuracy.count(place);
                report.confusion.count(logits, &own_labels);
            }
            report.loss += loss(logits, &own_labels, labels);
            if labels == Labels::Many {
                scores.push((logits.to_vec(), own_labels));
            }
        }
        Ok(())
    };
    let pass = Pass { source: Arc::clone(&source), transform, batch: batch_size, workers, first: 0 };
    if each_batch(pass, collective, compute, take, is_stopping)? {
        return Ok(None);
    }
    if !collective.is_first() {
        return Ok(Some(report));
    }
    some_readable(report.images, &report.skipped)?;
    report.mean_average_precision = (labels == Labels::Many).then(|| mean_average_precision(&scores, classes));
    report.loss /= report.images as f64;
    report.images_per_second = report.images as f64 / started.elapsed().as_secs_f64();
    Ok(Some(report))
}

/// Checks that of some images, of which these were skipped, at least one was read.
///
/// # Errors
/// If none was.
pub(super) fn some_readable(read: usize, skipped: &[Skipped]) -> Result<()> {
    match skipped.first() {
        Some(first) if read == 0 => {
            Err(simmim_data::Error::NoneReadable { tried: skipped.len(), first: first.reason.clone() }.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Mean average precision in percent: for each class, images are ranked by its score, and precision is averaged over
/// the ranks of the images with that label; then the mean over all classes that have images.
fn mean_average_precision(scores: &[(Vec<f32>, Vec<usize>)], classes: usize) -> f64 {
    let of_class = |class: usize| {
        let of_images: Vec<f32> = scores.iter().map(|(scores, _)| scores[class]).collect();
        average_precision(&of_images, |image| scores[image].1.contains(&class))
    };
    let precisions: Vec<f64> = (0..classes).filter_map(of_class).collect();
    100.0 * precisions.iter().sum::<f64>() / precisions.len().max(1) as f64
}

/// The loss of one image with the labels `own_labels`: cross-entropy for one label, else the mean binary cross-entropy
/// over classes.
fn loss(logits: &[f32], own_labels: &[usize], labels: Labels) -> f64 {
    match labels {
        Labels::One => {
            let largest = logits.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v as f64));
            let total: f64 = logits.iter().map(|v| (*v as f64 - largest).exp()).sum();
            largest + total.ln() - logits[own_labels[0]] as f64
        }
        Labels::Many => {
            let of_class = |(class, v): (usize, &f32)| {
                let x = *v as f64;
                x.max(0.0) + (-x.abs()).exp().ln_1p() - if own_labels.contains(&class) { x } else { 0.0 }
            };
            logits.iter().enumerate().map(of_class).sum::<f64>() / logits.len() as f64
        }
    }
}

/// A fine-tuned model, ready to classify images.
pub struct FinetunedModel<B> {
    model: Classifier,
    backend: B,
    resolved: Resolved<FinetuneRecipe>,
    damaged: Vec<Error>,
    import: Option<Import>,
}

impl<B: Backend> FinetunedModel<B> {
    /// Loads a run folder (its newest intact checkpoint), a checkpoint folder or a weights file, with `key.path=value`
    /// edits of its recipe.
    ///
    /// # Errors
    /// If it does not exist, or is not a fine-tuned model, or an edit does not fit.
    pub fn load<D: Device<Backend = B>>(
        from: &Path,
        edits: &[String],
        device: &D,
        precision: Precision,
    ) -> Result<Self> {
        let mut weights = LoadedWeights::at(from)?;
        let name = weights.file.path().display().to_string();
        let resolved = match weights.resolved.take() {
            Some((AnyRecipe::Finetune(recipe), run)) => Resolved { recipe: edit(&name, recipe, edits)?, run },
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
        let model = Classifier::new(&resolved.recipe, resolved.run.classes.len(), &mut builder)?;
        let backend = weights.open(device, builder.finish().0, precision)?;
        Ok(Self { model, backend, resolved, damaged: weights.damaged, import: weights.import })
    }

    /// Recipe and facts of the run.
    pub fn resolved(&self) -> &Resolved<FinetuneRecipe> {
        &self.resolved
    }

    /// What was taken over from the file of another program.
    pub fn import(&self) -> Option<&Import> {
        self.import.as_ref()
    }

    /// Errors of damaged checkpoints that are newer than the one that was loaded.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Classifies labeled images on all ranks, each of which takes its share; `description` names the images in errors. The first
    /// rank has the report, with the numbers of one process to the bit.
    ///
    /// # Errors
    /// If their classes are not those of the model, they cannot be read, or a rank is lost or was started with something else.
    pub fn evaluate_on_ranks(
        &self,
        source: Arc<dyn Source>,
        description: &str,
        workers: usize,
        collective: &mut dyn Collective,
    ) -> Result<ClassificationReport> {
        simmim_data::check_classes_readable(source.as_ref())?;
        let recipe = &self.resolved.recipe;
        let per_image = recipe.labels.per_image;
        let source = relabeled(source, description, &self.resolved.run.classes, per_image)?;
        let transform = recipe.evaluation_transform(self.resolved.run.normalization());
        check_like_first_rank(collective, || self.identity(source.as_ref(), &transform))?;
        let model = (&self.backend, &self.model);
        let report =
            classify_on_ranks(model, collective, source, transform, per_image.loss(), BATCH, workers, &|| false)?;
        Ok(report.expect("nothing stops it"))
    }

    /// What scores depend on, by name.
    fn identity(&self, source: &dyn Source, transform: &Transform) -> Vec<(String, String)> {
        let parts = [
            ("checksum of the weights", format!("{:08x}", weights_checksum(&self.backend))),
            ("number of images", source.len().to_string()),
            ("checksum of the names and labels", format!("{:08x}", names_and_classes(source))),
            ("checksum of some of the pixels", image_sample::of_source(source)),
            ("precision", format!("{:?}", self.backend.precision())),
            ("preparation of the images", format!("{transform:?}")),
        ];
        parts.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_averaged_over_the_places_of_a_class_and_over_classes() {
        let image = |a: f32, b: f32, labels: &[usize]| (vec![a, b], labels.to_vec());
        // class 0 has ranks 1 and 3: (1 + 2/3) / 2; class 1 has ranks 1 and 2
        let scores = [image(0.9, 0.9, &[0, 1]), image(0.5, 0.8, &[1]), image(0.1, 0.1, &[0])];
        let expected = 100.0 * (5.0 / 6.0 + 1.0) / 2.0;
        assert!((mean_average_precision(&scores, 2) - expected).abs() < 1e-9);
        // a third class without images changes nothing
        let scores = scores.map(|(scores, labels)| ([scores, vec![0.0]].concat(), labels));
        assert!((mean_average_precision(&scores, 3) - expected).abs() < 1e-9);
    }

    #[test]
    fn precision_of_scores_that_are_all_equal_does_not_depend_on_the_order_of_images() {
        let image = |label: usize| (vec![0.0, 0.0], vec![label]);
        let of = |labels: [usize; 4]| mean_average_precision(&labels.map(image), 2);
        // class 0 is one of four: the mean of 1, 1/2, 1/3 and 1/4; class 1 are the other three, with this mean over
        // the place of the fourth: 3/3, (1 + 1 + 3/4)/3, (1 + 2/3 + 3/4)/3, (1/2 + 2/3 + 3/4)/3
        let one = (1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0) / 4.0;
        let three = (3.0 + 2.75 + (1.0 + 2.0 / 3.0 + 0.75) + (0.5 + 2.0 / 3.0 + 0.75)) / 12.0;
        for labels in [[0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]] {
            assert!((of(labels) - 50.0 * (one + three)).abs() < 1e-9, "{labels:?}");
        }
    }

    #[test]
    fn losses_are_those_of_their_definitions() {
        assert!((loss(&[0.3, 0.3, 0.3, 0.3], &[2], Labels::One) - 4f64.ln()).abs() < 1e-7);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let expected = -(sigmoid(1.0).ln() + (1.0 - sigmoid(-2.0)).ln()) / 2.0;
        assert!((loss(&[1.0, -2.0], &[0], Labels::Many) - expected).abs() < 1e-7);
    }
}
