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

use serde_json::Value;
use simmim::Error;
use simmim::weights::InitFrom;
use simmim_data::Image;
use std::io::Write;
use std::path::Path;

/// Prints a result: JSON if asked for, else `prose`. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// If stdout cannot be written for another reason.
fn print_result(is_json: bool, prose: &str, json: &Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = if is_json { writeln!(stdout, "{json}") } else { writeln!(stdout, "{prose}") };
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write the result to stdout"))
        }
        _ => Ok(()),
    }
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
        eprintln!("warning: {error}; using the checkpoint before it");
    }
}

/// Reads an image of the command line and converts it to `channels` channels.
fn read_image(path: &Path, channels: usize) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::Input { what: format!("image `{}` cannot be read: {e}", path.display()), hint: None })?;
    Ok(simmim_data::decode(&bytes, &path.display().to_string(), channels).map_err(Error::from)?)
}
