//! Where the weights lie in what a checkpoint holds.

use super::TorchFault;
use super::objects::{Id, Tensor, Value};
use super::pickle::Pickle;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of a checkpoint under which weights lie, of which the first that has some is taken, and else the top: those of
/// microsoft/SimMIM and Swin-Transformer, of timm and Lightning, of DINO, of DeiT, and of data-parallel training.
const KEYS: [&str; 5] = ["model", "state_dict", "teacher", "model_ema", "module"];

/// The most names that a message lists.
const MAX_NAMED: usize = 10;

/// The tensors of a state dict.
pub(super) struct StateDict<'a> {
    pub(super) tensors: Vec<(&'a str, Tensor<'a>)>,
    /// Where they were, and what else is in the file, as sentences.
    pub(super) notes: Vec<String>,
}

/// Finds the state dict of a checkpoint.
///
/// # Errors
/// If there is none, or it has something else among its tensors.
pub(super) fn find<'a>(pickle: &Pickle<'a>) -> Result<StateDict<'a>, TorchFault> {
    let Some(top) = entries(pickle, pickle.top()) else {
        return Err(TorchFault::NoStateDict(describe(pickle.top())));
    };
    let has_tensors =
        |entries: &BTreeMap<&str, Id>| entries.values().any(|id| matches!(pickle.get(*id), Value::Tensor(_)));
    let under = |key: &'static str| {
        let entries = entries(pickle, pickle.get(*top.get(key)?))?;
        Some((key, entries)).filter(|(_, entries)| has_tensors(entries))
    };
    let mut notes = Vec::new();
    let entries = match KEYS.into_iter().find_map(under) {
        None if has_tensors(&top) => top,
        None => return Err(TorchFault::NoStateDict(listed(top.keys().map(|key| format!("`{key}`"))))),
        Some((key, entries)) => {
            let beside = top.iter().filter(|(other, _)| **other != key);
            let beside: Vec<String> =
                beside.map(|(other, id)| format!("`{other}` ({})", describe(pickle.get(*id)))).collect();
            notes.push(match beside.is_empty() {
                true => format!("read `{key}`"),
                false => format!("read `{key}`, and not {}", listed(beside.into_iter())),
            });
            entries
        }
    };
    let classes: BTreeSet<&str> = pickle.values().filter_map(class).collect();
    if !classes.is_empty() {
        let classes = classes.into_iter().map(str::to_owned);
        notes.push(format!("passed over without making an object of it: {}", listed(classes)));
    }
    let (mut tensors, mut others) = (Vec::new(), Vec::new());
    for (name, id) in entries {
        match pickle.get(id) {
            Value::Tensor(tensor) => tensors.push((name, tensor.as_ref().clone())),
            Value::Int(_) | Value::Text(_) | Value::Plain => others.push(format!("`{name}`")),
            other => return Err(TorchFault::NotTensor { name: name.to_owned(), what: describe(other) }),
        }
    }
    if !others.is_empty() {
        notes.push(format!("left out of the weights, being no tensors: {}", listed(others.into_iter())));
    }
    Ok(StateDict { tensors, notes })
}

/// The entries of a dict whose keys are text, the last one for each key; `None` for anything else.
fn entries<'a>(pickle: &Pickle<'a>, value: &Value<'a>) -> Option<BTreeMap<&'a str, Id>> {
    let Value::Dict(pairs) = value else { return None };
    let text = |key: &Id| if let Value::Text(text) = *pickle.get(*key) { Some(text) } else { None };
    pairs.iter().map(|(key, value)| Some((text(key)?, *value))).collect()
}

fn class(value: &Value<'_>) -> Option<&'static str> {
    if let Value::Object(class) = value { Some(class) } else { None }
}

fn describe(value: &Value<'_>) -> String {
    let described = match value {
        Value::Text(_) => "a text",
        Value::Int(_) => "a number",
        Value::Tuple(_) => "a tuple",
        Value::List(_) => "a list",
        Value::Dict(_) => "a dict",
        Value::Global(_) => "a class or function",
        Value::Storage(_) => "a storage",
        Value::Tensor(_) => "a tensor",
        Value::Object(class) => class,
        Value::Plain => "a plain value",
    };
    described.to_owned()
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let named: Vec<String> = names.take(MAX_NAMED).collect();
    match (named.is_empty(), more) {
        (true, _) => "no names".into(),
        (false, 0) => named.join(", "),
        (false, more) => format!("{} and {more} more", named.join(", ")),
    }
}
