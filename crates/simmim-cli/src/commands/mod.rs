//! The commands, one file each, and what they share.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod finetune;
mod frozen;
pub(crate) mod inspect;
pub(crate) mod knn;
pub(crate) mod masks;
pub(crate) mod palette;
pub(crate) mod pretrain;
pub(crate) mod probe;
pub(crate) mod recipes;
pub(crate) mod reconstruct;
pub(crate) mod tokenizer;
mod training;

use crate::cli::Common;
use crate::terminal::escaped;
use serde_json::Value;
use simmim::Error;
use simmim::weights::InitFrom;
use simmim_data::{Image, Source};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Prints a result: JSON if asked for, else `prose`. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// If stdout cannot be written for another reason.
fn print_result(is_json: bool, prose: &str, json: &Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = if is_json { json.to_string() } else { prose.lines().map(escaped).collect::<Vec<_>>().join("\n") };
    let written = writeln!(stdout, "{text}");
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write the result to stdout"))
        }
        _ => Ok(()),
    }
}

/// Files and folders that are passed over and named one by one.
const MAX_NAMED: usize = 10;

/// Opens the images of the command line, and says what lies among them and is not read.
///
/// # Errors
/// If there are no images, or they cannot be opened.
fn open_data(spec: &str, channels: usize) -> simmim::Result<Arc<dyn Source>> {
    let source = simmim_data::open(spec, channels)?;
    let passed_over = source.passed_over();
    for item in passed_over.iter().take(MAX_NAMED) {
        crate::terminal::line(&format!("warning: not read: {item}"));
    }
    if passed_over.len() > MAX_NAMED {
        crate::terminal::line(&format!("warning: not read: {} more", passed_over.len() - MAX_NAMED));
    }
    Ok(source)
}

/// Refuses `--set` where it would change nothing.
///
/// # Errors
/// If there is an edit of a recipe.
fn refuse_edits(common: &Common, command: &str) -> simmim::Result<()> {
    let Some(edit) = common.set.first() else { return Ok(()) };
    let what = format!("`--set {edit}` changes nothing in `simmim {command}`, which reads no recipe here");
    let hint = "recipes are read by pretrain, finetune, tokenizer, demo, masks, bench, `inspect RECIPE`, `recipes NAME`, \
                and by probe and knn with --recipe";
    Err(Error::Input { what, hint: Some(hint.into()) })
}

/// Parses `--from`: `scratch`, or a path to weights.
fn init_from(from: &str) -> InitFrom {
    match from {
        "scratch" => InitFrom::Scratch,
        path => InitFrom::Weights(path.into()),
    }
}

/// Prints a warning for each newer checkpoint that is damaged.
fn warn_of_damaged(errors: &[Error]) {
    for error in errors {
        crate::terminal::line(&format!("warning: {error}; using the checkpoint before it"));
    }
}

/// Reads an image of the command line and converts it to `channels` channels.
fn read_image(path: &Path, channels: usize) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::Input { what: format!("image `{}` cannot be read: {e}", path.display()), hint: None })?;
    Ok(simmim_data::decode(&bytes, &path.display().to_string(), channels).map_err(Error::from)?)
}
