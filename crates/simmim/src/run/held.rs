//! What a run holds of the files that its recipe names, so that it needs none of them once it has begun: the colors of a
//! palette are in `resolved.toml`, a tokenizer is copied into the folder.

use super::files::write_atomically;
use super::resolved::{RESOLVED_FILE, RunInfo};
use crate::error::{Error, Result};
use crate::recipe::AnyRecipe;
use crate::tokenizer::{TOKENIZER_FILE, no_tokenizer, tokenizer_file};
use std::path::{Path, PathBuf};

/// Length and checksum of a file, by which [`RunInfo`] knows a tokenizer.
///
/// # Errors
/// If there is no such file.
pub(crate) fn checksum(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|_| no_tokenizer(path))?;
    Ok(of_bytes(&bytes))
}

fn of_bytes(bytes: &[u8]) -> String {
    format!("{} bytes, crc32c {:08x}", bytes.len(), crc32c::crc32c(bytes))
}

/// The tokenizer in the folder of a run, if it has one of its own.
///
/// # Errors
/// If it is not the one with the checksum `expected`.
pub(crate) fn own_tokenizer(run: &Path, expected: &str) -> Result<Option<PathBuf>> {
    let own = run.join(TOKENIZER_FILE);
    if !own.is_file() {
        return Ok(None);
    }
    let found = checksum(&own)?;
    if found == expected {
        return Ok(Some(own));
    }
    let reason = format!("is another tokenizer than the run began with: {found}, expected {expected}");
    Err(Error::Damaged { path: own, reason })
}

/// Copies the tokenizer `from` into the folder of a run.
///
/// # Errors
/// If it is no longer the one with the checksum `expected`, or cannot be written.
pub(super) fn keep_tokenizer(run: &Path, from: &Path, expected: &str) -> Result<()> {
    let own = run.join(TOKENIZER_FILE);
    if from == own {
        return Ok(());
    }
    let bytes = std::fs::read(from).map_err(Error::io(from))?;
    if of_bytes(&bytes) != expected {
        let hint = Some("run the same command again when nothing changes it".into());
        return Err(Error::Input { what: format!("`{}` changed while the run began", from.display()), hint });
    }
    Ok(write_atomically(&own, &bytes)?)
}

/// A recipe that is stored in the folder of a run, or in weights in it, with the files that it names where they are now:
/// in that folder if the run holds them. `stored` is the folder or the weights file.
///
/// # Errors
/// If the run holds another tokenizer than it began with, or none is there.
pub fn located(stored: &Path, mut recipe: AnyRecipe, run: &RunInfo) -> Result<AnyRecipe> {
    let AnyRecipe::Pretrain(pretrain) = &mut recipe else { return Ok(recipe) };
    let (Some(named), Some(expected)) = (&mut pretrain.target.tokenizer, &run.tokenizer) else { return Ok(recipe) };
    let stored = stored.canonicalize().map_err(Error::io(stored))?;
    let folder = stored.ancestors().find(|folder| folder.join(RESOLVED_FILE).is_file());
    let own = folder.map_or(Ok(None), |folder| own_tokenizer(folder, expected))?;
    if let Some(own) = own {
        *named = own.display().to_string();
        return Ok(recipe);
    }
    let elsewhere = tokenizer_file(Path::new(named.as_str()));
    let found = checksum(&elsewhere)?;
    if found != *expected {
        let what = format!(
            "tokenizer `{}` is another one than in training: {found}, expected {expected}",
            elsewhere.display()
        );
        let hint = Some("give the folder of the run, which holds its tokenizer, or these weights in it".into());
        return Err(Error::Input { what, hint });
    }
    Ok(recipe)
}
