//! The records of a run: its log, TensorBoard events, pictures and state.

use super::Event;
use crate::error::{Error, Result};
use crate::pictures::Sheet;
use crate::run::checkpoint::State;
use crate::run::files::write_atomically;
use crate::run::{Collection, LogEntry, RunFolder, TensorBoard, read_log};
use serde_json::{Map, Value, json};
use simmim_data::{PassedOver, Skipped};
use std::path::{Path, PathBuf};

/// The records of a run. Only the first rank has a folder and evaluates; the other ranks count steps,
/// losses and unreadable images alike, and write nothing.
pub struct Records {
    files: Option<(RunFolder, TensorBoard)>,
    path: PathBuf,
    state: State,
}

impl Records {
    /// Records in an open run folder, or those of a rank that writes nothing if `folder` is `None`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn new(path: &Path, folder: Option<RunFolder>, state: State) -> Result<Self> {
        let files = match folder {
            None => None,
            Some(mut folder) => {
                let mut tensorboard = TensorBoard::create(folder.path())?;
                folder.rewind_log(state.steps)?;
                // what is logged at the step of the checkpoint stays; without one, that of step 0 is done again
                tensorboard.begin_at(if state.steps == 0 { 0 } else { state.steps + 1 })?;
                Some((folder, tensorboard))
            }
        };
        Ok(Self { files, path: path.to_owned(), state })
    }

    /// The state of the run.
    pub fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The run folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `numbers` to the log and `scalars`, by tag, to TensorBoard, both under the current step.
    ///
    /// # Errors
    /// If writing fails.
    pub fn log_numbers(&mut self, numbers: &[(&str, Value)], scalars: &[(&str, f64)]) -> Result<()> {
        let step = self.state.steps;
        let Some((folder, tensorboard)) = &mut self.files else { return Ok(()) };
        let mut entry = Map::from_iter([("step".to_owned(), json!(step))]);
        entry.extend(numbers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        folder.log(&Value::Object(entry))?;
        scalars.iter().try_for_each(|(tag, value)| tensorboard.scalar(tag, step, *value as f32))?;
        Ok(())
    }

    /// Records the metrics of an evaluation: in the log, and in the state, which is saved in checkpoints and returned
    /// as the run's outcome. `None` removes a metric from the state.
    ///
    /// # Errors
    /// If a metric is not finite, or writing fails.
    pub fn log_metrics(&mut self, metrics: &[(&str, Option<f64>)], scalars: &[(&str, f64)]) -> Result<()> {
        for (name, value) in metrics {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                // before it is saved: the newest checkpoint on disk is from before the model diverged
                return Err(Error::NotFinite { step: self.state.steps, what: format!("the metric `{name}`"), value });
            }
            match value {
                Some(value) => self.state.metrics.insert((*name).to_owned(), *value),
                None => self.state.metrics.remove(*name),
            };
        }
        let numbers: Vec<(&str, Value)> = metrics.iter().map(|(name, value)| (*name, json!(value))).collect();
        self.log_numbers(&numbers, scalars)
    }

    /// The last value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.state.metrics.get(name).copied()
    }

    /// Sets a metric in the state without writing it to the log.
    pub fn set_metric(&mut self, name: &str, value: f64) {
        self.state.metrics.insert(name.to_owned(), value);
    }

    /// Writes a sheet of pictures to the run folder, as `pictures/step-N.png`, and to TensorBoard; returns the PNG.
    ///
    /// # Errors
    /// If writing fails.
    pub fn picture(&mut self, tag: &str, sheet: &Sheet) -> Result<Vec<u8>> {
        let (png, step) = (sheet.png_bytes()?, self.state.steps);
        if let Some((folder, tensorboard)) = &mut self.files {
            write_atomically(&picture_path(folder.path(), step), &png)?;
            let rendered = sheet.render();
            tensorboard.image(tag, step, &png, rendered.height() as usize, rendered.width() as usize)?;
        }
        Ok(png)
    }

    /// The newest pictures of a run that draws them every `every` steps, and their step; `None` if they are not there,
    /// because it drew them at other steps before it was resumed.
    pub(super) fn last_picture(&self, every: u64) -> Option<(u64, Vec<u8>)> {
        let step = self.state.steps - self.state.steps % every;
        Some((step, std::fs::read(picture_path(&self.path, step)).ok()?))
    }

    /// Writes buffered TensorBoard records to their file. A checkpoint is saved only after that: a run that resumes from
    /// it does not log the steps before it again.
    ///
    /// # Errors
    /// If writing fails.
    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.files.as_mut().map_or(Ok(()), |(_, tensorboard)| tensorboard.flush())?)
    }

    /// Flushes the TensorBoard file and returns the whole log; it is empty on ranks without a folder.
    ///
    /// # Errors
    /// If writing or reading fails.
    pub fn flushed_log(&mut self) -> Result<Vec<LogEntry>> {
        match &mut self.files {
            None => Ok(Vec::new()),
            Some((folder, tensorboard)) => {
                tensorboard.flush()?;
                read_log(folder.path())
            }
        }
    }

    /// Counts unreadable images of a collection, and names those that are new and among the first to the observer and in
    /// the log. Ranks without a folder only count.
    ///
    /// # Errors
    /// If writing fails.
    pub fn count_unreadable(
        &mut self,
        collection: Collection,
        skipped: &[Skipped],
        step: u64,
        observe: &mut dyn FnMut(Event),
    ) -> Result<()> {
        for Skipped { index, name, reason } in skipped {
            let is_to_be_named = self.state.unreadable.insert(collection, *index);
            if let Some((folder, _)) = self.files.as_mut().filter(|_| is_to_be_named) {
                observe(Event::Skipped { name, reason });
                folder.log(&json!({ "step": step, "skipped": name, "reason": reason }))?;
            }
        }
        Ok(())
    }

    /// Writes what lies among the images of a collection and is no image to the log, before the first step of the run.
    ///
    /// # Errors
    /// If writing fails.
    pub(super) fn log_passed_over(&mut self, collection: Collection, passed_over: &PassedOver) -> Result<()> {
        let Some((folder, _)) = self.files.as_mut().filter(|_| self.state.steps == 0) else { return Ok(()) };
        passed_over.groups().iter().try_for_each(|group| {
            folder.log(&json!({
                "step": 0,
                "collection": collection,
                "not_read": group.reason.key(),
                "what": group.to_string(),
                "count": group.count,
                "first": group.first,
            }))
        })
    }

    /// Tells the observer how many unreadable images each collection has.
    pub(super) fn sum_up_unreadable(&self, observe: &mut dyn FnMut(Event)) {
        let State { unreadable, replaced, .. } = &self.state;
        for (collection, images) in unreadable.counts().filter(|_| self.files.is_some()) {
            let replaced = if collection == Collection::Training { *replaced } else { 0 };
            observe(Event::Unreadable { collection, images, replaced });
        }
    }
}

/// Path of a run's picture at a step.
pub(crate) fn picture_path(run: &Path, step: u64) -> PathBuf {
    run.join("pictures").join(format!("step-{step:07}.png"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_is_not_finite_is_an_error_and_is_not_kept() {
        let mut records = Records::new(Path::new("run"), None, State::default()).unwrap();
        records.log_metrics(&[("val_loss", Some(0.5)), ("top1", None)], &[]).unwrap();
        for value in [f64::NAN, f64::INFINITY] {
            let error = records.log_metrics(&[("val_loss", Some(value))], &[]).unwrap_err();
            assert!(error.to_string().contains("`val_loss`"), "{error}");
            assert_eq!(records.metric("val_loss"), Some(0.5), "a checkpoint with another could not be read again");
        }
    }
}
