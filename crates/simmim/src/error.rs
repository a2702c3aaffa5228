//! What can go wrong in the library, and whose fault it is.
//!
//! Variants hold values; the wording is in one place. A hint is apart from the message, so that a
//! front end can set it off.

use crate::files::with_path;
use std::path::{Path, PathBuf};

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of pre-training and everything around it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] simmim_data::Error),

    /// A value of the recipe does not fit.
    #[error("recipe key `{key}` is `{value}`: {expected}")]
    Recipe {
        /// Path of the key, `mask.unit_px`.
        key: String,
        /// The value found.
        value: String,
        /// What would be right.
        expected: String,
        /// What to do about it.
        hint: Option<String>,
    },

    /// A recipe is not a built-in name, not a file, or not TOML.
    #[error("recipe `{name}`: {reason}")]
    RecipeFile {
        /// Name or path as given.
        name: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },

    /// An input (a path, an argument) cannot be used.
    #[error("{what}")]
    Input {
        /// What is wrong, with the value in backticks.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },

    /// Saved weights have another shape than the model.
    #[error("`{}`: tensor `{tensor}` has shape {found:?}, the model expects {expected:?}", path.display())]
    WeightShape {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape in the model.
        expected: Vec<usize>,
    },

    /// Saved weights lack a tensor of the model.
    #[error("`{}`: tensor `{tensor}` is missing", path.display())]
    WeightMissing {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },

    /// A file is not one of weights, or not a whole one.
    #[error("`{}` is not a whole safetensors file: {reason}", path.display())]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        reason: String,
    },

    /// A file of a checkpoint or run is damaged.
    #[error("`{}`: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A run folder belongs to another recipe.
    #[error("`{}` holds a run with another recipe: {difference}", path.display())]
    OtherRun {
        /// The run folder.
        path: PathBuf,
        /// The first key that differs, with both values.
        difference: String,
    },

    /// Reading or writing failed; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// Training met a number that is not finite.
    #[error("update {update}: {what} is {value}")]
    NotFinite {
        /// Number of the update, from 1.
        update: u64,
        /// `the loss`, or the gradient of which parameter.
        what: String,
        /// The value.
        value: f64,
    },

    /// Too many images could not be read.
    #[error(
        "{skipped} of {seen} images could not be read, more than the share of {allowed} that `data.max_skipped` allows; the last was `{last}`: {reason}"
    )]
    TooManySkipped {
        /// Unreadable images.
        skipped: u64,
        /// Images asked for.
        seen: u64,
        /// Allowed share.
        allowed: f64,
        /// The last one's name.
        last: String,
        /// Why it could not be read.
        reason: String,
    },
}

impl Error {
    /// Whether the user can mend it by changing recipe, path or arguments.
    pub fn is_users_fault(&self) -> bool {
        match self {
            Error::Data(e) => e.is_users_fault(),
            Error::Recipe { .. }
            | Error::RecipeFile { .. }
            | Error::Input { .. }
            | Error::WeightShape { .. }
            | Error::WeightMissing { .. }
            | Error::NotWeights { .. }
            | Error::Damaged { .. }
            | Error::OtherRun { .. }
            | Error::TooManySkipped { .. } => true,
            Error::Io(_) | Error::NotFinite { .. } => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Data(e) => e.hint(),
            Error::Recipe { key, hint, .. } => {
                hint.clone().or_else(|| Some(format!("`--set {key}=VALUE` edits it for one run")))
            }
            Error::RecipeFile { hint, .. } => {
                hint.clone().or_else(|| Some("`simmim recipes NAME` prints a built-in recipe to compare it with".into()))
            }
            Error::Input { hint, .. } => hint.clone(),
            Error::WeightShape { .. } | Error::WeightMissing { .. } => {
                Some("use the recipe these weights were trained with; `simmim inspect FILE` shows what is in them".into())
            }
            Error::NotWeights { .. } => {
                Some("give weights that `simmim pretrain` wrote; if it was cut short, copy it again".into())
            }
            Error::Damaged { .. } => Some("delete the damaged file or folder; the run goes on from the checkpoint before it".into()),
            Error::OtherRun { .. } => Some("choose another --out, or run with the recipe in its `resolved.toml`".into()),
            Error::Io(error) => match error.kind() {
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::FileTooLarge => {
                    Some("free some space and run the same command again: it goes on from the last checkpoint".into())
                }
                std::io::ErrorKind::PermissionDenied => Some("check who may write there, or choose another --out".into()),
                _ => None,
            },
            Error::NotFinite { .. } => {
                Some("lower `train.base_lr` or lengthen `train.warmup_epochs`; the last checkpoint is from before it happened".into())
            }
            Error::TooManySkipped { .. } => Some("`simmim inspect DATA` lists the unreadable files".into()),
        }
    }

    /// Wraps an I/O error with the path it is about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io(with_path(error, path))
    }
}
