//! `simmim tokenizer`: training, resuming, and pre-training on its tokens.

use super::support::{json, photos, pretrain, refuses, scratch, simmim, succeeds, text};
use std::path::Path;
use std::process::Command;

const SMALL: &[&str] =
    &["data.image_size=16", "tokenizer.width=4", "tokenizer.vocabulary=16", "train.batch_size=2", "train.max_steps=3"];

fn tokenizer(out: &Path) -> Command {
    let mut command = simmim(["tokenizer", "--recipe", "tokenizer-cifar", "--data", &photos(), "--threads", "1"]);
    command.arg("--out").arg(out);
    for edit in SMALL {
        command.args(["--set", edit]);
    }
    command
}

#[test]
fn a_tokenizer_is_trained_and_resumed_and_its_tokens_are_predicted() {
    let (folder, run) = scratch();
    let trained = json(tokenizer(&run));
    assert_eq!(trained["steps"], 3);
    assert!(trained["l1"].as_f64().is_some_and(f64::is_finite), "{trained:?}");
    assert_eq!(json(tokenizer(&run))["checkpoint"], trained["checkpoint"], "a finished run is not changed");
    assert!(run.join("report.html").is_file());

    let file = format!("target.tokenizer={}", text(&run.join("tokenizer.safetensors")));
    let edits = ["data.channels=3", "data.image_size=28", "train.batch_size=2", "target.kind=tokens", &file];
    let predicting = folder.path().join("predicting");
    let result = json(pretrain(&photos(), &predicting, &edits));
    assert!(result["loss"].as_f64().is_some_and(f64::is_finite), "{result:?}");

    // another tokenizer would give other targets
    let other = folder.path().join("other");
    let mut another = tokenizer(&other);
    another.args(["--seed", "5"]);
    succeeds(another);
    let file = format!("target.tokenizer={}", text(&other));
    let edits = [&edits[..4], &[&file]].concat();
    refuses(pretrain(&photos(), &predicting, &edits), "run.tokenizer", "another --out");
}

#[test]
fn the_same_command_writes_the_same_bytes() {
    let (folder, _) = scratch();
    let written = |name: &str| {
        let out = folder.path().join(name);
        succeeds(tokenizer(&out));
        std::fs::read(out.join("tokenizer.safetensors")).unwrap()
    };
    assert!(written("once") == written("again"));
}

#[test]
fn rates_of_layers_are_refused() {
    let (_folder, out) = scratch();
    let mut command = tokenizer(&out);
    command.args(["--set", "train.layer_decay=0.5"]);
    refuses(command, "`train.layer_decay` is `0.5`", "leave it out");
}

#[test]
fn a_tokenizer_that_does_not_exist_is_named() {
    let (_folder, run) = scratch();
    let edits = ["data.channels=3", "train.batch_size=2", "target.kind=tokens", "target.tokenizer=nowhere.safetensors"];
    refuses(pretrain(&photos(), &run, &edits), "nowhere.safetensors", "");
    assert!(!run.exists());
}
