//! A run holds what it needs: once it has begun, neither its tokenizer nor its palette is needed where they were.

use super::support::{fails, json, photos, pretrain, refuses, scratch, simmim, succeeds, tensors, text};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Trains a small tokenizer in `folder`/`name`.
fn tokenizer(folder: &Path, name: &str, seed: &str) {
    let mut command = simmim(["tokenizer", "--recipe=tokenizer-cifar", "--seed", seed, "--data", &photos(), "--out"]);
    command.arg(folder.join(name)).args(["--set=train.batch_size=2", "--set=train.max_steps=1"]);
    command.args(["--set=data.image_size=16", "--set=tokenizer.width=4", "--set=tokenizer.vocabulary=16"]);
    succeeds(command);
}

/// Pre-training of the tokens of `tokenizer`, a path in `folder`, from there.
fn tokens(folder: &Path, out: &str, tokenizer: &str, more: &[&str]) -> Command {
    let named = format!("target.tokenizer={tokenizer}");
    let edits = ["data.channels=3", "data.image_size=28", "train.batch_size=2", "target.kind=tokens", &named];
    let mut command = pretrain(&photos(), Path::new(out), &[&edits[..], more].concat());
    // what is faster may change from one moment to the next
    command.args(["--val", &photos(), "--precision=f32"]).current_dir(folder);
    command
}

fn reconstruct(from: &Path, out: &Path) -> Command {
    let mut command = simmim(["reconstruct", "--precision=f32", "--from"]);
    command.arg(from).arg("--out").arg(out).arg(format!("{}/tools-plier1.jpg", photos()));
    command
}

#[test]
fn a_run_of_tokens_goes_on_and_is_read_without_its_tokenizer() {
    let (folder, _) = scratch();
    let at = |name: &str| folder.path().join(name);
    tokenizer(folder.path(), "tok", "0");
    tokenizer(folder.path(), "another", "5");
    succeeds(tokens(folder.path(), "whole", "tok", &["train.checkpoint_every_steps=2"]));
    succeeds(tokens(folder.path(), "run", "tok", &["train.checkpoint_every_steps=2"]));
    let expected = json(reconstruct(&at("run"), &at("pictures")))["pictures"][0]["masked_l1"].clone();

    // gone
    fs::rename(at("tok"), at("moved")).unwrap();
    fs::remove_dir_all(at("run/checkpoints/step-4")).unwrap();
    succeeds(tokens(folder.path(), "run", "tok", &["train.checkpoint_every_steps=2"]));
    assert!(tensors(&at("run"), 4) == tensors(&at("whole"), 4));
    // another one in its place
    fs::create_dir(at("tok")).unwrap();
    fs::copy(at("another/tokenizer.safetensors"), at("tok/tokenizer.safetensors")).unwrap();
    fs::remove_dir_all(at("run/checkpoints/step-4")).unwrap();
    let ran = succeeds(tokens(folder.path(), "run", "tok", &["train.checkpoint_every_steps=2"]));
    assert!(ran.stderr.contains("warning: `tok` is another tokenizer now"), "{}", ran.stderr);
    assert!(tensors(&at("run"), 4) == tensors(&at("whole"), 4));
    // the same one by another name, and another one that is named
    succeeds(tokens(folder.path(), "run", "moved/tokenizer.safetensors", &["train.checkpoint_every_steps=2"]));
    refuses(tokens(folder.path(), "run", "another", &[]), "run.tokenizer", "another --out");

    // the folder elsewhere, its checkpoint, and its weights
    fs::create_dir(at("deep")).unwrap();
    fs::rename(at("run"), at("deep/run")).unwrap();
    fs::remove_dir_all(at("tok")).unwrap();
    for from in ["deep/run", "deep/run/checkpoints/step-4", "deep/run/checkpoints/step-4/model.safetensors"] {
        let result = json(reconstruct(&at(from), &at("pictures")));
        assert_eq!(result["pictures"][0]["masked_l1"], expected, "{from}");
    }
    assert_eq!(json(simmim(["inspect", &text(&at("deep/run"))]))["steps"], 4);
    succeeds(tokens(&at("deep"), "run", "tok", &[]));

    // what is inside is exchanged
    let own = at("deep/run/tokenizer.safetensors");
    fs::copy(at("another/tokenizer.safetensors"), &own).unwrap();
    for command in [tokens(&at("deep"), "run", "tok", &[]), reconstruct(&at("deep/run"), &at("pictures"))] {
        refuses(command, "is another tokenizer than the run began with", "restore it");
    }
    // weights that were copied out of their run say what is missing
    fs::copy(at("deep/run/checkpoints/step-4/model.safetensors"), at("model.safetensors")).unwrap();
    let mut alone = reconstruct(&at("model.safetensors"), &at("pictures"));
    alone.current_dir(folder.path());
    fails(alone, 2, "there is no tokenizer");
}

#[test]
fn a_tokenizer_that_is_not_there_leaves_no_folder_of_a_new_run() {
    let (folder, run) = scratch();
    refuses(tokens(folder.path(), "run", "nowhere", &[]), "there is no tokenizer `nowhere`", "simmim tokenizer");
    assert!(!run.exists());
}

#[test]
fn a_run_of_colors_goes_on_without_its_palette() {
    let (folder, run) = scratch();
    let at = |name: &str| text(&folder.path().join(name));
    for (name, seed) in [("palette.safetensors", "0"), ("another.safetensors", "5")] {
        succeeds(simmim(["palette", "--colors=4", "--seed", seed, "--data", &photos(), "--out", &at(name)]));
    }
    let train = |palette: Option<&str>, out: &Path| {
        let named = palette.map(|name| format!("target.palette={}", at(name)));
        let edits = ["data.channels=3", "train.batch_size=2", "target.kind=color-clusters", "target.clusters=4"];
        pretrain(&photos(), out, &edits.into_iter().chain(named.as_deref()).collect::<Vec<_>>())
    };
    let palette = Some("palette.safetensors");
    succeeds(train(palette, &run));
    fs::copy(at("palette.safetensors"), at("copy.safetensors")).unwrap();
    fs::remove_file(at("palette.safetensors")).unwrap();
    succeeds(train(palette, &run));
    refuses(train(palette, &folder.path().join("new")), "there is no such file", "simmim palette");
    assert!(!folder.path().join("new").exists());
    succeeds(train(Some("copy.safetensors"), &run));
    refuses(train(Some("another.safetensors"), &run), "`run.palette`", "another --out");
    refuses(train(None, &run), "`target.palette`", "another --out");
}
