//! Every key takes the values of its documented range and no others, wherever they are said.

use super::table::{Range, documented};
use super::values::values;
use super::{RECIPES, keys};
use simmim::recipe::resolve_any;
use simmim::run::read_any_resolved;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use toml::{Table, Value};

/// What a key needs beside it to be used at all, or for one of its values to fit the others: the key, the value (or
/// nothing, for all of them), and the edits.
const COMPANIONS: &[(&str, &str, &[&str])] = &[
    ("encoder.patch_px", "1024", &["data.image_size=1024", "mask.unit_px=1024", "target.resolution=1"]),
    ("encoder.width", "1", &["encoder.heads=1"]),
    ("encoder.width", "16384", &["encoder.heads=1"]),
    ("encoder.heads", "[", &["encoder.depths=[2]"]),
    ("encoder.depths", "", &["encoder.heads=[3]"]),
    ("encoder.pretrained_window_size", "", &["encoder.depths=[2]", "encoder.heads=[3]"]),
    ("encoder.registers", "", &["encoder.position_bias=\"none\""]),
    ("data.image_size", "1", &["encoder.patch_px=1", "mask.unit_px=1"]),
    ("data.image_size", "16384", &["encoder.patch_px=1024", "mask.unit_px=1024", "target.resolution=16"]),
    ("data.image_size", "[1, 1]", &["encoder.patch_px=1", "mask.unit_px=1"]),
    ("data.image_size", "[16384, 16384]", &["encoder.patch_px=1024", "mask.unit_px=1024", "target.resolution=16"]),
    ("data.channels", "", &["data.normalization=\"measured\""]),
    ("data.tile_", "", &["data.tile=512"]),
    ("data.tiles_per_picture", "", &["data.tile=512"]),
    ("mask.min_block_units", "", &["mask.strategy=\"blockwise\""]),
    ("mask.aspect", "", &["mask.strategy=\"blockwise\""]),
    ("head.width", "", &["head.kind=\"inverse-swin-t\""]),
    ("target.resolution", "1", &["encoder.patch_px=32", "mask.unit_px=32"]),
    ("target.resolution", "[1, 1]", &["encoder.patch_px=32", "mask.unit_px=32"]),
    ("target.window_px", "", &["target.kind=\"normalized-pixels\""]),
    ("target.bins", "", &["target.kind=\"color-bins\""]),
    ("target.clusters", "", &["target.kind=\"color-clusters\"", "target.resolution=16"]),
    ("train.decay_every_epochs", "", &["train.schedule=\"step\"", "train.decay_factor=0.5"]),
    ("train.milestones_epochs", "", &["train.schedule=\"multistep\"", "train.decay_factor=0.5"]),
    ("train.decay_factor", "", &["train.schedule=\"step\"", "train.decay_every_epochs=1.0"]),
    ("monitor.", "", &["monitor.train=\"a\"", "monitor.val=\"b\""]),
];

/// The facts of a run, for a `resolved.toml`.
const FACTS: &str = "version = \"0\"\ndevice = \"cpu\"\nprecision = \"f32\"\nthreads = 1\nseed = 0\ndata = \"a\"\n\
                     images = 1\n";

/// A recipe, one of its keys, and a value for it.
struct Case<'a> {
    recipe: &'a str,
    /// The recipe with every value.
    table: &'a Table,
    key: &'a str,
    value: &'a Value,
    companions: Vec<&'static str>,
}

impl<'a> Case<'a> {
    fn new(recipe: &'a str, table: &'a Table, key: &'a str, value: &'a Value) -> Self {
        let written = value.to_string();
        let is_for = |(owner, at, _): &&(&str, &str, &[&str])| {
            let is_owner = if owner.ends_with(['.', '_']) { key.starts_with(owner) } else { key == *owner };
            let is_at = at.is_empty() || written == *at || *at == "[" && written.starts_with('[');
            is_owner && is_at
        };
        let companions = COMPANIONS.iter().filter(is_for).flat_map(|(_, _, edits)| edits.iter().copied());
        let encoder = table.get("encoder");
        let is_other = |edit: &&str| !edit.starts_with(&format!("{key}="));
        // sizes of stages are nothing to a ViT
        let is_known = |edit: &&str| {
            edit.strip_prefix("encoder.")
                .is_none_or(|edit| encoder.and_then(|keys| keys.get(edit.split_once('=')?.0)).is_some())
        };
        Self { recipe, table, key, value, companions: companions.filter(is_other).filter(is_known).collect() }
    }

    /// Puts the value and its companions into a table of sections.
    fn insert_into(&self, table: &mut Table) {
        let companions = self.companions.iter().map(|edit| edit.split_once('=').unwrap());
        let parsed = |text: &str| toml::from_str::<Table>(&format!("v = {text}")).unwrap()["v"].clone();
        let all = companions.map(|(key, value)| (key, parsed(value))).chain([(self.key, self.value.clone())]);
        for (key, value) in all {
            let (section, key) = key.split_once('.').unwrap();
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            section.as_table_mut().unwrap().insert(key.to_owned(), value);
        }
    }

    /// The error, if any, of the value in an edit.
    fn error_of_edit(&self) -> Option<simmim::Error> {
        let edit = format!("{}={}", self.key, self.value);
        let edits: Vec<String> = self.companions.iter().map(|edit| (*edit).to_owned()).chain([edit]).collect();
        resolve_any(self.recipe, &edits).err()
    }

    /// The error, if any, of the value in a file.
    fn error_of_file(&self, folder: &Path) -> Option<simmim::Error> {
        let mut table = Table::new();
        table.insert("extends".into(), self.recipe.into());
        self.insert_into(&mut table);
        let path = folder.join("recipe.toml");
        fs::write(&path, table.to_string()).unwrap();
        resolve_any(path.to_str().unwrap(), &[]).err()
    }

    /// The error, if any, of the value in the `resolved.toml` of a run.
    fn error_of_run(&self, folder: &Path) -> Option<simmim::Error> {
        let mut table = self.table.clone();
        self.insert_into(&mut table);
        let channels = table["data"]["channels"].as_integer().filter(|channels| (1..=1024).contains(channels));
        let mut facts: Table = toml::from_str(FACTS).unwrap();
        let channels = channels.unwrap_or(1) as usize;
        for key in ["mean", "std"] {
            facts.insert(key.into(), vec![1.0; channels].into());
        }
        let clusters = table.get("target").and_then(|target| target.get("clusters")?.as_integer()).unwrap_or(0);
        facts.insert("palette".into(), vec!["00".repeat(channels); clusters.clamp(0, 1 << 16) as usize].into());
        table.insert("run".into(), facts.into());
        fs::write(folder.join("resolved.toml"), table.to_string()).unwrap();
        read_any_resolved(folder).err()
    }
}

fn table_of(recipe: &str) -> Table {
    toml::from_str(&resolve_any(recipe, &[]).unwrap().to_toml()).unwrap()
}

/// What a bound stands for: a number, the value of a key of the same section or another one, or one over it.
fn value_of(table: &Table, section: &str, bound: &str) -> f64 {
    if let Ok(number) = bound.parse() {
        return number;
    }
    if let Some(key) = bound.strip_prefix("1/") {
        return 1.0 / value_of(table, section, key);
    }
    let sections = [section].into_iter().chain(["encoder", "data"]);
    let value = sections.filter_map(|section| table.get(section)?.get(bound)).next();
    if bound == "depth" && !table.contains_key("encoder") {
        return 0.0; // a tokenizer has no blocks
    }
    value.and_then(Value::as_integer).unwrap_or_else(|| panic!("what is `{bound}` in [{section}]?")) as f64
}

#[test]
fn every_key_takes_the_values_of_its_range_and_names_itself_in_the_error_for_others() {
    let documented = documented();
    let folder = tempfile::tempdir().unwrap();
    let (mut wrong, mut accepted, mut refused) = (Vec::new(), 0, 0);
    let mut is_checked = BTreeSet::new();
    for (recipe, sections) in RECIPES {
        let table = table_of(recipe);
        for section in *sections {
            for key in keys(recipe, section) {
                let current = table.get(*section).and_then(|section| section.get(&key));
                let is_list = current.is_some_and(Value::is_array);
                let fits_form = |range: &&Range| !is_list || !matches!(range, Range::One(_));
                let range = documented[*section][&key].ranges.iter().find(fits_form);
                let range = range.unwrap_or_else(|| panic!("no range of `{section}.{key}` is documented"));
                let path = format!("{section}.{key}");
                // other recipes would need other companions for a value at the end of the range
                let is_first = is_checked.insert(format!("{path} {range:?}"));
                for (value, fits) in values(range, &|bound| value_of(&table, section, bound)) {
                    if fits && !is_first {
                        continue;
                    }
                    let case = Case::new(recipe, &table, &path, &value);
                    let mut errors = vec![("--set", case.error_of_edit())];
                    if is_first {
                        errors.push(("file", case.error_of_file(folder.path())));
                        errors.push(("run", case.error_of_run(folder.path())));
                    }
                    for (place, error) in errors {
                        let error = error.map(|error| error.to_string());
                        let is_right = match &error {
                            None => fits,
                            Some(error) => !fits && error.contains(&path),
                        };
                        if !is_right {
                            wrong.push(format!("{recipe} {place} {path}={value}: {error:?}, expected {fits}"));
                        }
                    }
                    if fits { accepted += 1 } else { refused += 1 }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), accepted + refused, wrong.join("\n"));
    assert!(accepted > 150 && refused > 1500, "{accepted} accepted, {refused} refused");
}
