//! Unreadable images: each is counted once and named once in a run, however often it is drawn; the first ten are named.

use super::support::{
    broken_image, class_folders, finetune, json, log, photos, pretrain, run, scratch, simmim, succeeds, text,
};
use serde_json::{Map, Value, json as value};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of two classes with 40 pictures each, and `broken` pictures that are cut short.
fn pictures(folder: &Path, broken: usize) -> PathBuf {
    let data = folder.join(format!("data-{broken}"));
    class_folders(&data, &["dark", "light"], 40);
    for number in 0..broken {
        broken_image(&data.join(format!("light/half-{number}.jpg")));
    }
    data
}

/// The result on stdout, and the warnings on stderr.
fn result_and_warnings(mut command: Command) -> (Map<String, Value>, Vec<String>) {
    command.arg("--json");
    let ran = succeeds(command);
    let result = serde_json::from_str(ran.stdout.trim()).unwrap();
    (result, ran.stderr.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect())
}

fn named(warnings: &[String]) -> usize {
    let mut lines: Vec<_> = warnings.iter().filter(|line| line.starts_with("warning: skipped `")).collect();
    let all = lines.len();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), all, "no image is named twice: {warnings:?}");
    all
}

/// Names of the images in the log of a run.
fn logged(run: &Path) -> Vec<String> {
    log(run).iter().filter_map(|entry| Some(entry.get("skipped")?.as_str()?.to_owned())).collect()
}

const LONG: [&str; 2] = ["train.max_steps=40", "data.max_skipped=0.3"];

#[test]
fn one_broken_image_over_several_epochs_is_one_image() {
    let (folder, out) = scratch();
    let (result, warnings) = result_and_warnings(pretrain(&text(&pictures(folder.path(), 1)), &out, &LONG));
    assert_eq!((&result["skipped_images"], named(&warnings)), (&value!(1), 1), "{warnings:?}");
    let draws = result["replaced_draws"].as_u64().unwrap();
    assert!((3..=4).contains(&draws), "four epochs, of which each leaves out one image: {draws}");
    let sum = format!("warning: 1 training images cannot be read; other images took their place {draws} times");
    assert_eq!(warnings.last(), Some(&sum));
    assert_eq!(logged(&out).len(), 1);
    let last = log(&out).into_iter().rfind(|entry| entry.contains_key("loss")).unwrap();
    assert_eq!((&last["skipped_images"], &last["replaced_draws"]), (&value!(1), &value!(draws)));
}

#[test]
fn ten_are_named_and_all_are_counted_by_every_command_that_trains() {
    let (folder, _) = scratch();
    let data = text(&pictures(folder.path(), 14));
    let out = |name: &str| folder.path().join(name);
    let mut tokenizer = simmim(["tokenizer", "--recipe=tokenizer-cifar", "--data", &data, "--out"]);
    tokenizer.arg(out("tokenizer")).args(["--set=train.batch_size=8", "--set=train.max_steps=40"]);
    tokenizer.args(["--set=data.image_size=8", "--set=tokenizer.width=4", "--set=tokenizer.vocabulary=4"]);
    tokenizer.arg("--set=data.max_skipped=0.3");
    for (name, mut command) in [
        ("pretrain", pretrain(&data, &out("pretrain"), &LONG)),
        ("finetune", finetune("scratch", &data, &out("finetune"), &LONG)),
        ("tokenizer", tokenizer),
    ] {
        command.args(["--val", &data]);
        let (result, warnings) = result_and_warnings(command);
        let counted = [&result["skipped_images"], &result["skipped_val_images"]];
        assert_eq!(counted, [&value!(14), &value!(14)], "{name}: {warnings:?}");
        assert!(result["replaced_draws"].as_u64() > Some(28), "{name}: {result:?}");
        let of =
            |what: &str| warnings.iter().filter(|line| line.contains(&format!("14 {what} cannot be read"))).count();
        assert_eq!((of("training images"), of("held-out images")), (1, 1), "{name}: {warnings:?}");
        assert_eq!(logged(&out(name)).len(), 20, "{name}: ten of each collection");
    }
}

#[test]
fn a_resumed_run_names_none_again_and_ends_with_the_same_counts() {
    let (folder, out) = scratch();
    let data = text(&pictures(folder.path(), 14));
    let train = |out: &Path, steps: &str| {
        let mut command = pretrain(&data, out, &["data.max_skipped=0.3", "train.checkpoint_every_steps=10", steps]);
        command.args(["--val", &data]);
        command
    };
    let whole = folder.path().join("whole");
    let (expected, _) = result_and_warnings(train(&whole, "train.max_steps=40"));
    succeeds(train(&out, "train.max_steps=40"));
    for step in [30, 40] {
        std::fs::remove_dir_all(out.join(format!("checkpoints/step-{step}"))).unwrap_or_default();
    }
    // the newest two checkpoints were kept; without them the run begins again, with one of them it goes on
    let (begun_again, _) = result_and_warnings(train(&out, "train.max_steps=40"));
    std::fs::remove_dir_all(out.join("checkpoints/step-40")).unwrap();
    let (resumed, warnings) = result_and_warnings(train(&out, "train.max_steps=40"));
    assert_eq!(named(&warnings), 0, "{warnings:?}");
    for key in ["skipped_images", "replaced_draws", "skipped_val_images", "loss"] {
        assert_eq!((&resumed[key], &begun_again[key]), (&expected[key], &expected[key]), "{key}");
    }
    assert_eq!(log(&out), log(&whole));
}

#[test]
fn commands_that_evaluate_name_ten_and_count_all() {
    let (folder, out) = scratch();
    let data = text(&pictures(folder.path(), 13));
    let whole = text(&pictures(folder.path(), 0));
    succeeds(finetune("scratch", &whole, &out, &[]));
    let palette = text(&folder.path().join("palette.safetensors"));
    let from = text(&out);
    for arguments in [
        &["evaluate", "--from", &from, "--data", &data][..],
        &["knn", "--from", &from, "--data", &data, "--val", &data],
        &["probe", "--epochs=1", "--from", &from, "--data", &whole, "--val", &data],
        &["palette", "--data", &data, "--colors=4", "--channels=1", "--out", &palette],
    ] {
        let (result, warnings) = result_and_warnings(simmim(arguments));
        assert_eq!(result["skipped_images"], 13, "{arguments:?}");
        assert_eq!(named(&warnings), 10, "{arguments:?}: {warnings:?}");
        assert!(warnings.iter().any(|line| line.contains("skipped 3 more images")), "{warnings:?}");
    }
    // all of them are named by the command that is for that
    assert_eq!(json(simmim(["inspect", &data]))["unreadable"].as_array().unwrap().len(), 13);
}

#[test]
fn the_monitor_names_what_it_cannot_read_and_what_it_does_not_read() {
    let (folder, out) = scratch();
    let data = pictures(folder.path(), 11);
    succeeds(pretrain(&photos(), &data.join("run"), &["train.batch_size=2"]));
    let sets = ["train", "val"].map(|which| format!("monitor.{which}={}", text(&data)));
    let edits = [&sets[0], &sets[1], "monitor.every_steps=1", "train.batch_size=2"];
    let mut command = pretrain(&photos(), &out, &edits);
    command.arg("--quiet");
    let (_, warnings) = result_and_warnings(command);
    assert_eq!(warnings.iter().filter(|line| line.contains("belongs to a run")).count(), 2, "{warnings:?}");
    assert_eq!(logged(&out).len(), 20, "ten of each collection");
    for which in ["train", "val"] {
        let sum = format!("warning: 11 images of `monitor.{which}` cannot be read; they are left out");
        assert!(warnings.contains(&sum), "{warnings:?}");
    }
}

#[test]
fn the_share_that_a_recipe_allows_is_of_images_and_not_of_draws() {
    let (folder, out) = scratch();
    let data = text(&pictures(folder.path(), 5));
    // 5 of 85 are below 6 %, in however many epochs
    let run_with = |share: &str, out: &Path| {
        run(pretrain(&data, out, &["train.max_steps=60", &format!("data.max_skipped={share}")]))
    };
    assert_eq!(run_with("0.06", &out).code, Some(0));
    let ran = run_with("0.05", &folder.path().join("other"));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("5 of") && ran.stderr.contains("images could not be read"), "{}", ran.stderr);
}
