//! Loading of weights from a run folder, a checkpoint folder or a file, with the recipe they were trained with.

use super::import::{Imported, import};
use super::preparation::{PREPARATION_KEY, of_metadata};
use super::shards::{INDEX_FILE, TORCH_FILE, TORCH_INDEX_FILE, is_index, read_sharded};
use super::{ChannelRule, Import, RECIPE_KEY, WeightsFile};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::AnyRecipe;
use crate::run::{RunInfo, any_resolved_of_toml, checkpoint, read_any_resolved};
use simmim_data::Augmentation;
use simmim_engine::{Backend, Device, ParameterTable, Precision, Slot};
use std::path::{Path, PathBuf};

/// Where the initial weights of a model come from.
#[derive(Clone, Debug)]
pub enum InitFrom {
    /// Random initialization.
    Scratch,
    /// A run folder, a checkpoint folder, a weights file, or a folder as other programs write it.
    Weights {
        /// Its path.
        path: PathBuf,
        /// How its patch embedding is adapted to another number of channels; `None`: that is an error.
        channels: Option<ChannelRule>,
    },
}

impl InitFrom {
    /// The path of the weights, for the facts of a run; `None` for random initialization.
    pub fn description(&self) -> Option<String> {
        match self {
            InitFrom::Scratch => None,
            InitFrom::Weights { path, .. } => Some(path.display().to_string()),
        }
    }
}

/// Weights and what is known about them.
pub struct LoadedWeights {
    /// The tensors.
    pub file: WeightsFile,
    /// Recipe and facts of the run that trained them, if the file has them.
    pub resolved: Option<(AnyRecipe, RunInfo)>,
    /// Errors of newer, damaged checkpoints of the run.
    pub damaged: Vec<Error>,
    /// What was taken over from the file of another program.
    pub import: Option<Import>,
    /// Why no recipe could be deduced for such a file.
    pub undecided: Option<Error>,
    /// How other programs bring images to the size of the network, if a file beside the weights says it.
    pub preparation: Option<Augmentation>,
}

impl LoadedWeights {
    /// Loads the weights of a run folder (its newest intact checkpoint), a checkpoint folder or a weights file. If a
    /// checkpoint has an EMA of the weights, that is loaded.
    ///
    /// # Errors
    /// If the path does not exist, is something else, or is damaged, or a value is not finite.
    pub fn at(from: &Path) -> Result<Self> {
        Self::with(from, &[])
    }

    /// [`LoadedWeights::at`]; `edits` such as `encoder.heads=12` say of other programs' weights what neither their
    /// shapes nor the files beside them say.
    ///
    /// # Errors
    /// If the path does not exist, is something else, or is damaged.
    pub fn with(from: &Path, edits: &[String]) -> Result<Self> {
        let missing = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        if !from.exists() {
            return Err(missing(
                format!("there is no `{}`", from.display()),
                "give a run folder, a checkpoint folder or a weights file",
            ));
        }
        if from.is_file() {
            return Self::of_file(from, edits);
        }
        if from.join(checkpoint::MODEL_FILE).is_file() {
            let path = checkpoint::weights_to_use(from);
            if checkpoint::is_checkpoint(from) {
                checkpoint::verify(from, &path)?;
            }
            return Self::of_file(&path, edits);
        }
        let of_others = [INDEX_FILE, TORCH_FILE, TORCH_INDEX_FILE].map(|name| from.join(name));
        if let Some(file) = of_others.iter().find(|file| file.is_file()) {
            return Self::of_file(file, edits);
        }
        read_any_resolved(from)?; // an error if this is not a run folder
        let mut damaged = Vec::new();
        for (_, folder) in checkpoint::list(from)?.into_iter().rev() {
            let path = checkpoint::weights_to_use(&folder);
            match checkpoint::verify(&folder, &path).and_then(|()| Self::of_file(&path, edits)) {
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

    fn of_file(path: &Path, edits: &[String]) -> Result<Self> {
        let file = if is_index(path) { read_sharded(path)? } else { WeightsFile::read(path)? };
        file.check_finite()?;
        let (damaged, none) = (Vec::new(), None);
        if let Some(text) = file.metadata().get(RECIPE_KEY) {
            let resolved = Some(any_resolved_of_toml(text, path)?);
            let preparation = file.metadata().get(PREPARATION_KEY).map(|text| of_metadata(text, path)).transpose()?;
            return Ok(Self { file, resolved, damaged, import: None, undecided: none, preparation });
        }
        let Imported { file, resolved, undecided, preparation, report } = import(file, edits)?;
        let import = Some(report).filter(|report| !report.convention.is_empty());
        Ok(Self { file, resolved, damaged, import, undecided, preparation })
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
