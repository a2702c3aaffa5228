//! Loading of weights from a run folder, a checkpoint folder or a file, with the recipe they were trained with.

use super::{RECIPE_KEY, WeightsFile};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::AnyRecipe;
use crate::run::{RunInfo, any_resolved_of_toml, checkpoint, read_any_resolved};
use simmim_engine::{Backend, Device, ParameterTable, Precision, Slot};
use std::path::{Path, PathBuf};

/// Where the initial weights of a model come from.
#[derive(Clone, Debug)]
pub enum InitFrom {
    /// Random initialization.
    Scratch,
    /// A run folder, a checkpoint folder or a weights file.
    Weights(PathBuf),
}

/// Weights and what is known about them.
pub struct LoadedWeights {
    /// The tensors.
    pub file: WeightsFile,
    /// Recipe and facts of the run that trained them, if the file has them.
    pub resolved: Option<(AnyRecipe, RunInfo)>,
    /// Errors of newer, damaged checkpoints of the run.
    pub damaged: Vec<Error>,
}

impl LoadedWeights {
    /// Loads the weights of a run folder (its newest intact checkpoint), a checkpoint folder or a weights file. If a
    /// checkpoint has an EMA of the weights, that is loaded.
    ///
    /// # Errors
    /// If the path does not exist, is something else, or is damaged.
    pub fn at(from: &Path) -> Result<Self> {
        let missing = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        if !from.exists() {
            return Err(missing(
                format!("there is no `{}`", from.display()),
                "give a run folder, a checkpoint folder or a weights file",
            ));
        }
        if from.is_file() {
            return Self::of_file(from);
        }
        if from.join(checkpoint::MODEL_FILE).is_file() {
            return Self::of_file(&checkpoint::weights_to_use(from));
        }
        read_any_resolved(from)?; // an error if this is not a run folder
        let mut damaged = Vec::new();
        for (_, folder) in checkpoint::list(from)?.into_iter().rev() {
            let path = checkpoint::weights_to_use(&folder);
            match checkpoint::verify(&folder, &path).and_then(|()| Self::of_file(&path)) {
                Ok(found) => return Ok(Self { damaged, ..found }),
                Err(error @ (Error::Damaged { .. } | Error::NotWeights { .. } | Error::Io(_))) => damaged.push(error),
                Err(other) => return Err(other), // a whole file, which this version does not understand
            }
        }
        match damaged.into_iter().next() {
            Some(newest) => Err(newest),
            None => {
                let what = format!("run `{}` has no checkpoint yet", from.display());
                Err(missing(what, "let it train until its first checkpoint"))
            }
        }
    }

    fn of_file(path: &Path) -> Result<Self> {
        let file = WeightsFile::read(path)?;
        let resolved = match file.metadata().get(RECIPE_KEY) {
            Some(text) => Some(any_resolved_of_toml(text, path)?),
            None => None,
        };
        Ok(Self { file, resolved, damaged: Vec::new() })
    }

    /// Opens a backend with the parameters of `table` and loads their values.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn open<D: Device>(&self, device: &D, table: ParameterTable, precision: Precision) -> Result<D::Backend> {
        let what = || format!("a model of {} parameters", table.len());
        memory::check(what, memory::of_values(table.len()))?;
        let backend = device.open(table, precision);
        self.file.load(backend.table(), "", |id, values| backend.write_parameter(Slot::Values, id, values))?;
        Ok(backend)
    }
}
