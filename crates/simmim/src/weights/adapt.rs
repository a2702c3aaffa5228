//! Weights as a file of ours: other programs' translated, and all brought to another image size or number of channels.

use super::preparation::{PREPARATION_KEY, to_metadata};
use super::{
    Builder, ChannelRule, Import, Init, LoadedWeights, Pretrained, RECIPE_KEY, Transfer, initial_values,
    save_atomically, transfer,
};
use crate::encoders::{Encoder, Role, plain_name};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{AnyRecipe, edit_any};
use crate::run::{Resolved, RunInfo};
use crate::tokenizer::{ImportedEncoder, import_encoder, is_encoder};
use std::path::Path;

/// What was written.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// What was taken over from the file of another program; `None` if it was ours.
    pub import: Option<Import>,
    /// What happened to each tensor then.
    pub transfer: Transfer,
    /// The recipe that the file carries; a tokenizer's has none.
    pub recipe: Option<AnyRecipe>,
    /// Number of values.
    pub parameters: usize,
}

/// Writes weights to `out`, as a file that needs no recipe beside it. Edits say what the file does not say, and change
/// its image size or channels.
///
/// # Errors
/// If the weights cannot be read or do not say what they are, an edit does not fit, or `out` cannot be written.
pub fn adapt(from: &Path, edits: &[String], channels: Option<ChannelRule>, out: &Path) -> Result<Adapted> {
    let mut weights = LoadedWeights::with(from, edits)?;
    if let Some(undecided) = weights.undecided.take() {
        return Err(undecided);
    }
    if weights.resolved.is_none() && is_encoder(&weights.file) {
        if !edits.is_empty() || channels.is_some() {
            return Err(Error::Input {
                what: format!("`{}` is a tokenizer, of which nothing can be changed", weights.file.path().display()),
                hint: Some("leave out --set and --channels".into()),
            });
        }
        let ImportedEncoder { mut import, parameters } = import_encoder(&weights.file, out)?;
        import.notes.splice(0..0, weights.file.notes().iter().cloned());
        let transfer = Transfer { loaded: import.tensors, ..Transfer::default() };
        return Ok(Adapted { import: Some(import), transfer, recipe: None, parameters });
    }
    let Some((recipe, mut run)) = weights.resolved.clone() else {
        return Err(Error::Input {
            what: format!("`{}` is of no convention that this program knows", weights.file.path().display()),
            hint: Some("`simmim inspect FILE` shows what is in it; docs/WEIGHTS.md lists what can be imported".into()),
        });
    };
    let recipe = edit_any(&weights.file.path().display().to_string(), recipe, edits)?;
    let (role, Some(architecture)) = (role(&recipe)?, recipe.encoder()) else { return Err(no_encoder()) };
    let data = recipe.data();
    let mut builder = Builder::default();
    let encoder = Encoder::new(architecture, role, data.image_size.height_and_width(), data.channels, &mut builder)?;
    let has_same_channels = run.mean.len() == data.channels;
    let is_beside = |name: &str| {
        let plain = plain_name(name);
        // a head that predicts pixels is of the channels of its images
        plain == "mask_token" || plain.starts_with("head.") || plain.starts_with("decoder.") && has_same_channels
    };
    for (name, shape) in weights.file.shapes().into_iter().filter(|(name, _)| is_beside(name)) {
        builder.add(&name, &shape, Init::Constant(0.0));
    }
    let (table, inits) = builder.finish();
    memory::check(|| format!("a model of {} parameters", table.len()), memory::of_values(table.len()))?;
    let mut values = initial_values(&table, &inits, 0);
    let preparation = weights.preparation.and_then(to_metadata);
    let import = weights.import.take();
    let mut pretrained = Pretrained::new(weights, architecture, &run.classes)?;
    pretrained.channels = channels;
    let transfer = transfer(&pretrained, &encoder, &table, &mut values)?;
    if let Some(rule) = channels {
        let normalization = run.normalization_for(data.channels, rule);
        (run.mean, run.std) = (normalization.mean, normalization.std);
    }
    let kept = preparation.map(|says| (PREPARATION_KEY.to_owned(), says));
    let metadata = [(RECIPE_KEY.to_owned(), metadata(&recipe, run)?)].into_iter().chain(kept).collect();
    save_atomically(out, &table, &values, metadata)?;
    Ok(Adapted { import, transfer, parameters: table.len(), recipe: Some(recipe) })
}

/// The role of the encoder of a recipe.
fn role(recipe: &AnyRecipe) -> Result<Role> {
    match recipe {
        AnyRecipe::Pretrain(_) => Ok(Role::Pretrain),
        AnyRecipe::Finetune(_) => Ok(Role::Classify),
        AnyRecipe::Tokenizer(_) => Err(no_encoder()),
    }
}

/// A recipe and the facts of a run as the metadata of a weights file.
pub(super) fn metadata(recipe: &AnyRecipe, run: RunInfo) -> Result<String> {
    match recipe.clone() {
        AnyRecipe::Pretrain(recipe) => Ok(Resolved { recipe, run }.to_weights_metadata()),
        AnyRecipe::Finetune(recipe) => Ok(Resolved { recipe, run }.to_weights_metadata()),
        AnyRecipe::Tokenizer(_) => Err(no_encoder()),
    }
}

fn no_encoder() -> Error {
    Error::Input {
        what: "a tokenizer has no encoder to import".into(),
        hint: Some("give the weights of a vision transformer".into()),
    }
}
