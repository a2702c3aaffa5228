//! What may not happen, whatever the command was.

use crate::process::{Ended, Step};
use serde_json::Value;

/// Results that are numbers in every successful run of a command.
const NUMBERS: &[(&str, &[&str])] = &[
    ("pretrain", &["steps", "loss", "images_per_second", "skipped_images"]),
    ("finetune", &["steps", "loss", "images_per_second", "skipped_images"]),
    ("tokenizer", &["steps", "loss", "l1", "tokens_in_use", "perplexity", "images_per_second", "skipped_images"]),
    ("probe", &["top1", "top5", "images", "rate", "features", "train_images"]),
    ("knn", &["top1", "top5", "images", "temperature", "features", "train_images"]),
    ("evaluate", &["top1", "top5", "loss", "images"]),
    ("palette", &["colors"]),
];

/// Lists of results, and what is a number in each of their entries.
const LISTS: &[(&str, &[&str])] = &[
    ("pictures", &["masked_l1", "mean_color_l1"]),
    ("monitor", &["knn_top1", "probe_top1", "rank_me"]),
    ("rates", &["top1", "top5"]),
];

/// Results that are numbers if there are any.
const NUMBERS_IF_ANY: &[(&str, &str)] = &[("finetune", "top1"), ("finetune", "val_loss"), ("pretrain", "val_loss")];

/// What is wrong with how a call ended, if anything.
pub(crate) fn fault(step: &Step, ended: &Ended) -> Option<String> {
    let sent = |names: &[&str]| ended.sent.iter().any(|name| names.contains(name));
    if ended.hangs {
        return Some("hangs".into());
    }
    if ended.stderr.contains("panicked at") || ended.code == Some(101) {
        return Some("panics".into());
    }
    match (ended.code, ended.signal) {
        (None, Some(9)) if sent(&["KILL"]) => return None,
        (None, Some(number)) => {
            // before the command waits for them, signals end it as they end any other
            let name = [(1, "HUP"), (2, "INT"), (15, "TERM")].iter().find(|(known, _)| *known == number);
            let is_early = !ended.stderr.contains("parameters") && !ended.stderr.contains("interrupted");
            let is_sent = name.is_some_and(|(_, name)| sent(&[name]));
            return (!is_sent || !is_early).then(|| format!("dies of signal {number}"));
        }
        (Some(0..=2), _) => {}
        (Some(130), _) if sent(&["INT", "TERM", "HUP"]) => return None,
        (code, signal) => return Some(format!("ends with exit code {code:?}, signal {signal:?}")),
    }
    let is_heard = step.stderr == crate::process::Stream::Kept && step.file_kb.is_none();
    let errors = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    // one for each picture that is not made
    let most = if step.arguments[0] == "reconstruct" { usize::MAX } else { 1 };
    let is_right = if ended.code == Some(0) { errors == 0 } else { (1..=most).contains(&errors) };
    if is_heard && !is_right {
        return Some(format!("ends with exit code {:?} and {errors} errors", ended.code));
    }
    if ended.code == Some(0) && step.stdout == crate::process::Stream::Kept {
        wrong_result(step, &ended.stdout)
    } else {
        None
    }
}

/// What is wrong with the result of a command that succeeded.
fn wrong_result(step: &Step, stdout: &str) -> Option<String> {
    let asked = |name: &str| step.arguments.iter().any(|argument| argument == name);
    if asked("--help") || asked("--version") {
        return None;
    }
    let is_number_word = |word: &str| ["NaN", "inf", "-inf"].contains(&word.trim_matches(|c: char| ",()%".contains(c)));
    if !asked("--json") {
        return stdout.split_whitespace().any(is_number_word).then(|| "has a result that is not finite".into());
    }
    let last = stdout.lines().last().unwrap_or_default();
    let Ok(Value::Object(result)) = serde_json::from_str(last) else {
        return Some(format!("prints {last:?}, which is not a JSON object"));
    };
    let command = step.arguments[0].as_str();
    let numbers = NUMBERS.iter().filter(|(name, _)| *name == command).flat_map(|(_, keys)| *keys);
    let missing = numbers.filter(|key| result.get(**key).is_none_or(Value::is_null)).collect::<Vec<_>>();
    if !missing.is_empty() {
        return Some(format!("has no {missing:?} in {last}"));
    }
    for (list, keys) in LISTS {
        let entries = result.get(*list).and_then(Value::as_array).into_iter().flatten();
        let is_unmeasured = |entry: &&Value| keys.iter().any(|key| entry[key].is_null());
        if let Some(entry) = entries.into_iter().find(is_unmeasured) {
            return Some(format!("has no number in {entry}"));
        }
    }
    // a run that had ended before evaluates nothing, whatever is asked for now
    let is_evaluated = asked("--val") && result.get("images_per_second").and_then(Value::as_f64) != Some(0.0);
    let null = NUMBERS_IF_ANY
        .iter()
        .find(|(name, key)| *name == command && is_evaluated && result.get(*key).is_none_or(Value::is_null));
    null.map(|(_, key)| format!("has no {key:?} in {last}"))
}
