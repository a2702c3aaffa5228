//! The commands, one file each, and what they share.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod finetune;
mod frozen;
pub(crate) mod import;
pub(crate) mod inspect;
mod inspect_data;
pub(crate) mod knn;
pub(crate) mod map;
pub(crate) mod masks;
mod outputs;
pub(crate) mod palette;
pub(crate) mod pretrain;
pub(crate) mod probe;
pub(crate) mod recipes;
pub(crate) mod reconstruct;
mod rows;
pub(crate) mod search;
pub(crate) mod tokenizer;
mod training;

use crate::cli::Common;
use crate::terminal::escaped;
use serde_json::Value;
use simmim::Error;
use simmim::recipe::DataRecipe;
use simmim::run::{Collection, MAX_NAMED};
use simmim::weights::{ChannelRule, Import, InitFrom};
use simmim_data::{Decoding, Image, Overlap, PassedOver, PassedOverReason, Skipped, Source};
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Prints a result: JSON if asked for, else `prose`. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// If stdout cannot be written for another reason.
fn print_result(is_json: bool, prose: &str, json: &Value) -> anyhow::Result<()> {
    if crate::terminal::is_held() {
        return Ok(()); // the first rank says it
    }
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
fn open_data(common: &Common, spec: &str, decoding: impl Into<Decoding>) -> simmim::Result<Arc<dyn Source>> {
    let source = simmim_data::open(spec, decoding)?;
    say_passed_over(common, source.passed_over());
    Ok(source)
}

/// Opens the images of the command line to train on: the tiles of them, if the recipe cuts tiles.
///
/// # Errors
/// If there are no images, or they cannot be opened.
fn open_training_data(common: &Common, spec: &str, recipe: &DataRecipe) -> simmim::Result<Arc<dyn Source>> {
    if recipe.tile.is_none() {
        return open_data(common, spec, recipe.decoding());
    }
    let pictures = simmim_data::open(spec, recipe.decoding())?;
    let count = pictures.len();
    let tiles = recipe.tiled(pictures, common.seed(), common.threads())?;
    say_passed_over(common, tiles.passed_over());
    if !common.quiet {
        let pictures = if count == 1 { "picture" } else { "pictures" };
        crate::terminal::line(&format!("`{spec}`: {} tiles of {count} {pictures}", tiles.len()));
    }
    Ok(tiles)
}

/// Says what lies among the images and is not read.
fn say_passed_over(common: &Common, passed_over: &PassedOver) {
    passed_over_warnings(passed_over).iter().for_each(|line| crate::terminal::line(line));
    if !common.quiet {
        passed_over_notes(passed_over).iter().for_each(|line| crate::terminal::line(line));
    }
}

/// A warning of images that something is measured with, the first collection, and that are learned from, the second one.
pub(crate) fn overlap_warning([measured, learned]: [Collection; 2], overlap: &Overlap) -> String {
    let Overlap { images, first } = overlap;
    format!(
        "warning: {images} of the {} are among the {} too, `{first}` for one: what is measured with them looks better than it is",
        measured.name(),
        learned.name()
    )
}

/// Reasons that are told one by one; of more, only the number is told.
const MAX_REASONS: usize = 10;

/// Warnings of what lies among images, was probably meant to be read, and is not: a line for each reason.
pub(crate) fn passed_over_warnings(passed_over: &PassedOver) -> Vec<String> {
    let groups = passed_over.groups().iter().filter(|group| group.reason.may_hide_images());
    lines("warning: not read: ", groups.map(|group| (group.advice(3), group.count)))
}

/// The same for what else lies among images, such as texts. Hidden files are left to `inspect`.
pub(crate) fn passed_over_notes(passed_over: &PassedOver) -> Vec<String> {
    let groups = passed_over.groups().iter().filter(|group| !group.reason.may_hide_images());
    let seen = groups.filter(|group| group.reason != PassedOverReason::Hidden);
    lines("not read: ", seen.map(|group| (group.sentence(3), group.count)))
}

/// The first sentences, and the count of the others.
fn lines(start: &str, sentences: impl Iterator<Item = (String, u64)>) -> Vec<String> {
    let mut sentences: Vec<(String, u64)> = sentences.collect();
    let rest: u64 = sentences.drain(sentences.len().min(MAX_REASONS)..).map(|(_, count)| count).sum();
    let named = sentences.into_iter().map(|(sentence, _)| format!("{start}{sentence}"));
    let rest = (rest > 0).then(|| format!("{start}{rest} more for other reasons, which `simmim inspect` lists"));
    named.chain(rest).collect()
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
