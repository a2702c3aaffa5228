//! Loads a recipe by name or path, applies edits, and checks it.

use super::{AnyRecipe, BUILT_IN, FinetuneRecipe, Recipe, RecipeKind, TokenizerRecipe, to_table};
use crate::encoders::EncoderConfig;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use simmim_data::is_address;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The pre-training recipe called `name` (built in, or a TOML file) with `key.path=value` edits applied.
///
/// # Errors
/// If there is no such recipe, a key is unknown, missing or of the wrong type, or values do not fit together.
pub fn resolve(name: &str, edits: &[String]) -> Result<Recipe> {
    resolve_as(name, edits)
}

/// The recipe of the kind `R` called `name`; see [`resolve`].
///
/// # Errors
/// Those of [`resolve`], or if the recipe is of another kind.
pub fn resolve_as<R: RecipeKind>(name: &str, edits: &[String]) -> Result<R> {
    Given::read(name)?.resolve_as(edits)
}

/// The recipe called `name`, of any kind; see [`resolve`].
///
/// # Errors
/// Those of [`resolve`].
pub fn resolve_any(name: &str, edits: &[String]) -> Result<AnyRecipe> {
    let (kind, table) = kind_and_table(name, edited(&Given::read(name)?, edits)?)?;
    Ok(match kind.as_str() {
        Recipe::KIND => AnyRecipe::Pretrain(checked(name, &kind, table)?),
        FinetuneRecipe::KIND => AnyRecipe::Finetune(checked(name, &kind, table)?),
        TokenizerRecipe::KIND => AnyRecipe::Tokenizer(checked(name, &kind, table)?),
        other => {
            let reason = format!("`kind` is `{other}`, expected one of {}", KINDS.join(", "));
            let hint = nearest(other, KINDS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            return Err(Error::RecipeFile { name: name.into(), reason, hint });
        }
    })
}

/// A recipe that weights carry, with `key.path=value` edits applied; `name` is what errors call it. Files that it names
/// need not exist.
///
/// # Errors
/// If a key is unknown or of the wrong type, or values do not fit together.
pub fn edit<R: RecipeKind>(name: &str, recipe: R, edits: &[String]) -> Result<R> {
    if edits.is_empty() {
        return Ok(recipe);
    }
    let mut table = to_table(&recipe);
    table.remove("kind");
    edits.iter().try_for_each(|edit| apply(&mut table, edit))?;
    typed_and_checked(name, table)
}

/// [`edit`] of a recipe of any kind.
///
/// # Errors
/// Those of [`edit`].
pub fn edit_any(name: &str, recipe: AnyRecipe, edits: &[String]) -> Result<AnyRecipe> {
    Ok(match recipe {
        AnyRecipe::Pretrain(recipe) => AnyRecipe::Pretrain(edit(name, recipe, edits)?),
        AnyRecipe::Finetune(recipe) => AnyRecipe::Finetune(edit(name, recipe, edits)?),
        AnyRecipe::Tokenizer(recipe) => AnyRecipe::Tokenizer(edit(name, recipe, edits)?),
    })
}

/// The kinds of recipes, each named after its command.
pub(crate) const KINDS: [&str; 3] = [Recipe::KIND, FinetuneRecipe::KIND, TokenizerRecipe::KIND];

/// Removes `kind` from a recipe's table and returns it.
///
/// # Errors
/// If `kind` is missing or not a string: the reason and a hint.
pub(crate) fn kind_of(table: &mut Table) -> std::result::Result<String, (String, String)> {
    let choices = || KINDS.map(|kind| format!("\"{kind}\"")).join(", ");
    match table.remove("kind") {
        Some(Value::String(kind)) => Ok(kind),
        Some(other) => Err((format!("`kind` is `{other}`"), format!("write one of {}", choices()))),
        None => Err(("has no `kind`".into(), format!("add `kind = …` as its first line, one of {}", choices()))),
    }
}

fn kind_and_table(name: &str, mut table: Table) -> Result<(String, Table)> {
    let kind = kind_of(&mut table).map_err(|(reason, hint)| Error::RecipeFile {
        name: name.into(),
        reason,
        hint: Some(hint),
    })?;
    Ok((kind, table))
}

fn edited(given: &Given, edits: &[String]) -> Result<Table> {
    let mut table = given.table(0)?;
    for edit in edits {
        apply(&mut table, edit)?;
    }
    Ok(table)
}

fn checked<R: RecipeKind>(name: &str, kind: &str, table: Table) -> Result<R> {
    if kind != R::KIND {
        return Err(Error::RecipeFile {
            name: name.into(),
            reason: format!("is a recipe of `simmim {kind}`, not of `simmim {}`", R::KIND),
            hint: Some(format!("this command takes recipes of `kind = \"{}\"`; `simmim recipes` lists all", R::KIND)),
        });
    }
    typed_and_checked(name, table)
}

/// The recipe of a table without `kind`, with every value checked; files that it names need not exist, because only a run
/// that begins reads them. `name` is what errors call it.
///
/// # Errors
/// If a key is unknown, missing or of the wrong type, or values do not fit together.
pub(crate) fn typed_and_checked<R: RecipeKind>(name: &str, table: Table) -> Result<R> {
    let recipe: R = typed(name, table)?;
    recipe.check()?;
    Ok(recipe)
}

/// Keys whose values are paths, or lists of them, relative to the file that says so.
pub const PATH_KEYS: [&str; 4] = ["target.palette", "target.tokenizer", "monitor.train", "monitor.val"];

/// The parts of a list of data sets: it is split at commas outside braces.
pub fn split_list(list: &str) -> Vec<&str> {
    let mut depth = 0i32;
    list.split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    })
    .collect()
}

/// A recipe as it was given: built in, or a file, which is read once, so that it may be a pipe.
pub struct Given {
    name: String,
    text: String,
    /// Where the paths in it start: the folder of the file, or else the current one.
    folder: Option<PathBuf>,
}

/// Most bytes of a recipe. A longer file is taken to be something else.
const MAX_BYTES: u64 = 1 << 20;

impl Given {
    /// Reads the recipe called `name`, a built-in recipe or a TOML file.
    ///
    /// # Errors
    /// If there is no such recipe, or it cannot be read.
    pub fn read(name: &str) -> Result<Self> {
        Self::beside(name, None)
    }

    /// The text of the recipe.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The recipe with `key.path=value` edits applied; see [`resolve`].
    ///
    /// # Errors
    /// Those of [`resolve`], or if the recipe is of another kind.
    pub fn resolve_as<R: RecipeKind>(&self, edits: &[String]) -> Result<R> {
        let (kind, table) = kind_and_table(&self.name, edited(self, edits)?)?;
        checked(&self.name, &kind, table)
    }

    /// Reads a recipe; its path is relative to `folder`.
    fn beside(name: &str, folder: Option<&Path>) -> Result<Self> {
        if let Some(built_in) = BUILT_IN.iter().find(|r| r.name == name) {
            return Ok(Self { name: name.into(), text: built_in.text.into(), folder: None });
        }
        let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        if !path.exists() || path.is_dir() {
            let hint = match nearest_built_in(name) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let names: Vec<_> = BUILT_IN.iter().map(|r| r.name).collect();
                    format!("built-in recipes are {}", names.join(", "))
                }
            };
            let reason = "is neither a built-in recipe nor a file".into();
            return Err(Error::RecipeFile { name: name.into(), reason, hint: Some(hint) });
        }
        let folder = if path.is_file() { path.parent().map(Path::to_owned) } else { None };
        Ok(Self { name: name.into(), text: read_text(&path)?, folder })
    }

    /// The table of the recipe and of those that it extends.
    fn table(&self, depth: usize) -> Result<Table> {
        let error = |reason: String, hint: Option<String>| Error::RecipeFile { name: self.name.clone(), reason, hint };
        let mut table: Table = toml::from_str(&self.text).map_err(|e| error(toml_error(&self.text, &e), None))?;
        for key in PATH_KEYS {
            let (section, last) = key.split_once('.').expect("a key is in a section");
            let value = table.get_mut(section).and_then(|section| section.get_mut(last));
            let Some(Value::String(named)) = value else { continue };
            if split_list(named).iter().any(|path| Path::new(path).starts_with("~")) {
                let hint = "write the path in full, or relative to this file".to_owned();
                return Err(error(format!("key `{key}`: `~` does not stand for a folder here"), Some(hint)));
            }
            if let Some(folder) = &self.folder {
                *named = relative_to(folder, named);
            }
        }
        match table.remove("extends") {
            None => Ok(table),
            Some(_) if depth == MAX_EXTENDS => Err(error("extends itself".into(), None)),
            Some(Value::String(base)) => {
                let mut merged = Self::beside(&base, self.folder.as_deref())?.table(depth + 1)?;
                merge(&mut merged, table);
                Ok(merged)
            }
            Some(other) => Err(error(format!("`extends` is `{other}`, expected the name of a recipe"), None)),
        }
    }
}

/// A path, or a list of data sets, that starts in `folder`. What exists under the whole name is one path.
fn relative_to(folder: &Path, named: &str) -> String {
    let whole = folder.join(named);
    if whole.exists() {
        return whole.display().to_string();
    }
    let paths = split_list(named).into_iter().map(|path| match is_address(path) {
        true => path.to_owned(),
        false => folder.join(path).display().to_string(),
    });
    paths.collect::<Vec<_>>().join(",")
}

/// The text of a recipe file.
///
/// # Errors
/// If it cannot be read, is not UTF-8, or is too long.
fn read_text(path: &Path) -> Result<String> {
    let error = |reason: String, hint: &str| Error::RecipeFile {
        name: path.display().to_string(),
        reason,
        hint: Some(hint.into()),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(error(format!("has more than {MAX_BYTES} bytes"), "give a recipe, which is a TOML file"));
    }
    String::from_utf8(bytes).map_err(|not_utf8| {
        error(format!("is not UTF-8 at byte {}", not_utf8.utf8_error().valid_up_to()), "save it as UTF-8 text")
    })
}

/// Says where a TOML error is, in one line.
fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    match error.span() {
        None => format!("is not valid TOML: {message}"),
        Some(span) => {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("is not valid TOML at line {line}, column {column}: {message}")
        }
    }
}

/// Longest chain of `extends`; a longer one is taken to be a cycle.
const MAX_EXTENDS: usize = 8;

/// Replaces values of `base` with those of `over`, recursively in tables.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Applies one `key.path=value` edit; a value that is not TOML is taken as a string.
fn apply(table: &mut Table, edit: &str) -> Result<()> {
    let malformed = || Error::Input {
        what: format!("`--set {edit}` is not of the form key.path=value"),
        hint: Some("for example --set train.batch_size=32".into()),
    };
    let (path, value) = edit.split_once('=').ok_or_else(malformed)?;
    let (path, value) = (path.trim(), value.trim());
    let value = toml::from_str::<Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or_else(malformed)?;
    let mut at = table;
    for key in keys {
        at = match at.entry(key).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => inner,
            _ => return Err(malformed()),
        };
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// The sections of a recipe's table, deserialized one by one so that an error can name the section.
pub struct Sections<'a> {
    name: &'a str,
    table: Table,
}

impl Sections<'_> {
    /// Deserializes one section, or returns `None` if the recipe does not have it.
    ///
    /// # Errors
    /// If a key is unknown, missing or of the wrong type; the error names it.
    pub fn optional<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.table.contains_key(key).then(|| self.get(key)).transpose()
    }

    /// Deserializes one section.
    ///
    /// # Errors
    /// If a key is unknown, missing or of the wrong type; the error names it.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.table.get(key).cloned().unwrap_or_else(|| Value::Table(Table::new()));
        value.try_into().map_err(|e: toml::de::Error| describe(self.name, key, &e))
    }
}

impl Sections<'_> {
    /// Deserializes `[encoder]`.
    ///
    /// # Errors
    /// Those of [`Sections::get`].
    pub(crate) fn encoder(&self) -> Result<EncoderConfig> {
        let table = self.table.get("encoder").and_then(Value::as_table).cloned().unwrap_or_default();
        EncoderConfig::from_table(table).map_err(|e| describe(self.name, "encoder", &e))
    }
}

fn typed<R: RecipeKind>(name: &str, table: Table) -> Result<R> {
    for (key, value) in &table {
        if !R::SECTIONS.contains(&key.as_str()) {
            let hint = nearest(key, R::SECTIONS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            return Err(Error::RecipeFile { name: name.into(), reason: format!("unknown section `{key}`"), hint });
        }
        if !value.is_table() {
            let reason = format!("`{key}` is `{value}`, expected a section [{key}]");
            return Err(Error::RecipeFile { name: name.into(), reason, hint: None });
        }
    }
    R::from_sections(&Sections { name, table })
}

/// Turns a deserializer's error into one that names the full key and suggests the nearest known one.
fn describe(name: &str, section: &str, error: &toml::de::Error) -> Error {
    let message = error.message();
    // only the long form has the key, on a line of its own: in `batch_size`
    let long = error.to_string();
    let key = match long.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`')) {
        Some(key) => format!("key `{section}.{key}`"),
        None => format!("section [{section}]"),
    };
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (reason, hint) = match words.split_first() {
        Some((unknown, known)) if message.starts_with("unknown field") => {
            let hint = match nearest(unknown, known.iter().copied()) {
                Some(near) => format!("did you mean `{section}.{near}`?"),
                None => format!("keys of [{section}] are {}", known.join(", ")),
            };
            (format!("unknown key `{section}.{unknown}`"), Some(hint))
        }
        Some((unknown, known)) if message.starts_with("unknown variant") => {
            let choices = format!("{key} is `{unknown}`, expected one of {}", known.join(", "));
            (choices, nearest(unknown, known.iter().copied()).map(|near| format!("did you mean `{near}`?")))
        }
        Some((missing, _)) if message.starts_with("missing field") => (
            format!("key `{section}.{missing}` is missing"),
            Some("add it, or start from a built-in recipe with `extends = \"pretrain-vit-cifar\"`".into()),
        ),
        _ => (format!("{key}: {}", message.trim()), None),
    };
    Error::RecipeFile { name: name.into(), reason, hint }
}

/// The built-in recipe whose name is most similar to `name`, if one is similar enough to be a likely typo.
pub fn nearest_built_in(name: &str) -> Option<&'static str> {
    nearest(name, BUILT_IN.iter().map(|r| r.name))
}

/// The known word most similar to `word` by Jaro–Winkler similarity, if that is above 0.8.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|k| (strsim::jaro_winkler(word, k), k));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8).map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::ImageSize;

    #[track_caller]
    fn check_fails(edit: &str, message: &str, hint: &str) {
        let error = resolve("pretrain-vit-cifar", &[edit.to_owned()]).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
        assert!(error.is_users_fault());
    }

    #[test]
    fn edits_replace_values() {
        let edits = ["train.batch_size=7", "data.image_size=[32, 64]", "mask.strategy=random", "encoder.heads = 6"];
        let recipe = resolve("pretrain-vit-cifar", &edits.map(str::to_owned)).unwrap();
        assert_eq!(recipe.train.batch_size, 7);
        assert_eq!(recipe.data.image_size, ImageSize::HeightWidth(32, 64));
        let EncoderConfig::Vit(vit) = recipe.encoder else { panic!("{:?}", recipe.encoder) };
        assert_eq!(vit.heads, 6);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_key_and_a_hint() {
        check_fails("train.bach_size=7", "unknown key `train.bach_size`", "did you mean `train.batch_size`?");
        check_fails("encoder.widht=7", "unknown key `encoder.widht`", "did you mean `encoder.width`?");
        check_fails("trian.epochs=7", "unknown section `trian`", "did you mean `train`?");
        check_fails("mask.strategy=randon", "key `mask.strategy` is `randon`", "did you mean `random`?");
        check_fails("train.batch_size=many", "key `train.batch_size`", "simmim recipes");
        check_fails("train.batch_size", "not of the form", "--set");
        check_fails("data.image_size=30", "`data.image_size` is `30`", "32");
        check_fails("mask.unit_px=6", "`mask.unit_px` is `6`", "4");
        check_fails("mask.ratio=1.5", "`mask.ratio` is `1.5`", "");
        check_fails("mask.strategy=blockwize", "key `mask.strategy` is `blockwize`", "did you mean `blockwise`?");
        check_fails("mask.min_block_units=0", "`mask.min_block_units` is `0`", "");
        check_fails("mask.aspect=[3.0, 0.5]", "`mask.aspect` is `[3, 0.5]`", "");
        check_fails("encoder.heads=5", "`encoder.heads` is `5`", "");
        check_fails("train.frozen_blocks=13", "`train.frozen_blocks` is `13`", "leave it out");
        check_fails("train.accumulation_steps=3", "`train.accumulation_steps` is `3`", "");
    }

    #[test]
    fn a_file_may_extend_a_built_in_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "extends = \"pretrain-vit-cifar\"\n[train]\nepochs = 3.0\n").unwrap();
        let recipe = resolve(path.to_str().unwrap(), &[]).unwrap();
        assert_eq!(recipe.train.epochs, 3.0);

        std::fs::write(&path, format!("extends = {:?}\n", path.to_str().unwrap())).unwrap();
        assert!(resolve(path.to_str().unwrap(), &[]).unwrap_err().to_string().contains("extends itself"));
    }

    #[test]
    fn paths_are_relative_to_the_file_and_addresses_are_not() {
        let folder = Path::new("recipes");
        assert_eq!(relative_to(folder, "a.tar,/b.tar,../c"), "recipes/a.tar,/b.tar,recipes/../c");
        assert_eq!(
            relative_to(folder, "a,https://h/x-{0..1,b}.tar,s3://b/y"),
            "recipes/a,https://h/x-{0..1,b}.tar,s3://b/y"
        );
    }

    #[test]
    fn an_unknown_recipe_names_the_nearest() {
        let error = resolve("pretrain-vit-cifr", &[]).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `pretrain-vit-cifar`?");
    }
}
