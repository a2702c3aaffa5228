//! Fetches the files of a model on a hub.
//!
//! The crate `hf-hub` does the same and is not used: its version 1 needs 284 crates, a second storage protocol among them,
//! and its earlier ones neither end a stalled download nor know `HF_HUB_OFFLINE`.

use super::address::{self, Address};
use super::cache::Cache;
use super::lock::Lock;
use super::request::{self, Client, Wanted};
use super::settings::Settings;
use simmim::Error;
use std::path::{Path, PathBuf};

/// Files beside weights that say what they are; models may have them or not.
const BESIDE: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// Names under which a model has its weights, the first that is there; an index names more files.
pub(super) const WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The path in the cache that stands for `from`, if that is an address. What is not there yet is fetched.
///
/// # Errors
/// If the address is none, or the files can neither be fetched nor are in the cache.
pub(super) fn path(from: &str, is_quiet: bool) -> Result<Option<PathBuf>, Error> {
    Address::of(from)?.map(|address| path_of(&address, is_quiet)).transpose()
}

/// The file or folder of an address, in the cache.
fn path_of(address: &Address, is_quiet: bool) -> Result<PathBuf, Error> {
    let settings = Settings::of_environment()?;
    let cache = Cache::new(&settings.cache, address);
    if settings.is_offline {
        return cached(address, &cache, "`HF_HUB_OFFLINE` is set");
    }
    if let Some(path) = address.commit().and_then(|_| whole(address, &cache)) {
        return Ok(path); // a commit does not change
    }
    let client = Client::new(&settings, address, is_quiet)?;
    let _lock = Lock::of(&cache, || {
        if !is_quiet {
            crate::terminal::line(&format!("waiting for another process that fetches `{}`", address.text));
        }
    });
    if let Some(path) = address.commit().and_then(|_| whole(address, &cache)) {
        return Ok(path); // which it fetched
    }
    match fetched(address, &cache, &client) {
        Err(request::Fault::NoConnection(what)) => match whole(address, &cache) {
            Some(path) => {
                crate::terminal::line(&format!("warning: {what}; using `{}` from the cache", address.text));
                Ok(path)
            }
            None => cached(address, &cache, &what),
        },
        Err(fault) => Err(fault.error(address, &settings)),
        Ok(path) => Ok(path),
    }
}

/// What the cache has, or an error which says why nothing else was asked.
fn cached(address: &Address, cache: &Cache, why: &str) -> Result<PathBuf, Error> {
    whole(address, cache).ok_or_else(|| Error::Input {
        what: format!("`{}` is not in the cache `{}`, and {why}", address.text, cache.root().display()),
        hint: Some("fetch it once where there is a network, or give the path of a folder with its files".into()),
    })
}

/// The path of an address, if the cache has all of it.
fn whole(address: &Address, cache: &Cache) -> Option<PathBuf> {
    let snapshot = cache.snapshot()?;
    let has = |file: &Path| file.is_file().then(|| file.to_owned());
    match &address.file {
        Some(file) => {
            let path = snapshot.join(file);
            parts_of(&path).ok()?.iter().all(|part| part.is_file()).then_some(())?;
            has(&path)
        }
        None => {
            let file = WEIGHTS.iter().find_map(|name| has(&snapshot.join(name)))?;
            parts_of(&file).ok()?.iter().all(|part| part.is_file()).then_some(snapshot)
        }
    }
}

/// Fetches what an address stands for.
fn fetched(address: &Address, cache: &Cache, client: &Client) -> Result<PathBuf, request::Fault> {
    let beside = |file: &str| address.folder().map_or(file.to_owned(), |folder| format!("{folder}/{file}"));
    // what says how the weights are read comes first, so that whoever has the weights has it too
    for name in BESIDE {
        client.fetch(cache, &beside(name), Wanted::IfThere)?;
    }
    let file = match &address.file {
        Some(file) => client.fetch(cache, file, Wanted::Needed)?.expect("a file that is needed is there or an error"),
        None => {
            let mut found = None;
            for name in WEIGHTS {
                found = client.fetch(cache, name, Wanted::IfThere)?;
                if found.is_some() {
                    break;
                }
            }
            found.ok_or(request::Fault::NoWeights)?
        }
    };
    for part in parts_of(&file).map_err(request::Fault::Local)? {
        let name = part.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        client.fetch(cache, &beside(name), Wanted::Needed)?;
    }
    match address.file {
        Some(_) => Ok(file),
        None => Ok(file.parent().map_or(file.clone(), Path::to_owned)),
    }
}

/// The files that an index names; none if this is no index.
fn parts_of(file: &Path) -> Result<Vec<PathBuf>, Error> {
    if file.extension().is_none_or(|extension| extension != "json") {
        return Ok(Vec::new());
    }
    let damaged = |reason: String| Error::Damaged { path: file.to_owned(), reason };
    let text = std::fs::read(file).map_err(|e| damaged(e.to_string()))?;
    let index: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(format!("is not JSON: {e}")))?;
    let names = index["weight_map"].as_object().into_iter().flatten().filter_map(|(_, part)| part.as_str());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    if let Some(name) = names.iter().find(|name| !address::is_file_name(name)) {
        return Err(damaged(format!("names `{name}`, which is not a file beside it")));
    }
    Ok(names.into_iter().map(|name| file.with_file_name(name)).collect())
}
