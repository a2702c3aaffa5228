//! The commands, one file each, and what they share.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod finetune;
mod frozen;
pub(crate) mod import;
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
use simmim::run::MAX_NAMED;
use simmim::weights::{ChannelRule, Import, InitFrom};
use simmim_data::{Image, PassedOver, Skipped, Source};
use std::collections::HashSet;
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

/// Opens the images of the command line, and says what lies among them and is not read.
///
/// # Errors
/// If there are no images, or they cannot be opened.
fn open_data(spec: &str, channels: usize) -> simmim::Result<Arc<dyn Source>> {
    let source = simmim_data::open(spec, channels)?;
    passed_over_lines(source.passed_over()).iter().for_each(|line| crate::terminal::line(line));
    Ok(source)
}

/// Warnings of what lies among images and is not read.
pub(crate) fn passed_over_lines(passed_over: &[PassedOver]) -> Vec<String> {
    let named = passed_over.iter().take(MAX_NAMED).map(|item| format!("warning: not read: {item}"));
    let more = passed_over.len().saturating_sub(MAX_NAMED);
    named.chain((more > 0).then(|| format!("warning: not read: {more} more"))).collect()
}

/// Names the first of these unreadable images and counts the others; returns how many there are, each counted once.
fn warn_of_unreadable<'a>(skipped: impl IntoIterator<Item = &'a Skipped>) -> usize {
    let mut names = HashSet::new();
    for Skipped { name, reason, .. } in skipped {
        if names.insert(name) && names.len() <= MAX_NAMED {
            crate::terminal::line(&format!("warning: skipped `{name}`: {reason}"));
        }
    }
    if names.len() > MAX_NAMED {
        let more = names.len() - MAX_NAMED;
        crate::terminal::line(&format!("warning: skipped {more} more images that cannot be read"));
    }
    names.len()
}

/// Parses `--from`: `scratch`, or a path to weights.
fn init_from(from: &str, channels: Option<ChannelRule>) -> InitFrom {
    match from {
        "scratch" => InitFrom::Scratch,
        path => InitFrom::Weights { path: path.into(), channels },
    }
}

/// Prints a warning for each newer checkpoint that is damaged.
fn warn_of_damaged(errors: &[Error]) {
    for error in errors {
        crate::terminal::line(&format!("warning: {error}; using the checkpoint before it"));
    }
}

/// Says what was taken over from the file of another program, if the weights are of one.
fn say_import(common: &Common, import: Option<&Import>) {
    let lines = import.filter(|_| !common.quiet).map_or(Vec::new(), Import::lines);
    lines.iter().for_each(|line| crate::terminal::line(line));
}

/// Reads an image of the command line and converts it to `channels` channels.
fn read_image(path: &Path, channels: usize) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::Input { what: format!("image `{}` cannot be read: {e}", path.display()), hint: None })?;
    Ok(simmim_data::decode(&bytes, &path.display().to_string(), channels).map_err(Error::from)?)
}
