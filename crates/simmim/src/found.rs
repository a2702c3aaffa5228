//! Weights behind a path: of a run folder, a checkpoint folder or a file, with the recipe they belong to.

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::recipe::AnyRecipe;
use crate::run::{RunInfo, known_of_toml, read_known};
use crate::weights::{RECIPE_KEY, WeightsFile};
use std::path::Path;

/// Weights, and what is known of them.
pub struct Found {
    /// The tensors.
    pub file: WeightsFile,
    /// Recipe and circumstances of their run, if the file says.
    pub known: Option<(AnyRecipe, RunInfo)>,
    /// What was wrong with newer checkpoints of the run.
    pub damaged: Vec<Error>,
}

impl Found {
    /// The weights of a run folder (its newest sound checkpoint), a checkpoint folder or a weights file. Where a
    /// checkpoint has a running mean of the weights, it is that.
    ///
    /// # Errors
    /// If there is no such thing, or it is damaged.
    pub fn at(from: &Path) -> Result<Self> {
        let missing = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        if !from.exists() {
            return Err(missing(
                format!("there is no `{}`", from.display()),
                "give a run folder, a checkpoint folder or a weights file",
            ));
        }
        if from.is_file() {
            return Self::of_file(from, Vec::new());
        }
        if from.join(checkpoint::MODEL_FILE).is_file() {
            return Self::of_file(&checkpoint::weights_to_use(from), Vec::new());
        }
        read_known(from)?; // says so if this is no run folder
        let mut damaged = Vec::new();
        for (_, folder) in checkpoint::list(from)?.into_iter().rev() {
            let path = checkpoint::weights_to_use(&folder);
            match checkpoint::verify(&folder, &path).and_then(|()| Self::of_file(&path, Vec::new())) {
                Ok(found) => return Ok(Self { damaged, ..found }),
                Err(error) => damaged.push(error),
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

    fn of_file(path: &Path, damaged: Vec<Error>) -> Result<Self> {
        let file = WeightsFile::read(path)?;
        let known = match file.metadata()?.get(RECIPE_KEY) {
            Some(text) => Some(known_of_toml(text, path)?),
            None => None,
        };
        Ok(Self { file, known, damaged })
    }
}
