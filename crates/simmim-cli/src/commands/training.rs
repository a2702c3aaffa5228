//! What all training commands share: options of a run from the command line, progress, Ctrl-C, and the final output.

use super::{open_training_data, print_result};
use crate::cli::Common;
use crate::exit::Exit;
use crate::progress::Progress;
use serde_json::Value;
use simmim::Result;
use simmim::recipe::{Given, RecipeKind};
use simmim::train::{Event, Input, Options};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The arguments of a run, except for its images.
pub(super) struct Run<'a> {
    pub(super) common: &'a Common,
    /// Name of a built-in recipe, or a file.
    pub(super) recipe: &'a str,
    /// Edits of the recipe (`--set`).
    pub(super) edits: &'a [String],
    /// The run folder.
    pub(super) out: &'a Path,
    /// Threads of the loader.
    pub(super) workers: usize,
}

impl Run<'_> {
    /// Options of the run on the data sets with these names.
    ///
    /// # Errors
    /// If the recipe or the images cannot be used.
    pub(super) fn on<R: RecipeKind>(&self, data: &str, val: Option<&str>) -> anyhow::Result<Options<R>> {
        let given = Given::read(self.recipe)?;
        let recipe: R = given.resolve_as(self.edits)?;
        let open = |spec: &str| -> anyhow::Result<Input> {
            let source = open_training_data(self.common, spec, recipe.data())?;
            Ok(Input { source, description: simmim_data::without_secrets(spec) })
        };
        let (data, val) = (open(data)?, val.map(open).transpose()?);
        Ok(self.options(recipe, &given, data, val))
    }

    /// Options of the run on open data sets.
    ///
    /// # Errors
    /// If the recipe cannot be used.
    pub(super) fn on_open<R: RecipeKind>(&self, (data, val): (Input, Input)) -> anyhow::Result<Options<R>> {
        let given = Given::read(self.recipe)?;
        Ok(self.options(given.resolve_as(self.edits)?, &given, data, Some(val)))
    }

    fn options<R>(&self, recipe: R, given: &Given, data: Input, val: Option<Input>) -> Options<R> {
        // the recipe as the user gave it: its name and edits as comments, then its text
        let edits: String = self.edits.iter().map(|edit| format!("# --set {edit}\n")).collect();
        Options {
            recipe,
            given: format!("# --recipe {}\n{edits}{}", self.recipe, given.text()),
            data,
            val,
            out: self.out.to_owned(),
            seed: self.common.seed(),
            precision: self.common.precision(),
            workers: self.workers,
        }
    }
}

/// Runs `train` with an observer that shows progress, and a flag that Ctrl-C sets.
///
/// # Errors
/// Those of `train`.
pub(super) fn with_progress<R: RecipeKind, T>(
    common: &Common,
    options: &Options<R>,
    train: impl FnOnce(&mut dyn FnMut(Event), &AtomicBool) -> Result<T>,
) -> anyhow::Result<T> {
    let stop = crate::interrupt::flag(crate::interrupt::SAVING)?;
    let mut progress = Progress::new(common.quiet, options.recipe.train().batch_size);
    let outcome = train(
        &mut |event| {
            if let Event::Started { .. } = event {
                crate::terminal::begin_log(&options.out); // not before: the first rank wants the folder empty or absent
            }
            progress.on(&event);
        },
        &stop,
    );
    progress.finish();
    Ok(outcome?)
}

/// Prints `done`, or that the run was stopped, and returns the exit code.
///
/// # Errors
/// Those of [`print_result`].
pub(super) fn print_end(common: &Common, (steps, total): (u64, u64), done: &str, json: &Value) -> anyhow::Result<Exit> {
    if steps == total {
        print_result(common.json, done, json)?;
        return Ok(Exit::Done);
    }
    let prose = format!("stopped after step {steps} of {total}; the same command resumes");
    print_result(common.json, &prose, json)?;
    Ok(Exit::Interrupted)
}
