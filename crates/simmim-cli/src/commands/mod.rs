//! One file per command.

pub(crate) mod demo;
pub(crate) mod inspect;
pub(crate) mod masks;
pub(crate) mod pretrain;
pub(crate) mod recipes;
pub(crate) mod reconstruct;

use serde_json::Value;
use simmim::Error;
use simmim_data::Image;
use std::path::Path;

/// Prints a result: JSON if asked for, else `prose`.
fn print_result(is_json: bool, prose: &str, json: &Value) {
    if is_json { println!("{json}") } else { println!("{prose}") }
}

/// Reads an image that was named on the command line, as `channels` channels.
fn read_image(path: &Path, channels: usize) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::Input { what: format!("image `{}` cannot be read: {e}", path.display()), hint: None })?;
    Ok(simmim_data::decode(&bytes, &path.display().to_string(), channels).map_err(Error::from)?)
}
