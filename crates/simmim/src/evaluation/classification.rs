//! Evaluation of a classifier: top-1, top-5, loss, mean average precision and the confusion matrix.

use super::{Accuracy, percent, relabeled};
use crate::classifier::Classifier;
use crate::encoders::ForwardContext;
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{AnyRecipe, FinetuneRecipe, edit};
use crate::run::Resolved;
use crate::weights::{Builder, Import, LoadedWeights};
use simmim_data::{OrderedPass, Skipped, Source, Transform};
use simmim_engine::{Backend, Device, Images, Labels, Precision};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Images per batch.
const BATCH: usize = 64;

/// Result of classifying labeled images.
#[derive(Clone, Debug)]
pub struct ClassificationReport {
    /// Counts of correctly classified images.
    pub accuracy: Accuracy,
    /// Mean loss, without label smoothing or class weights.
    pub loss: f64,
    /// Mean average precision over the classes, in percent, if images may have several labels.
    pub mean_average_precision: Option<f64>,
    /// Confusion matrix `[K, K]`: number of images by label (row) and predicted class (column).
    pub confusion: Vec<u32>,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// Throughput, including reading and decoding.
    pub images_per_second: f64,
}

impl ClassificationReport {
    fn classes(&self) -> usize {
        self.confusion.len().isqrt()
    }

    /// For each class: number of images, and the share that is classified correctly, in percent.
    pub fn per_class(&self) -> Vec<(usize, f64)> {
        let rows = self.confusion.chunks_exact(self.classes()).enumerate();
        rows.map(|(class, row)| {
            let images = row.iter().sum::<u32>() as usize;
            (images, percent(row[class] as usize, images))
        })
        .collect()
    }
}

/// Classifies every image of `source`, whose labels must be the classes of the model.
///
/// # Errors
/// If reading fails for a reason other than an unreadable image.
///
/// # Panics
/// If an image has no label.
pub fn classify<B: Backend>(
    b: &B,
    model: &Classifier,
    source: Arc<dyn Source>,
    transform: Transform,
    labels: Labels,
    batch_size: usize,
    workers: usize,
) -> Result<ClassificationReport> {
    let started = Instant::now();
    let classes = model.classes();
    let (channels, height, width) = (transform.normalization.mean.len(), transform.height, transform.width);
    let images = memory::of_values(batch_size * channels * height * width).saturating_mul(workers as u64 + 2);
    let confusion = memory::of_values(classes).saturating_mul(classes as u64);
    let what = || format!("evaluating {batch_size} images of {height} × {width} px at once, in {classes} classes,");
    memory::check(what, images.saturating_add(confusion))?;
    let mut report = ClassificationReport {
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
        report.skipped.extend(batch.skipped);
        if batch.samples.is_empty() {
            continue;
        }
        b.start(false);
        let images = Images { pixels: &batch.images, count: batch.samples.len(), channels, height, width };
        let logits = b.read(&model.logits(b, &images, &mut ForwardContext::evaluate()));
        for (logits, sample) in logits.chunks_exact(classes).zip(&batch.samples) {
            let own_labels = source.labels(*sample);
            // of several labels, the one with the highest score
            let highest = |a: &&usize, b: &&usize| logits[**a].total_cmp(&logits[**b]).then(b.cmp(a));
            let label = *own_labels.iter().max_by(highest).expect("every held-out image has a label");
            report.accuracy.count(logits, label);
            let best = (0..classes).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
            // in a tie, the label counts as the highest
            let prediction = if logits[best] > logits[label] { best } else { label };
            report.confusion[label * classes + prediction] += 1;
            report.loss += loss(logits, &own_labels, labels);
            if labels == Labels::Many {
                scores.push((logits.to_vec(), own_labels));
            }
        }
    }
    report.mean_average_precision = (labels == Labels::Many).then(|| mean_average_precision(&scores, classes));
    report.loss /= report.accuracy.images.max(1) as f64;
    report.images_per_second = report.accuracy.images as f64 / started.elapsed().as_secs_f64();
    Ok(report)
}

/// Mean average precision in percent: for each class, images are ranked by its score, and precision is averaged over
/// the ranks of the images with that label; then the mean over all classes that have images.
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

    /// Classifies labeled images; `description` names them in errors.
    ///
    /// # Errors
    /// If their classes are not those of the model, or they cannot be read.
    pub fn evaluate(&self, source: Arc<dyn Source>, description: &str, workers: usize) -> Result<ClassificationReport> {
        simmim_data::check_readable(source.as_ref())?;
        let recipe = &self.resolved.recipe;
        let per_image = recipe.labels.per_image;
        let source = relabeled(source, description, &self.resolved.run.classes, per_image)?;
        let transform = recipe.evaluation_transform(self.resolved.run.normalization());
        classify(&self.backend, &self.model, source, transform, per_image.loss(), BATCH, workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_off_the_confusion() {
        let report = ClassificationReport {
            accuracy: Accuracy { images: 10, correct: 6, in_top5: 9 },
            loss: 0.0,
            mean_average_precision: None,
            confusion: vec![4, 1, 0, 0, 2, 0, 2, 1, 0],
            skipped: Vec::new(),
            images_per_second: 1.0,
        };
        assert_eq!(report.per_class(), [(5, 80.0), (2, 100.0), (3, 0.0)]);
    }

    #[test]
    fn precision_is_averaged_over_the_places_of_a_class_and_over_classes() {
        let image = |a: f32, b: f32, labels: &[usize]| (vec![a, b], labels.to_vec());
        // class 0 has ranks 1 and 3: (1 + 2/3) / 2; class 1 has ranks 1 and 2
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
