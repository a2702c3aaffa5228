//! One file per command, and what several of them share.

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
use simmim::train::Beginning;
use simmim_data::Image;
use std::io::Write;
use std::path::Path;

/// Prints a result: JSON if asked for, else `prose`. A reader that left early (`| head`) has what it wanted.
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

/// What `--from` names: `scratch`, or weights.
fn beginning(from: &str) -> Beginning {
    match from {
        "scratch" => Beginning::Scratch,
        path => Beginning::Weights(path.into()),
    }
}

/// Says which newer checkpoints could not be used.
fn warn_of_damaged(errors: &[Error]) {
    for error in errors {
        eprintln!("warning: {error}; using the checkpoint before it");
    }
}

/// Reads an image that was named on the command line, as `channels` channels.
fn read_image(path: &Path, channels: usize) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::Input { what: format!("image `{}` cannot be read: {e}", path.display()), hint: None })?;
    Ok(simmim_data::decode(&bytes, &path.display().to_string(), channels).map_err(Error::from)?)
}
