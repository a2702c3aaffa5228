//! A run folder: what was asked, what was run, what came of it.
//!
//! ```text
//! recipe.toml      as given, with the edits
//! resolved.toml    as run: every value, and version, device, precision, data
//! log.jsonl        one object per logged update
//! events.out.…     the same for TensorBoard
//! checkpoints/     step-N/
//! pictures/        predictions on the same images over time
//! report.html      all of it on one page
//! ```

use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::recipe::{AnyRecipe, FinetuneRecipe, Recipe, RecipeKind, TokenizerRecipe, command_of};
use crate::target::{Colours, Palette};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simmim_data::Normalisation;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

const RESOLVED_FILE: &str = "resolved.toml";
const LOG_FILE: &str = "log.jsonl";

/// Circumstances of a run that its recipe does not hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of this crate.
    pub version: String,
    /// `cpu`.
    pub device: String,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Why this precision.
    pub precision_reason: String,
    /// Worker threads; their number changes no result.
    pub threads: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Where the images come from.
    pub data: String,
    /// How many there are.
    pub images: usize,
    /// Where the held-out images come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<String>,
    /// Weights that it began with, if not drawn anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Names of the classes that it learns, by class number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Mean per channel that pixels are normalised with.
    pub mean: Vec<f32>,
    /// Deviation per channel that pixels are normalised with.
    pub std: Vec<f32>,
    /// Colours of the target's palette, `rrggbb`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub palette: Vec<String>,
}

impl RunInfo {
    /// The normalisation of the run's images.
    pub fn normalisation(&self) -> Normalisation {
        Normalisation { mean: self.mean.clone(), std: self.std.clone() }
    }

    /// What a target must know of the run's images.
    pub fn colours(&self) -> Colours {
        Colours { normalisation: self.normalisation(), palette: Palette::from_hex(&self.palette) }
    }
}

/// Recipe and circumstances of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved<R = Recipe> {
    /// Every value that changes results.
    pub recipe: R,
    /// The circumstances.
    pub run: RunInfo,
}

impl<R: RecipeKind> Resolved<R> {
    fn table(&self) -> toml::Table {
        let mut table = toml::Table::try_from(&self.recipe).expect("a recipe is TOML");
        table.insert("run".into(), toml::Value::try_from(&self.run).expect("a run's circumstances are TOML"));
        table
    }

    /// As TOML, for `resolved.toml` and for the metadata of weights files.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.table()).expect("a table is TOML")
    }

    /// Reads what [`Resolved::to_toml`] wrote; `path` is named in errors.
    ///
    /// # Errors
    /// If it is not such a text.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        let (table, run) = parts(text, path)?;
        let command = command_of(&table);
        if command != R::COMMAND {
            return Err(Error::Input {
                what: format!("`{}` is of `simmim {command}`, not of `simmim {}`", path.display(), R::COMMAND),
                hint: Some(format!("give what `simmim {} --out` wrote", R::COMMAND)),
            });
        }
        Ok(Self { recipe: recipe_of(table, path)?, run })
    }

    /// The first key whose value would change the run's results, as `key: this, not that`.
    fn difference(&self, other: &Self) -> Option<String> {
        // when and where things are written does not change them
        const FREE: &[&str] = &[
            "data.max_skipped",
            "train.checkpoint_every_updates",
            "train.keep_checkpoints",
            "train.log_every_updates",
            "train.validate_every_updates",
            "run.version",
            "run.precision_reason",
            "run.threads",
            "run.data",
            "run.val",
            "run.from",
        ];
        let (here, there) = (flat(&self.table()), flat(&other.table()));
        let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let differs = |key: &&String| here.get(*key) != there.get(*key) && !FREE.contains(&key.as_str());
        let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".into());
        keys.into_iter()
            .find(differs)
            .map(|key| format!("`{key}` is {} there and {} now", show(here.get(key)), show(there.get(key))))
    }
}

/// The recipe, as a table, and the circumstances in what [`Resolved::to_toml`] wrote.
fn parts(text: &str, path: &Path) -> Result<(toml::Table, RunInfo)> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let mut table: toml::Table = toml::from_str(text).map_err(|e| damaged(e.to_string()))?;
    let run = table.remove("run").ok_or_else(|| damaged("has no [run] section".into()))?;
    let run = run.try_into().map_err(|e: toml::de::Error| damaged(e.message().to_owned()))?;
    Ok((table, run))
}

fn recipe_of<R: RecipeKind>(table: toml::Table, path: &Path) -> Result<R> {
    table
        .try_into()
        .map_err(|e: toml::de::Error| Error::Damaged { path: path.to_owned(), reason: e.message().to_owned() })
}

/// What [`Resolved::to_toml`] wrote, of whatever kind its recipe is.
///
/// # Errors
/// If it is not such a text; `path` is named.
pub(crate) fn known_of_toml(text: &str, path: &Path) -> Result<(AnyRecipe, RunInfo)> {
    let (table, run) = parts(text, path)?;
    let recipe = match command_of(&table) {
        FinetuneRecipe::COMMAND => AnyRecipe::Finetune(recipe_of(table, path)?),
        TokenizerRecipe::COMMAND => AnyRecipe::Tokenizer(recipe_of(table, path)?),
        _ => AnyRecipe::Pretrain(recipe_of(table, path)?),
    };
    Ok((recipe, run))
}

/// Recipe and circumstances of the run in a folder, of whatever kind it is.
///
/// # Errors
/// If the folder holds no run or its file is damaged.
pub fn read_known(path: &Path) -> Result<(AnyRecipe, RunInfo)> {
    known_of_toml(&resolved_text(path)?, &path.join(RESOLVED_FILE))
}

/// Dotted keys and printed values of a nested table.
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

/// An open run folder; nobody else writes to it meanwhile.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    log: File,
    _lock: File,
}

impl RunFolder {
    /// Creates a run folder, or opens one whose run this is.
    ///
    /// # Errors
    /// If the folder holds something else, another run, or is in use.
    pub fn open<R: RecipeKind>(path: &Path, given: &str, resolved: &Resolved<R>) -> Result<Self> {
        let input = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        if path.exists() && !path.is_dir() {
            return Err(input(format!("`{}` is a file", path.display()), "give --out a folder"));
        }
        let is_run = path.join(RESOLVED_FILE).is_file();
        if !is_run
            && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
            && !path.join(".lock").exists()
        {
            return Err(input(
                format!("`{}` is not empty and not a run", path.display()),
                "choose a new folder for --out",
            ));
        }
        fs::create_dir_all(path.join("pictures")).map_err(Error::io(path))?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(input(
                    format!("`{}` is in use by another process", path.display()),
                    "wait for it, or choose another --out",
                ));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&lock_path)(e)),
        }
        if is_run {
            let there = read_resolved(path)?;
            if let Some(difference) = there.difference(resolved) {
                return Err(Error::OtherRun { path: path.to_owned(), difference });
            }
        } else {
            write_atomically(&path.join("recipe.toml"), given.as_bytes())?;
            write_atomically(&path.join(RESOLVED_FILE), resolved.to_toml().as_bytes())?;
        }
        let log_path = path.join(LOG_FILE);
        let log = File::options().create(true).append(true).open(&log_path).map_err(Error::io(&log_path))?;
        Ok(Self { path: path.to_owned(), log, _lock: lock })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Drops log entries behind update `updates`: they belong to work that is done again. At the very start that is
    /// all of them, because what is logged there (the untrained model's held-out loss) is done again too.
    ///
    /// # Errors
    /// If the log cannot be read or rewritten.
    pub fn rewind_log(&mut self, updates: u64) -> Result<()> {
        let path = self.path.join(LOG_FILE);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let is_kept = |line: &&str| {
            let entry: Option<Map<String, Value>> = serde_json::from_str(line).ok();
            entry.and_then(|e| e.get("update")?.as_u64()).is_some_and(|update| updates > 0 && update <= updates)
        };
        let kept: String = text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
        write_atomically(&path, kept.as_bytes())?;
        self.log = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(())
    }

    /// Appends one object to the log.
    ///
    /// # Errors
    /// If writing fails.
    pub fn log(&mut self, entry: &Value) -> Result<()> {
        let path = self.path.join(LOG_FILE);
        writeln!(self.log, "{entry}").map_err(Error::io(&path))
    }
}

/// Recipe and circumstances of the run in a folder.
///
/// # Errors
/// If the folder holds no run, one of another command, or its file is damaged.
pub fn read_resolved<R: RecipeKind>(path: &Path) -> Result<Resolved<R>> {
    Resolved::from_toml(&resolved_text(path)?, &path.join(RESOLVED_FILE))
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

/// Log entries of the run in a folder.
///
/// # Errors
/// If the log cannot be read.
pub fn read_log(path: &Path) -> Result<Vec<Map<String, Value>>> {
    Ok(crate::report::read_log(&path.join(LOG_FILE))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve;
    use serde_json::json;

    fn resolved(edits: &[&str]) -> Resolved {
        let edits: Vec<String> = edits.iter().map(|e| (*e).to_owned()).collect();
        let run = RunInfo {
            version: "1".into(),
            device: "cpu".into(),
            precision: "f32".into(),
            precision_reason: String::new(),
            threads: 2,
            seed: 0,
            data: "d".into(),
            images: 10,
            val: None,
            from: None,
            classes: Vec::new(),
            mean: vec![0.5],
            std: vec![0.25],
            palette: Vec::new(),
        };
        Resolved { recipe: resolve("demo", &edits).unwrap(), run }
    }

    #[test]
    fn a_resolved_run_survives_its_file() {
        let resolved = resolved(&[
            "train.max_updates=5",
            "train.schedule=step",
            "train.decay_every_epochs=1.0",
            "train.decay_factor=0.5",
        ]);
        assert_eq!(Resolved::<Recipe>::from_toml(&resolved.to_toml(), Path::new("x")).unwrap(), resolved);
    }

    #[test]
    fn a_run_is_taken_up_with_its_own_recipe_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        drop(RunFolder::open(&path, "", &resolved(&[])).unwrap());
        drop(RunFolder::open(&path, "", &resolved(&["train.log_every_updates=3"])).unwrap());
        let error = RunFolder::open(&path, "", &resolved(&["train.base_lr=1.0"])).unwrap_err();
        assert!(error.to_string().contains("train.base_lr"), "{error}");
    }

    #[test]
    fn a_run_in_use_and_a_foreign_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let _open = RunFolder::open(&path, "", &resolved(&[])).unwrap();
        assert!(RunFolder::open(&path, "", &resolved(&[])).unwrap_err().to_string().contains("in use"));
        let foreign = folder.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.tex"), "x").unwrap();
        assert!(RunFolder::open(&foreign, "", &resolved(&[])).unwrap_err().to_string().contains("not a run"));
        assert!(foreign.join("thesis.tex").exists());
    }

    #[test]
    fn rewinding_drops_later_entries_and_half_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut run = RunFolder::open(&path, "", &resolved(&[])).unwrap();
        for update in 1..=4 {
            run.log(&json!({ "update": update })).unwrap();
        }
        write!(run.log, "{{\"upd").unwrap();
        run.rewind_log(2).unwrap();
        run.log(&json!({ "update": 3, "again": true })).unwrap();
        let updates: Vec<_> = read_log(&path).unwrap().iter().map(|e| e["update"].as_u64().unwrap()).collect();
        assert_eq!(updates, [1, 2, 3]);

        run.log(&json!({ "update": 0 })).unwrap();
        run.rewind_log(0).unwrap();
        assert!(read_log(&path).unwrap().is_empty(), "a run without a checkpoint begins again");
    }
}
