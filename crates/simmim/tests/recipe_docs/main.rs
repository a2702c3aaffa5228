//! `docs/RECIPES.md` documents every key and choice of every kind of recipe, and no others, with the range of its values.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

mod ranges;
mod table;
mod values;

use simmim::recipe::resolve_any;
use std::collections::{BTreeMap, BTreeSet};
use table::documented;

/// One recipe of each kind and architecture; together they have every section.
const RECIPES: &[(&str, &[&str])] = &[
    ("pretrain-vit-cifar", &["encoder", "data", "mask", "head", "target", "loss", "train", "monitor"]),
    ("pretrain-swin-cifar", &["encoder"]),
    ("pretrain-swinv2-t-192", &["encoder"]),
    ("finetune-vit-cifar", &["data", "augment", "labels", "evaluate", "train"]),
    ("tokenizer-cifar", &["tokenizer", "data", "train"]),
];

/// The comma-separated list after `start` in a message.
fn list(message: &str, start: &str) -> Option<Vec<String>> {
    let rest = &message[message.find(start)? + start.len()..];
    Some(rest.split(", ").map(|word| word.trim().to_owned()).collect())
}

/// The keys of a section, from the error for an unknown key.
fn keys(recipe: &str, section: &str) -> Vec<String> {
    let error = resolve_any(recipe, &[format!("{section}.zzzzzzzz=1")]).unwrap_err();
    let hint = error.hint().unwrap_or_default();
    let mut keys = list(&hint, &format!("keys of [{section}] are ")).unwrap_or_else(|| panic!("{error}, {hint}"));
    if section == "encoder" {
        keys.push("kind".into()); // not a field of the configurations of encoders, so the error does not list it
    }
    keys
}

/// The choices of a key, if any, from the error for an unknown choice.
fn choices(recipe: &str, section: &str, key: &str) -> Vec<String> {
    let edit = format!("{section}.{key}=zzzzzzzz");
    let message = resolve_any(recipe, &[edit]).map_or_else(|e| e.to_string(), |_| String::new());
    list(&message, "expected one of ").unwrap_or_default()
}

#[test]
fn every_key_and_choice_is_documented_and_nothing_else_is() {
    let documented = documented();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut missing = Vec::new();
    for (recipe, sections) in RECIPES {
        for section in *sections {
            for key in keys(recipe, section) {
                known.entry((*section).to_owned()).or_default().insert(key.clone());
                let Some(row) = documented.get(*section).and_then(|keys| keys.get(&key)) else {
                    missing.push(format!("{section}.{key}"));
                    continue;
                };
                for choice in choices(recipe, section, &key) {
                    if !row.meaning.contains(&choice) {
                        missing.push(format!("{section}.{key} = {choice}"));
                    }
                }
            }
        }
    }
    let extra = documented.iter().flat_map(|(section, keys)| {
        let known = known.get(section).cloned().unwrap_or_default();
        keys.keys().filter(move |key| !known.contains(*key)).map(move |key| format!("{section}.{key}"))
    });
    let extra: Vec<String> = extra.collect();
    assert!(missing.is_empty() && extra.is_empty(), "not in docs/RECIPES.md: {missing:?}; only there: {extra:?}");
    assert!(known.len() == 12 && known.values().map(BTreeSet::len).sum::<usize>() > 70, "{known:?}");
}
