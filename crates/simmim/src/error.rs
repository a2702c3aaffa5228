//! The error type of this crate.
//!
//! Variants hold values, and all wording is here. The hint is separate from the message, so that a front end can format
//! it differently.

use crate::run::files::with_path;
use crate::version;
use crate::weights::TorchFault;
use std::path::{Path, PathBuf};

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] simmim_data::Error),

    /// A value of a recipe is invalid.
    #[error("recipe key `{key}` is `{value}`: {expected}")]
    Recipe {
        /// Path of the key, `mask.unit_px`.
        key: String,
        /// The value found.
        value: String,
        /// What is expected instead.
        expected: String,
        /// How to fix it.
        hint: Option<String>,
    },

    /// A recipe is not a built-in name, not a file, or not TOML.
    #[error("recipe `{name}`: {reason}")]
    RecipeFile {
        /// Name or path as given.
        name: String,
        /// What is wrong with it.
        reason: String,
        /// How to fix it.
        hint: Option<String>,
    },

    /// An input (a path, an argument) cannot be used.
    #[error("{what}")]
    Input {
        /// What is wrong, with the value in backticks.
        what: String,
        /// How to fix it.
        hint: Option<String>,
    },

    /// A tensor of a weights file does not have the shape of the model's parameter.
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

    /// A weights file does not have a tensor of the model.
    #[error("`{}`: tensor `{tensor}` is missing", path.display())]
    WeightMissing {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },

    /// Weights do not say what their architecture is.
    #[error("`{}`: {what}", path.display())]
    Undecided {
        /// The weights file.
        path: PathBuf,
        /// What is not known.
        what: String,
        /// The edit that would say it; empty if there is none.
        edit: String,
    },

    /// A value of a weights file is not finite, or one that was to be written to it.
    #[error("`{}`: tensor `{tensor}` is {value} at index {index}", path.display())]
    WeightNotFinite {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Index of the first such value in the tensor.
        index: usize,
        /// The value, as f32.
        value: f32,
    },

    /// A feature or a score that a model computes from an image is not finite.
    #[error("{what} is {value} for `{image}`")]
    OutputNotFinite {
        /// `feature 3`, or the class whose score it is.
        what: String,
        /// Name of the image.
        image: String,
        /// The value.
        value: f64,
    },

    /// A file is not a safetensors file, or not complete.
    #[error("`{}` is not a complete safetensors file: {reason}", path.display())]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// The error of the reader.
        reason: String,
    },

    /// A file of `torch.save` is not read.
    #[error("`{}` is not read: {fault}", path.display())]
    TorchFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: TorchFault,
    },

    /// A file of a checkpoint or run is damaged.
    #[error("`{}`: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Another version of this program wrote a file, and in another form than this one knows.
    #[error(
        "`{}` is of simmim {version}, {} version than this one, {}: {reason}",
        path.display(),
        if version::is_later(version) { "a later" } else { "an earlier" },
        version::THIS
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version that wrote it.
        version: String,
        /// What this version does not know or misses.
        reason: String,
    },

    /// A run folder holds a run with another recipe.
    #[error("`{}` holds a run with another recipe: {difference}", path.display())]
    OtherRun {
        /// The run folder.
        path: PathBuf,
        /// The first key that differs, with both values.
        difference: String,
    },

    /// The connection to another rank was lost.
    #[error(transparent)]
    Rank(#[from] simmim_engine::CollectiveError),

    /// A rank has other weights than the first one, though it made the same steps.
    #[error("step {step}: rank {rank} has other weights than the first rank")]
    RankDiffers {
        /// The first such rank.
        rank: usize,
        /// Steps done.
        step: u64,
    },

    /// Reading or writing failed; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// The system does not give the memory that the work needs.
    #[error("{what} takes {:.1} GB of memory, which the system does not give", *bytes as f64 / 1e9)]
    Memory {
        /// What takes it.
        what: String,
        /// How much, in bytes.
        bytes: u64,
    },

    /// The memory of the device ran out.
    #[error("the device has not enough memory: {reason}")]
    DeviceMemory {
        /// What the device's library says.
        reason: String,
    },

    /// A number in training is not finite.
    #[error("step {step}: {what} is {value}")]
    NotFinite {
        /// Number of the step, from 1.
        step: u64,
        /// `the loss`, or `the gradient of` a parameter, or what an evaluation computes or a checkpoint is to hold.
        what: String,
        /// The value.
        value: f64,
    },

    /// Too many images could not be read.
    #[error(
        "{skipped} of {seen} images could not be read, more than the share of {allowed} that `data.max_skipped` allows; the last was `{last}`: {reason}"
    )]
    TooManySkipped {
        /// Number of unreadable images.
        skipped: u64,
        /// Number of images that were drawn.
        seen: u64,
        /// Allowed share, 0 to 1.
        allowed: f64,
        /// Name of the last unreadable image.
        last: String,
        /// Why it could not be read.
        reason: String,
    },
}

impl Error {
    /// Whether the user can fix it by changing the recipe, a path or an argument.
    pub fn is_users_fault(&self) -> bool {
        match self {
            Error::Data(e) => e.is_users_fault(),
            Error::Recipe { .. }
            | Error::RecipeFile { .. }
            | Error::Input { .. }
            | Error::WeightShape { .. }
            | Error::WeightMissing { .. }
            | Error::WeightNotFinite { .. }
            | Error::OutputNotFinite { .. }
            | Error::NotWeights { .. }
            | Error::TorchFile { .. }
            | Error::Undecided { .. }
            | Error::Damaged { .. }
            | Error::OtherVersion { .. }
            | Error::OtherRun { .. }
            | Error::TooManySkipped { .. } => true,
            Error::Rank(e) => e.failure.as_ref().is_some_and(|failure| failure.is_users_fault),
            Error::RankDiffers { .. }
            | Error::Io(_)
            | Error::Memory { .. }
            | Error::DeviceMemory { .. }
            | Error::NotFinite { .. } => false,
        }
    }

    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Data(e) => e.hint(),
            Error::Recipe { key, hint, .. } => {
                hint.clone().or_else(|| Some(format!("`--set {key}=VALUE` changes it for one run")))
            }
            Error::RecipeFile { hint, .. } => {
                hint.clone().or_else(|| Some("`simmim recipes NAME` prints a built-in recipe to compare with".into()))
            }
            Error::Input { hint, .. } => hint.clone(),
            Error::WeightShape { .. } | Error::WeightMissing { .. } => Some(
                "use the recipe these weights were trained with; `simmim inspect FILE` shows what is in them".into(),
            ),
            Error::Undecided { edit, .. } if edit.is_empty() => Some("name its recipe by --recipe".into()),
            Error::Undecided { edit, .. } => {
                Some(format!("`--set {edit}` says it; so does the config.json of these weights, in their folder"))
            }
            Error::WeightNotFinite { .. } => Some(
                "the training that wrote it diverged, or something edited it: give weights of an earlier step, or train \
                 again with a lower `train.base_lr`"
                    .into(),
            ),
            Error::OutputNotFinite { .. } => Some(
                "its pixels or the weights are too large to compute with: check the image, or give weights of an earlier \
                 step"
                    .into(),
            ),
            Error::NotWeights { .. } => {
                Some("give a weights file of `simmim pretrain`; if the file was cut off, copy it again".into())
            }
            Error::TorchFile { fault, .. } => Some(fault.hint().into()),
            Error::Damaged { .. } => {
                Some("it was cut short or edited: restore it from a copy, or begin a new run in another --out".into())
            }
            Error::OtherVersion { version, .. } => {
                Some(format!("nothing is damaged: read it with simmim {version}, or begin a new run in another --out"))
            }
            Error::OtherRun { .. } => {
                Some("choose another --out, or run with the recipe in its `resolved.toml`".into())
            }
            Error::Rank(e) => match &e.failure {
                Some(failure) => failure.hint.clone(),
                None => Some("the same command resumes from the last checkpoint".into()),
            },
            Error::RankDiffers { .. } => Some(
                "its machine computes wrongly, or has another kind of processor, which rounds differently: leave it out, \
                 and the same command resumes from the last checkpoint"
                    .into(),
            ),
            Error::Io(error) => match error.kind() {
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::FileTooLarge => {
                    Some("free some space and run the same command again: a run resumes from its last checkpoint".into())
                }
                std::io::ErrorKind::PermissionDenied => Some("check the permissions, or choose another --out".into()),
                _ => None,
            },
            Error::Memory { .. } | Error::DeviceMemory { .. } => Some(
                "smaller images, batches (`train.batch_size`), micro-batches (`train.accumulation_steps`) or models take less; so do recomputed \
                 activations (`train.recompute_blocks`), and fewer --workers"
                    .into(),
            ),
            Error::NotFinite { .. } => Some(
                "begin a new run, in another --out, with a lower `train.base_lr` or a longer `train.warmup_epochs`"
                    .into(),
            ),
            Error::TooManySkipped { .. } => Some("`simmim inspect DATA` lists the unreadable files".into()),
        }
    }

    /// This error as one of a step of training, if it says that a number is not finite.
    pub(crate) fn at_step(self, step: u64) -> Error {
        match self {
            Error::WeightNotFinite { tensor, value, .. } => {
                Error::NotFinite { step, what: format!("`{tensor}`"), value: value.into() }
            }
            Error::OutputNotFinite { what, image, value } => {
                Error::NotFinite { step, what: format!("{what} for `{image}`"), value }
            }
            other => other,
        }
    }

    /// Converts an I/O error and adds the path to its message.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::Io(with_path(error, path))
    }
}
