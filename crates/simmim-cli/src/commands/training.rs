//! What all training commands share: options of a run from the command line, progress, Ctrl-C, and the final output.

use super::{open_data, print_result};
use crate::cli::Common;
use crate::exit::Exit;
use crate::progress::Progress;
use serde_json::Value;
use simmim::Result;
use simmim::recipe::{self, RecipeKind};
use simmim::train::{Event, Input, Options};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The arguments of a run, except for its images.
pub(super) struct Run<'a> {
    pub(super) common: &'a Common,
    /// A built-in recipe or a file.
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
        let recipe: R = recipe::resolve_as(self.recipe, self.edits)?;
        let open = |spec: &str| -> anyhow::Result<Input> {
            let source = open_data(spec, recipe.data().channels)?;
            Ok(Input { source, description: spec.to_owned() })
        };
        let (data, val) = (open(data)?, val.map(open).transpose()?);
        self.options(recipe, data, val)
    }

    /// Options of the run on open data sets.
    ///
    /// # Errors
    /// If the recipe cannot be used.
    pub(super) fn on_open<R: RecipeKind>(&self, (data, val): (Input, Input)) -> anyhow::Result<Options<R>> {
        self.options(recipe::resolve_as(self.recipe, self.edits)?, data, Some(val))
    }

    fn options<R>(&self, recipe: R, data: Input, val: Option<Input>) -> anyhow::Result<Options<R>> {
        Ok(Options {
            recipe,
            given: self.given()?,
            data,
            val,
            out: self.out.to_owned(),
            seed: self.common.seed,
            precision: self.common.precision.into(),
            workers: self.workers,
        })
    }

    /// The recipe as the user gave it: its name and edits as comments, then its text.
    fn given(&self) -> anyhow::Result<String> {
        let name = self.recipe;
        let text = match recipe::BUILT_IN.iter().find(|r| r.name == name) {
            Some(built_in) => built_in.text.to_owned(),
            None => recipe::read_text(Path::new(name))?,
        };
        let edits: String = self.edits.iter().map(|edit| format!("# --set {edit}\n")).collect();
        Ok(format!("# --recipe {name}\n{edits}{text}"))
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
    let stop = crate::interrupt::flag()?;
    let mut progress = Progress::new(common.quiet, options.recipe.train().batch_size);
    let outcome = train(&mut |event| progress.on(&event), &stop);
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
