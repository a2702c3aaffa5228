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
        // a learning rate at which a probe diverges has no accuracy, and says so
        let is_unmeasured = |entry: &&Value| entry["diverged"] != true && keys.iter().any(|key| entry[key].is_null());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Stream;

    fn ended(code: Option<i32>, stdout: &str, stderr: &str) -> Ended {
        let (stdout, stderr) = (stdout.into(), stderr.into());
        Ended { code, signal: None, hangs: false, stdout, stderr, sent: Vec::new() }
    }

    #[track_caller]
    fn check(line: &str, ended: &Ended, expected: Option<&str>) {
        let found = fault(&Step::new(line.split(' ')), ended);
        assert!(found.as_deref().unwrap_or_default().contains(expected.unwrap_or_default()), "{found:?}");
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
    }

    #[test]
    fn what_may_not_happen_is_a_fault_and_what_may_is_none() {
        check("knn", &ended(Some(0), "top-1 50 %", ""), None);
        check("knn", &ended(Some(0), "top-1 NaN %", ""), Some("not finite"));
        check("knn", &ended(Some(0), "", "error: no such file"), Some("exit code Some(0) and 1 errors"));
        check("knn", &ended(Some(2), "", "error: no such file\nhint: look"), None);
        check("knn", &ended(Some(2), "", ""), Some("0 errors"));
        check("knn", &ended(Some(1), "", "error: one\nerror: two"), Some("2 errors"));
        check("reconstruct", &ended(Some(1), "", "error: one\nerror: two"), None);
        check("knn", &ended(Some(101), "", ""), Some("panics"));
        check("knn", &ended(Some(1), "", "thread 'main' panicked at x.rs:1:1:"), Some("panics"));
        check("knn", &ended(Some(3), "", ""), Some("exit code Some(3)"));
        check("knn", &Ended { hangs: true, ..ended(None, "", "") }, Some("hangs"));
    }

    #[test]
    fn a_signal_ends_a_command_only_if_it_was_sent_and_a_run_only_by_its_own_exit_code() {
        let (killed, interrupted) = (Some(9), Some(2));
        check("pretrain", &Ended { signal: killed, sent: vec!["KILL"], ..ended(None, "", "") }, None);
        check("pretrain", &Ended { signal: killed, ..ended(None, "", "") }, Some("dies of signal 9"));
        check("pretrain", &Ended { signal: interrupted, sent: vec!["INT"], ..ended(None, "", "") }, None);
        let late = ended(None, "", "3 parameters");
        check("pretrain", &Ended { signal: interrupted, sent: vec!["INT"], ..late }, Some("dies of signal 2"));
        check("pretrain", &Ended { sent: vec!["INT"], ..ended(Some(130), "", "") }, None);
        check("pretrain", &ended(Some(130), "", ""), Some("exit code Some(130)"));
    }

    #[test]
    fn a_result_has_all_of_its_numbers() {
        let line = "evaluate --json";
        check(line, &ended(Some(0), r#"{"top1": 1, "top5": 1, "loss": 0.5, "images": 3}"#, ""), None);
        check(line, &ended(Some(0), r#"{"top1": 1, "top5": 1, "loss": null, "images": 3}"#, ""), Some("loss"));
        check(line, &ended(Some(0), "done", ""), Some("not a JSON object"));
        let unread = Step { stdout: Stream::Closed, ..Step::new(line.split(' ')) };
        assert_eq!(fault(&unread, &ended(Some(0), "", "")), None);
        let pictures = r#"{"pictures": [{"masked_l1": 0.1, "mean_color_l1": null}]}"#;
        check("reconstruct --json", &ended(Some(0), pictures, ""), Some("has no number"));
    }
}
