//! `resolved.toml`: a run's recipe with every value, and the facts about the run that are not in its recipe.

use crate::error::{Error, Result};
use crate::ranges::wrong;
use crate::recipe::{
    AnyRecipe, FinetuneRecipe, KINDS, Recipe, RecipeKind, TokenizerRecipe, kind_of, to_table, typed_and_checked,
};
use crate::targets::{Colors, Palette};
use crate::version::{THIS, unfit};
use crate::weights::{ChannelRule, per_channel};
use serde::{Deserialize, Serialize};
use simmim_data::Normalization;
use std::fs;
use std::path::Path;

/// Its file name in a run folder.
pub(super) const RESOLVED_FILE: &str = "resolved.toml";

/// Facts about a run that are not in its recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of this crate.
    pub version: String,
    /// Device, for example `cpu`.
    pub device: String,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Why this precision was chosen; empty in the metadata of weights.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub precision_reason: String,
    /// Number of compute threads; it changes no result.
    pub threads: usize,
    /// Seed of initialization, order, augmentation and masks.
    #[serde(with = "seed")]
    pub seed: u64,
    /// Where the images come from.
    pub data: String,
    /// Number of training images.
    pub images: usize,
    /// A checksum of some of the training images; absent if an earlier version began the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sample: Option<String>,
    /// Where the held-out images come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<String>,
    /// A checksum of some of the held-out images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_sample: Option<String>,
    /// Weights that the run started from; absent: initialized at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Class names of a classifier, in the order of class numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Mean per channel that pixels are normalized with.
    #[serde(serialize_with = "crate::decimals::list")]
    pub mean: Vec<f32>,
    /// Standard deviation per channel that pixels are normalized with.
    #[serde(serialize_with = "crate::decimals::list")]
    pub std: Vec<f32>,
    /// Colors of the target's palette, as `rrggbb`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub palette: Vec<String>,
    /// Length and checksum of the tokenizer of the target's tokens: another tokenizer gives other targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

impl RunInfo {
    /// The normalization of the run's images.
    pub fn normalization(&self) -> Normalization {
        Normalization { mean: self.mean.clone(), std: self.std.clone() }
    }

    /// The same for images of another number of channels, which the patch embedding is adapted to by `rule`.
    pub(crate) fn normalization_for(&self, channels: usize, rule: ChannelRule) -> Normalization {
        match self.mean.len() == channels {
            true => self.normalization(),
            false => Normalization {
                mean: per_channel(&self.mean, channels, rule, 0.0),
                std: per_channel(&self.std, channels, rule, 1.0),
            },
        }
    }

    /// Checks the numbers that images are normalized with, and the palette of a target of `palette_colors` colors.
    ///
    /// # Errors
    /// Names the first key that does not fit.
    fn check(&self, channels: usize, palette_colors: Option<usize>) -> Result<()> {
        let is_mean = |value: &f32| value.is_finite();
        let is_std = |value: &f32| value.is_finite() && *value > 0.0;
        let expected = |what: &str| format!("expected {what} for each of {channels} channels");
        let edited = || Some("these numbers are measured when a run begins; take its files as they were".to_owned());
        if self.mean.len() != channels || !self.mean.iter().all(is_mean) {
            return Err(wrong("run.mean", format!("{:?}", self.mean), expected("a finite number"), edited()));
        }
        if self.std.len() != channels || !self.std.iter().all(is_std) {
            return Err(wrong("run.std", format!("{:?}", self.std), expected("a finite number above 0"), edited()));
        }
        let is_color = |color: &String| color.len() == 2 * channels;
        let has_colors = |colors: usize| {
            let is_whole = self.palette.len() == colors && self.palette.iter().all(is_color);
            is_whole && Palette::from_hex(&self.palette).is_some()
        };
        if let Some(colors) = palette_colors.filter(|colors| !has_colors(*colors)) {
            let expected = format!("expected {colors} colors of {channels} channels, two hexadecimal digits each");
            return Err(wrong("run.palette", format!("{:?}", self.palette), expected, edited()));
        }
        Ok(())
    }

    /// Normalization and palette of the run, for its target.
    pub fn colors(&self) -> Colors {
        Colors { normalization: self.normalization(), palette: Palette::from_hex(&self.palette) }
    }
}

/// A seed in TOML, whose integers end at 2⁶³ − 1: a larger one is written as a string.
mod seed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "expected a seed from 0 to 18446744073709551615")]
    enum Written {
        Integer(i64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let written = i64::try_from(*seed).map_or_else(|_| Written::Text(seed.to_string()), Written::Integer);
        written.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let wrong = || serde::de::Error::custom("expected a seed from 0 to 18446744073709551615");
        match Written::deserialize(deserializer)? {
            Written::Integer(seed) => u64::try_from(seed).map_err(|_| wrong()),
            Written::Text(seed) => seed.parse().map_err(|_| wrong()),
        }
    }
}

/// Recipe and facts of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved<R = Recipe> {
    /// Every value that changes results.
    pub recipe: R,
    /// Facts that are not in the recipe.
    pub run: RunInfo,
}

impl<R: RecipeKind> Resolved<R> {
    fn table(&self) -> toml::Table {
        let mut table = to_table(&self.recipe);
        table.insert("run".into(), toml::Value::try_from(&self.run).expect("the facts of a run are TOML"));
        table
    }

    /// The run as TOML, for `resolved.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.table()).expect("a table is TOML")
    }

    /// The run as TOML for the metadata of weights files: without the reason for the precision, which names a machine's
    /// instructions, so that equal runs write equal files.
    pub(crate) fn to_weights_metadata(&self) -> String {
        let mut run = self.run.clone();
        run.precision_reason.clear();
        let mut table = self.table();
        table.insert("run".into(), toml::Value::try_from(&run).expect("the facts of a run are TOML"));
        toml::to_string(&table).expect("a table is TOML")
    }

    /// Parses the output of [`Resolved::to_toml`]; errors name `path`.
    ///
    /// # Errors
    /// If the text is not such a table, or its recipe is of another kind.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        let (kind, table, run) = parts(text, path)?;
        if kind != R::KIND {
            return Err(Error::Input {
                what: format!("`{}` is of `simmim {kind}`, not of `simmim {}`", path.display(), R::KIND),
                hint: Some(format!("give the output of `simmim {} --out`", R::KIND)),
            });
        }
        Ok(Self { recipe: recipe_of(table, &run, path)?, run })
    }

    /// A message about the first key that has another value and changes results.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        // these keys do not change the results of a run
        const FREE: &[&str] = &[
            "data.max_skipped",
            "monitor.train",
            "monitor.val",
            "monitor.every_steps",
            "monitor.max_images",
            "train.checkpoint_every_steps",
            "train.keep_checkpoints",
            "train.log_every_steps",
            "train.shard",
            "train.validate_every_steps",
            "run.version",
            "run.device",
            "run.precision_reason",
            "run.threads",
            "run.data",
            "run.data_sample",
            "run.val",
            "run.val_sample",
            "run.from",
        ];
        const FILES: &[&str] = &["target.palette", "target.tokenizer"];
        let (here, there) = (flat(&self.table()), flat(&other.table()));
        let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        // the content of these files is a fact of the run, wherever they are
        let is_named_twice = |key: &str| FILES.contains(&key) && here.contains_key(key) && there.contains_key(key);
        let differs =
            |key: &&String| here.get(*key) != there.get(*key) && !FREE.contains(&key.as_str()) && !is_named_twice(key);
        let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".into());
        keys.into_iter()
            .find(differs)
            .map(|key| format!("`{key}` is {} in that run and {} now", show(here.get(key)), show(there.get(key))))
    }
}

/// Splits the output of [`Resolved::to_toml`] into the kind of the recipe, the table of the recipe, and the facts of
/// the run.
fn parts(text: &str, path: &Path) -> Result<(String, toml::Table, RunInfo)> {
    let parsed: std::result::Result<toml::Table, _> = toml::from_str(text);
    let mut table = parsed.map_err(|e| Error::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    let version = table.get("run").and_then(|run| Some(run.get("version")?.as_str()?.to_owned()));
    let unfit = |reason: String| unfit(path, version.as_deref(), reason);
    let run = table.remove("run").ok_or_else(|| unfit("has no [run] section".into()))?;
    let run = run.try_into().map_err(|e: toml::de::Error| unfit(e.message().trim().to_owned()))?;
    let kind = kind_of(&mut table).map_err(|(reason, _)| unfit(reason))?;
    if !KINDS.contains(&kind.as_str()) {
        return Err(unfit(format!("has the unknown kind `{kind}`")));
    }
    Ok((kind, table, run))
}

/// Parses and checks a recipe like one of a file, since anyone may have edited it.
fn recipe_of<R: RecipeKind>(table: toml::Table, run: &RunInfo, path: &Path) -> Result<R> {
    let name = path.display().to_string();
    typed_and_checked(&name, table).map_err(|error| {
        let is_edited = run.version == THIS;
        let hint = match is_edited {
            true => "it was edited, or a later version of simmim wrote it; take it as it was".to_owned(),
            false => format!("simmim {} wrote it, and this is {THIS}: nothing is damaged", run.version),
        };
        match error {
            Error::RecipeFile { reason, .. } if !is_edited => unfit(path, Some(&run.version), reason),
            Error::RecipeFile { name, reason, .. } => Error::RecipeFile { name, reason, hint: Some(hint) },
            Error::Recipe { key, value, expected, .. } => {
                Error::Recipe { key, value, expected: format!("{expected} (in `{name}`)"), hint: Some(hint) }
            }
            error => error,
        }
    })
}

/// Parses the output of [`Resolved::to_toml`] with a recipe of any kind.
///
/// # Errors
/// If the text is not such a table; errors name `path`.
pub(crate) fn any_resolved_of_toml(text: &str, path: &Path) -> Result<(AnyRecipe, RunInfo)> {
    let (kind, table, run) = parts(text, path)?;
    let recipe = match kind.as_str() {
        Recipe::KIND => AnyRecipe::Pretrain(recipe_of(table, &run, path)?),
        FinetuneRecipe::KIND => AnyRecipe::Finetune(recipe_of(table, &run, path)?),
        TokenizerRecipe::KIND => AnyRecipe::Tokenizer(recipe_of(table, &run, path)?),
        other => unreachable!("`{other}` is refused before"),
    };
    let palette_colors = match &recipe {
        AnyRecipe::Pretrain(recipe) => recipe.palette_colors(),
        AnyRecipe::Finetune(_) | AnyRecipe::Tokenizer(_) => None,
    };
    run.check(recipe.data().channels, palette_colors)?;
    Ok((recipe, run))
}

/// Reads the recipe, of any kind, and the facts of the run in a folder.
///
/// # Errors
/// If the folder holds no run or its file is damaged.
pub fn read_any_resolved(path: &Path) -> Result<(AnyRecipe, RunInfo)> {
    any_resolved_of_toml(&resolved_text(path)?, &path.join(RESOLVED_FILE))
}

/// A nested table as a flat map from dotted keys to printed values.
fn flat(table: &toml::Table) -> std::collections::BTreeMap<String, String> {
    let mut out = std::collections::BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => out.extend(flat(inner).into_iter().map(|(k, v)| (format!("{key}.{k}"), v))),
            value => {
                out.insert(key.clone(), value.to_string());
            }
        }
    }
    out
}

/// Reads the recipe and the facts of the run in a folder.
///
/// # Errors
/// If the folder holds no run or a run of another command, or its file is damaged.
pub fn read_resolved<R: RecipeKind>(path: &Path) -> Result<Resolved<R>> {
    let resolved = Resolved::<R>::from_toml(&resolved_text(path)?, &path.join(RESOLVED_FILE))?;
    resolved.run.check(resolved.recipe.data().channels, resolved.recipe.palette_colors())?;
    Ok(resolved)
}

fn resolved_text(path: &Path) -> Result<String> {
    let file = path.join(RESOLVED_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("`{}` is not a run folder: it has no `{RESOLVED_FILE}`", path.display());
            Err(Error::Input { what, hint: Some("give the folder that `simmim pretrain --out` wrote".into()) })
        }
        Err(e) => Err(Error::io(&file)(e)),
    }
}
