//! The monitor of pre-training: does the quality of the features improve?
//!
//! A falling loss does not show that. k-NN and a linear probe on a small labeled data set do, and the rank and variance
//! of the features show a collapse. The monitor changes no weight and uses its own random streams, so a run ends with
//! the same bits with and without it.

use super::Event;
use super::records::Records;
use super::setup::Setup;
use super::task::{Ended, Evaluation, is_due_every};
use super::trainer::validate_every;
use crate::error::Result;
use crate::evaluation::{
    FeatureSpread, Neighbors, Probe, best_rate, checked_classes, extract_unless_stopped, feature_spread, knn, probe,
    relabeled,
};
use crate::model::SimMim;
use crate::recipe::{LabelsPerImage, MonitorRecipe, Recipe};
use crate::run::Collection;
use serde_json::json;
use simmim_data::{Augmentation, Overlap, PassedOver, Skipped, Source, Subset, Transform, overlap};
use simmim_engine::Device;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Epochs of the probe: fewer than in `simmim probe`, because a trend is enough.
const PROBE_EPOCHS: usize = 20;

/// Metric that holds the total time of the monitor, so that its share of the run's time stays correct after a resume.
const SECONDS: &str = "monitor_total_seconds";

/// Quality of the features at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureQuality {
    /// Top-1 accuracy of k-NN on the validation images, in percent.
    pub knn_top1: f64,
    /// Top-1 accuracy of a linear probe on them, in percent, at the best of its learning rates; `None` if all diverged.
    pub probe_top1: Option<f64>,
    /// Effective rank and variance of the features.
    pub spread: FeatureSpread,
}

/// Evaluates the features of a model during pre-training.
pub(super) struct Monitor<D> {
    model: Rc<SimMim>,
    device: D,
    train: Arc<dyn Source>,
    val: Arc<dyn Source>,
    classes: usize,
    transform: Transform,
    every: u64,
    workers: usize,
    seed: u64,
}

impl<D: Device> Monitor<D> {
    /// Opens the two data sets that a recipe names.
    ///
    /// # Errors
    /// If they cannot be read, have no labels, or have different classes.
    pub(super) fn new(
        recipe: &MonitorRecipe,
        setup: &Setup<Recipe>,
        model: Rc<SimMim>,
        device: &D,
        workers: usize,
    ) -> Result<Self> {
        let data = &setup.resolved.recipe.data;
        let open = |spec: &str| simmim_data::open(spec, data.decoding());
        let (train, val) = (open(&recipe.train)?, open(&recipe.val)?);
        let classes = checked_classes(train.as_ref(), &recipe.train, LabelsPerImage::One)?;
        let val = relabeled(val, &recipe.val, &classes, LabelsPerImage::One)?;
        let limited = |source| -> Arc<dyn Source> { Arc::new(Subset::spread(source, recipe.max_images)) };
        let (train, val) = (limited(train), limited(val));
        for source in [&train, &val] {
            simmim_data::check_classes_readable(source.as_ref())?;
        }
        Ok(Self {
            model,
            device: device.clone(),
            train,
            val,
            classes: classes.len(),
            transform: data.transform(Augmentation::Center, setup.resolved.run.normalization()),
            every: recipe.every_steps.unwrap_or(validate_every(setup)),
            workers,
            seed: setup.resolved.run.seed,
        })
    }

    /// The images that both data sets share.
    pub(super) fn overlap(&self) -> Option<Overlap> {
        overlap(self.train.as_ref(), self.val.as_ref())
    }

    /// What lies among the images of each data set and is no image.
    pub(super) fn passed_over(&self) -> [(Collection, &PassedOver); 2] {
        [(Collection::MonitorTrain, self.train.passed_over()), (Collection::MonitorVal, self.val.passed_over())]
    }

    /// The quality of the features, and the images of each data set that cannot be read; `None` if the run stops before.
    fn measure(
        &self,
        b: &D::Backend,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<(FeatureQuality, [Vec<Skipped>; 2])>> {
        let features = |source: &Arc<dyn Source>| {
            let (encoder, transform) = (self.model.encoder(), self.transform.clone());
            extract_unless_stopped(b, encoder, Arc::clone(source), transform, self.workers, is_stopping)
        };
        let Some(train) = features(&self.train)? else { return Ok(None) };
        let Some(val) = features(&self.val)? else { return Ok(None) };
        let config = Probe { epochs: PROBE_EPOCHS, seed: self.seed, ..Probe::default() };
        let rates = probe(&train, &val, self.classes, &config, &self.device);
        let quality = FeatureQuality {
            knn_top1: knn(&train, &val, Neighbors::default(), &self.device).top1(),
            probe_top1: best_rate(&rates).map(|(_, accuracy)| accuracy.top1()),
            spread: feature_spread(&val),
        };
        Ok(Some((quality, [train.skipped, val.skipped])))
    }
}

impl<D: Device> Evaluation<D::Backend> for Monitor<D> {
    fn is_due(&self, steps: u64, total: u64) -> bool {
        is_due_every(self.every, steps, total)
    }

    fn evaluate(
        &mut self,
        b: &D::Backend,
        records: &mut Records,
        observe: &mut dyn FnMut(Event),
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Ended> {
        let started = Instant::now();
        let Some((quality, skipped)) = self.measure(b, is_stopping)? else { return Ok(Ended::Early) };
        let steps = records.state().steps;
        for (collection, skipped) in [Collection::MonitorTrain, Collection::MonitorVal].into_iter().zip(&skipped) {
            records.count_unreadable(collection, skipped, steps, observe)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let all_seconds = records.metric(SECONDS).unwrap_or(0.0) + seconds;
        records.set_metric(SECONDS, all_seconds);
        let time_share = all_seconds / (records.state().seconds + seconds).max(all_seconds);
        observe(Event::Monitored { steps, quality: &quality, time_share });

        let FeatureQuality { knn_top1, probe_top1, spread } = quality;
        let numbers = [
            ("knn_top1", json!(knn_top1)),
            ("probe_top1", json!(probe_top1)),
            ("rank_me", json!(spread.rank_me)),
            ("feature_variance", json!(spread.variance)),
            ("monitor_seconds", json!(seconds)),
            ("monitor_time_share", json!(time_share)),
        ];
        let mut scalars = vec![
            ("monitor/knn-top1", knn_top1),
            ("monitor/rank-me", spread.rank_me),
            ("monitor/feature-variance", spread.variance),
        ];
        scalars.extend(probe_top1.map(|top1| ("monitor/probe-top1", top1)));
        records.log_numbers(&numbers, &scalars)?;
        Ok(Ended::Whole)
    }
}
