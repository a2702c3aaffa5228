//! Weights on a hub of models: `hf://owner/name[@revision][/file]` is fetched into the cache that Hugging Face's own
//! libraries use, and stands for the path there. Without the feature `hub`, such an address is an error that says so.

#[cfg(feature = "hub")]
mod address;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod lock;
#[cfg(feature = "hub")]
mod request;
#[cfg(feature = "hub")]
mod settings;

use crate::cli::{Cli, Command};
use simmim::Error;
use std::path::PathBuf;

/// Puts the path in the cache in the place of each `hf://…` in `--from`, fetching what is not there yet.
///
/// # Errors
/// If an address is none, or the files can neither be fetched nor are in the cache.
pub(crate) fn fetch(cli: &mut Cli) -> Result<(), Error> {
    let is_quiet = cli.common.quiet;
    match &mut cli.command {
        Command::Pretrain(args) => args.from.iter_mut().try_for_each(|from| in_place(from, is_quiet)),
        Command::Finetune(args) => in_place(&mut args.from, is_quiet),
        Command::Probe(args) => in_place(&mut args.frozen.from, is_quiet),
        Command::Knn(args) => in_place(&mut args.frozen.from, is_quiet),
        Command::Embed(args) => in_place(&mut args.from, is_quiet),
        Command::Search(args) => args.collection.from.iter_mut().try_for_each(|from| in_place(from, is_quiet)),
        Command::Map(args) => args.collection.from.iter_mut().try_for_each(|from| in_place(from, is_quiet)),
        Command::Evaluate(args) => path_in_place(&mut args.from, is_quiet),
        Command::Reconstruct(args) => path_in_place(&mut args.from, is_quiet),
        Command::Export(args) => path_in_place(&mut args.from, is_quiet),
        Command::Import(args) => path_in_place(&mut args.file, is_quiet),
        Command::Inspect(args) => in_place(&mut args.what, is_quiet),
        Command::Demo(_)
        | Command::Masks(_)
        | Command::Palette(_)
        | Command::Tokenizer(_)
        | Command::Bench(_)
        | Command::Recipes(_) => Ok(()),
    }
}

fn in_place(from: &mut String, is_quiet: bool) -> Result<(), Error> {
    if let Some(path) = path(from, is_quiet)? {
        *from = path.display().to_string();
    }
    Ok(())
}

fn path_in_place(from: &mut PathBuf, is_quiet: bool) -> Result<(), Error> {
    if let Some(path) = from.to_str().map(|from| path(from, is_quiet)).transpose()?.flatten() {
        *from = path;
    }
    Ok(())
}

#[cfg(feature = "hub")]
use fetch::path;

#[cfg(not(feature = "hub"))]
fn path(from: &str, _: bool) -> Result<Option<PathBuf>, Error> {
    match from.starts_with("hf://") {
        false => Ok(None),
        true => Err(Error::Input {
            what: format!("`{from}` is on a hub, which this build does not ask"),
            hint: Some("build with `--features hub`, or download the model and give its folder".into()),
        }),
    }
}
