//! What every command that trains does around the training: from what was typed to a run's options, then progress,
//! Ctrl-C, and how a run that was cut short ends.

use super::print_result;
use crate::cli::Common;
use crate::exit::Exit;
use crate::progress::Progress;
use serde_json::Value;
use simmim::recipe::{self, RecipeKind};
use simmim::train::{Event, Input, Options};
use simmim::{Error, Result};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A run as typed, but for its images.
pub(super) struct Run<'a> {
    pub(super) common: &'a Common,
    /// A built-in recipe or a file.
    pub(super) recipe: &'a str,
    /// Edits of the recipe.
    pub(super) edits: &'a [String],
    /// The run folder.
    pub(super) out: &'a Path,
    /// Threads of the loader.
    pub(super) workers: usize,
}

impl Run<'_> {
    /// Options of the run on images that are named.
    ///
    /// # Errors
    /// If the recipe or the images cannot be used.
    pub(super) fn on<R: RecipeKind>(&self, data: &str, val: Option<&str>) -> anyhow::Result<Options<R>> {
        let recipe: R = recipe::resolve_as(self.recipe, self.edits)?;
        let open = |spec: &str| -> anyhow::Result<Input> {
            let source = simmim_data::open(spec, recipe.data().channels).map_err(Error::from)?;
            Ok(Input { source, description: spec.to_owned() })
        };
        let (data, val) = (open(data)?, val.map(open).transpose()?);
        self.options(recipe, data, val)
    }

    /// Options of the run on images that are open.
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
            threads: self.common.threads(),
            workers: self.workers,
        })
    }

    /// The recipe as typed: the text it starts from and the edits, as comments.
    fn given(&self) -> anyhow::Result<String> {
        let name = self.recipe;
        let text = match recipe::BUILT_IN.iter().find(|r| r.name == name) {
            Some(built_in) => built_in.text.to_owned(),
            None => std::fs::read_to_string(name)?,
        };
        let edits: String = self.edits.iter().map(|edit| format!("# --set {edit}\n")).collect();
        Ok(format!("# --recipe {name}\n{edits}{text}"))
    }
}

/// Runs `train` with progress and Ctrl-C: it is given whom to tell of events, and the flag that asks it to stop.
///
/// # Errors
/// Those of `train`.
pub(super) fn watched<R: RecipeKind, T>(
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

/// Prints how a run ended: `done`, or how far it got.
///
/// # Errors
/// Those of [`print_result`].
pub(super) fn print_end(
    common: &Common,
    (updates, total): (u64, u64),
    done: &str,
    json: &Value,
) -> anyhow::Result<Exit> {
    if updates == total {
        print_result(common.json, done, json)?;
        return Ok(Exit::Done);
    }
    let prose = format!("stopped after update {updates} of {total}; the same command goes on");
    print_result(common.json, &prose, json)?;
    Ok(Exit::Interrupted)
}
