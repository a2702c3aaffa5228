//! Memory that can be foreseen and that the system does not give is an error, not a process that aborts.
#![cfg(target_os = "linux")]

use super::support::{class_folders, fashion, finetune, json, pretrain, run, scratch, simmim, succeeds, text};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The command with at most `kilobytes` of address space.
fn limited(kilobytes: u64, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("ulimit -v {kilobytes} || exit 77; exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// Runs a command with 2 GB; it must fail with exit code 1 and say how much memory it would take.
#[track_caller]
fn is_refused(command: &Command) {
    let ran = run(limited(2_000_000, command));
    assert_eq!(ran.code, Some(1), "{:?}: {ran:?}", command.get_args());
    assert!(ran.stderr.contains("GB of memory") && ran.stderr.contains("hint: "), "{}", ran.stderr);
}

#[test]
fn what_takes_more_memory_than_there_is_is_refused_with_the_number() {
    let (folder, out) = scratch();
    let at = |name: &str| folder.path().join(name);
    // a large model, large images with large batches, and tables of pairs of tokens
    let model = ["encoder.width=4096", "encoder.depth=24", "encoder.heads=16"];
    let images = ["data.image_size=2048", "encoder.patch_px=32", "mask.unit_px=32", "train.batch_size=900"];
    let pairs = ["data.image_size=512", "encoder.position_bias=shared"];
    // batches that fit, and held-out images that do not
    let kept = ["data.image_size=2048", "encoder.patch_px=32", "mask.unit_px=32", "train.batch_size=2"];
    for edits in [&model[..], &images, &pairs, &kept] {
        is_refused(&pretrain(&fashion(), &out, edits));
        assert!(!out.exists(), "{edits:?}");
    }
    is_refused(&finetune("scratch", &fashion(), &out, &model));
    assert!(!out.exists());
    let with = |command: &mut Command, edits: &[&str]| {
        command.args(edits.iter().map(|edit| format!("--set={edit}")));
        is_refused(command);
    };
    for edits in [&model[..], &images, &pairs] {
        with(&mut simmim(["bench", "--recipe=demo", "--steps=1"]), edits);
        with(&mut simmim(["bench", "--recipe=demo", "--steps=1", "--forward"]), edits);
    }
    with(&mut simmim(["bench", "--recipe=demo", "--steps=1"]), &["train.batch_size=60000"]);
    with(&mut simmim(["bench", "--adamw=1000000000"]), &[]);
    let knn = ["knn", "--from=scratch", "--recipe=demo", "--data", &fashion(), "--val", &fashion()];
    for edits in [&model[..], &pairs] {
        with(&mut simmim(knn), edits);
    }
    let mut tokenizer = simmim(["tokenizer", "--recipe=tokenizer-cifar", "--data", &fashion(), "--out"]);
    tokenizer.arg(&out).args(["--set=data.channels=1", "--set=train.batch_size=512"]);
    with(&mut tokenizer, &["data.image_size=512"]);
    // windows that the grid holds; a smaller grid makes them smaller
    let windows = ["encoder.window=128", "encoder.width=6", "encoder.heads=[1, 1, 1]", "train.batch_size=1"];
    let swin = ["bench", "--recipe=pretrain-swin-cifar", "--steps=1", "--forward"];
    with(&mut simmim(swin), &[&windows[..], &["data.image_size=512"]].concat());
    let mut small = simmim(swin);
    small.args(windows.map(|edit| format!("--set={edit}")));
    succeeds(limited(2_000_000, &small));
    let mut masks = simmim(["masks", "--out"]);
    masks.arg(at("masks"));
    with(&mut masks, &["data.image_size=16384", "mask.unit_px=256", "encoder.patch_px=256"]);
    // the same command succeeds where it fits
    succeeds(limited(2_000_000, &pretrain(&fashion(), &out, &[])));
}

#[test]
fn an_image_for_which_there_is_no_memory_is_unreadable() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["dark"], 2);
    image::GrayImage::new(10_000, 10_000).save(data.join("large.png")).unwrap();
    let inspect = simmim(["inspect", "--json", &text(&data)]);
    let ran = succeeds(limited(500_000, &inspect));
    let found: serde_json::Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(found["unreadable"].as_array().unwrap().len(), 1, "{found}");
    assert!(found["unreadable"][0]["reason"].as_str().unwrap().contains("does not give"), "{found}");
    assert_eq!(json(simmim(["inspect", &text(&data)]))["unreadable"].as_array().unwrap().len(), 0);
}

#[test]
fn numbers_in_files_do_not_decide_on_memory() {
    let (folder, out) = scratch();
    // a label that would make 400 billion classes
    let shard = folder.path().join("shard.tar");
    let mut tar = tar::Builder::new(Vec::new());
    let png = folder.path().join("a.png");
    image::GrayImage::new(28, 28).save(&png).unwrap();
    tar.append_path_with_name(&png, "0.png").unwrap();
    fs::write(folder.path().join("label"), "400000000000").unwrap();
    tar.append_path_with_name(folder.path().join("label"), "0.cls").unwrap();
    fs::write(&shard, tar.into_inner().unwrap()).unwrap();
    let ran = run(limited(2_000_000, &simmim(["inspect", &text(&shard)])));
    assert!(ran.code == Some(2) && ran.stderr.contains("the label 400000000000"), "{ran:?}");
    // sizes of a discrete VAE
    for edit in
        ["tokenizer.blocks_per_group=4000000000", "tokenizer.vocabulary=4000000000", "tokenizer.width=4000000000"]
    {
        let mut command =
            simmim(["tokenizer", "--recipe=tokenizer-cifar", "--data", &fashion(), "--set", edit, "--out"]);
        command.arg(&out);
        let ran = run(limited(2_000_000, &command));
        assert!(ran.code == Some(2) && ran.stderr.contains(edit.split('=').next().unwrap()), "{ran:?}");
    }
    assert!(!Path::new(&out).exists());
}
