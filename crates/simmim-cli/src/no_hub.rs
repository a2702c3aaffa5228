//! In the place of `hub` in a build without that feature: an address of a model on a hub is an error that says so.

use crate::cli::{Cli, Command};
use simmim::Error;

/// Refuses every `hf://…` in `--from`.
///
/// # Errors
/// If there is one.
pub(crate) fn fetch(cli: &mut Cli) -> Result<(), Error> {
    let from = match &cli.command {
        Command::Pretrain(args) => args.from.as_deref(),
        Command::Finetune(args) => Some(args.from.as_str()),
        Command::Probe(args) => Some(args.frozen.from.as_str()),
        Command::Knn(args) => Some(args.frozen.from.as_str()),
        Command::Embed(args) => Some(args.from.as_str()),
        Command::Evaluate(args) => args.from.to_str(),
        Command::Reconstruct(args) => args.from.to_str(),
        Command::Export(args) => args.from.to_str(),
        Command::Import(args) => args.file.to_str(),
        Command::Inspect(args) => Some(args.what.as_str()),
        Command::Demo(_)
        | Command::Masks(_)
        | Command::Palette(_)
        | Command::Tokenizer(_)
        | Command::Bench(_)
        | Command::Recipes(_) => None,
    };
    match from.filter(|from| from.starts_with("hf://")) {
        None => Ok(()),
        Some(from) => Err(Error::Input {
            what: format!("`{from}` is on a hub, which this build does not ask"),
            hint: Some("build with `--features hub`, or download the model and give its folder".into()),
        }),
    }
}
