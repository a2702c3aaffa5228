//! Draws command lines: commands and options, sensible ones and others.

use crate::edits::{any_edit, good_edits};
use crate::rng::Rng;
use crate::world::{DATA, RUNS};

/// The commands that train.
pub(crate) const TRAINING: &[&str] = &["pretrain", "finetune", "tokenizer"];

/// A command that trains into `out` and, undisturbed, succeeds.
pub(crate) fn good_training(out: &str, steps: usize, every: usize, rng: &mut Rng) -> Vec<String> {
    let command = rng.pick(TRAINING);
    let recipe = match command {
        "pretrain" => rng.pick(&["vit.toml", "swin.toml", "swinv2.toml", "clusters.toml"]),
        "finetune" => "finetune.toml",
        _ => "tokenizer.toml",
    };
    let mut line = words(&format!("{command} --recipe {recipe} --data {} --out {out} --json", rng.pick(DATA)));
    if command == "finetune" {
        line.extend(words(&format!("--from {}", rng.pick(&["vit", "scratch"]))));
    }
    if rng.happens(40) {
        line.extend(["--val".into(), line[4].clone()]);
    }
    line.extend(words(&format!("--threads {} --precision {}", 1 + rng.below(2), rng.pick(&["f32", "f32", "bf16"]))));
    let every = format!("train.checkpoint_every_steps={every} train.validate_every_steps={every}");
    let mut edits = words(&format!("train.max_steps={steps} {every}"));
    let more = rng.pick(good_edits(command));
    // a target of classes has a loss of its own
    if rng.happens(60) && !(recipe == "clusters.toml" && more.starts_with("loss.")) {
        edits.extend(words(more));
    }
    line.extend(edits.into_iter().flat_map(|edit| ["--set".to_owned(), edit]));
    line
}

/// A command with any options.
pub(crate) fn any_command(rng: &mut Rng) -> Vec<String> {
    let command = rng.pick(&[
        "pretrain",
        "pretrain",
        "pretrain",
        "finetune",
        "finetune",
        "finetune",
        "tokenizer",
        "tokenizer",
        "probe",
        "knn",
        "evaluate",
        "reconstruct",
        "reconstruct",
        "masks",
        "palette",
        "inspect",
        "inspect",
        "bench",
        "recipes",
        "demo",
    ]);
    let mut line = words(command);
    let option = |line: &mut Vec<String>, name: &str, value: &str| line.extend([name.to_owned(), value.to_owned()]);
    match command {
        "pretrain" | "finetune" | "tokenizer" => {
            let recipe = match (command, rng.happens(95)) {
                ("pretrain", true) => rng.pick(&["vit.toml", "swin.toml", "swinv2.toml", "clusters.toml"]),
                ("finetune", true) => "finetune.toml",
                ("tokenizer", true) => "tokenizer.toml",
                _ => rng.pick(&["vit.toml", "finetune.toml", "tokenizer.toml", "demmo", "arrays", "", "shard.tar"]),
            };
            option(&mut line, "--recipe", recipe);
            option(&mut line, "--data", data(rng));
            option(&mut line, "--out", out(rng));
            if command == "finetune" {
                option(&mut line, "--from", from(rng));
            }
            if rng.happens(40) {
                option(&mut line, "--val", data(rng));
            }
        }
        "probe" | "knn" => {
            option(&mut line, "--from", from(rng));
            option(&mut line, "--data", data(rng));
            option(&mut line, "--val", data(rng));
            if rng.happens(30) {
                option(&mut line, "--recipe", rng.pick(&["vit.toml", "swin.toml", "finetune.toml", "tokenizer.toml"]));
            }
            if rng.happens(20) {
                option(&mut line, "--layer", rng.pick(&["0", "1", "2", "-1", "18446744073709551615"]));
            }
            if rng.happens(20) {
                option(&mut line, "--cache", rng.pick(&["cache", "vit.toml", "vit.toml/cache", ""]));
            }
            match command {
                "knn" => {
                    if rng.happens(50) {
                        option(&mut line, "--k", rng.pick(&["1", "3", "100", "4294967295", "0", "-1"]));
                    }
                    if rng.happens(50) {
                        let temperature = rng.pick(&["0.07", "1e-300", "1e-40", "1e300", "0", "nan", "inf", "-1", "x"]);
                        option(&mut line, "--temperature", temperature);
                    }
                }
                _ => {
                    option(&mut line, "--epochs", rng.pick(&["1", "2", "5", "0", "x"]));
                    if rng.happens(50) {
                        let rates =
                            rng.pick(&["1e-3", "1e-3,1e-2", "1e30", "1e-300", "1e300", "nan", "0", "", ",", "1,x"]);
                        option(&mut line, "--rates", rates);
                    }
                    if rng.happens(30) {
                        line.push("--no-norm".into());
                    }
                }
            }
        }
        "evaluate" => {
            option(&mut line, "--from", from(rng));
            option(&mut line, "--data", data(rng));
        }
        "reconstruct" => {
            option(&mut line, "--from", from(rng));
            option(&mut line, "--out", out(rng));
            if rng.happens(40) {
                let mask = rng.pick(&["random", "square", "blockwise", "pictures/b/1.png", "arrays/a/0.npy", "x", ""]);
                option(&mut line, "--mask", mask);
            }
            if rng.happens(40) {
                let rectangle = rng.pick(&[
                    "0,0,4,4",
                    "2,2,1,1",
                    "7,7,9,9",
                    "100,100,4,4",
                    "18446744073709551615,0,1,1",
                    "0,0,0,1",
                    "x",
                ]);
                option(&mut line, "--mask-box", rectangle);
            }
            if rng.happens(20) {
                option(&mut line, "--mask-share", rng.pick(&["0.5", "1e-300", "0", "1.5", "nan"]));
            }
            line.extend((0..1 + rng.below(3)).map(|_| image(rng).to_owned()));
        }
        "masks" => {
            option(&mut line, "--out", out(rng));
            option(&mut line, "--recipe", rng.pick(&["vit.toml", "swin.toml", "swinv2.toml", "finetune.toml"]));
            if rng.happens(50) {
                option(&mut line, "--image", image(rng));
            }
        }
        "palette" => {
            option(&mut line, "--data", data(rng));
            option(
                &mut line,
                "--out",
                rng.pick(&["new.safetensors", "palette.safetensors", "arrays", "no/such/folder", "x"]),
            );
            option(&mut line, "--colors", rng.pick(&["2", "3", "4", "300", "65535", "0", "x"]));
            option(&mut line, "--channels", channels(rng));
        }
        "inspect" => {
            let (weights, images) = (from(rng), data(rng));
            let what = [weights, images, "vit.toml", "demo", "tokenizer.toml", "finetune.toml", "pretrain-swin"];
            line.push(rng.pick(&what).into());
            if rng.happens(50) {
                option(&mut line, "--channels", channels(rng));
            }
        }
        "bench" => {
            option(&mut line, "--recipe", rng.pick(&["vit.toml", "swin.toml", "swinv2.toml", "tokenizer.toml"]));
            option(&mut line, "--steps", rng.pick(&["1", "2", "0", "x"]));
            if rng.happens(30) {
                line.push(rng.pick(&["--forward", "--adamw=1000", "--adamw=0"]).into());
            }
        }
        "demo" => {
            option(&mut line, "--out", out(rng));
            for edit in ["train.max_steps=1", "encoder.width=8", "encoder.depth=1", "encoder.heads=1"] {
                option(&mut line, "--set", edit);
            }
        }
        _ => line
            .extend(rng.happens(70).then(|| rng.pick(&["demo", "vit.toml", "demmo", "", "pretrain-vit-cifar"]).into())),
    }
    let takes_edits = ["pretrain", "finetune", "tokenizer", "masks", "bench"].contains(&command);
    for _ in 0..if takes_edits { rng.below(4) } else { usize::from(rng.happens(3)) } {
        option(&mut line, "--set", &any_edit(command, rng));
    }
    line.extend(common_options(command, rng));
    line
}

/// Options of every command, mostly those that it uses.
fn common_options(command: &str, rng: &mut Rng) -> Vec<String> {
    let mut line = Vec::new();
    let computes = !["masks", "palette", "inspect", "recipes"].contains(&command);
    let draws = !["evaluate", "inspect", "recipes"].contains(&command);
    if computes || rng.happens(3) {
        let precision = if rng.happens(95) { rng.pick(&["f32", "f32", "bf16"]) } else { rng.pick(&["auto", "f16"]) };
        line.extend(words(&format!("--precision {precision}")));
        let threads = if rng.happens(97) { rng.pick(&["1", "2", "3"]) } else { rng.pick(&["0", "-1", "x", "65536"]) };
        line.extend(words(&format!("--threads {threads}")));
    }
    if rng.happens(if draws { 30 } else { 2 }) {
        line.extend(words(&format!(
            "--seed {}",
            rng.pick(&["1", "18446744073709551615", "9223372036854775808", "-1"])
        )));
    }
    if rng.happens(if computes { 15 } else { 1 }) {
        line.extend(words(&format!("--workers {}", rng.pick(&["0", "1", "3", "-1"]))));
    }
    if rng.happens(4) {
        line.extend(words(rng.pick(&[
            "--device cpu",
            "--device cuda",
            "--device x",
            "--no-such",
            "--help",
            "--version",
        ])));
    }
    if rng.happens(70) {
        line.push("--json".into());
    }
    if rng.happens(30) {
        line.push("--quiet".into());
    }
    line
}

fn data(rng: &mut Rng) -> &'static str {
    match rng.happens(85) {
        true => rng.pick(DATA),
        false => rng.pick(&[
            "arrays,pictures",
            "arrays/a",
            "arrays/{a,b}",
            "arrays/*/*.npy",
            "arrays/a/0.npy",
            "no-such",
            "",
            ",",
            "vit",
            "vit.toml",
            "labels-idx1-ubyte",
            "shard-{000..999999999}.tar",
            "{9..1}",
            "shard.tar,shard.tar",
            "[",
            ".",
        ]),
    }
}

/// Weights, and what is none.
pub(crate) fn from(rng: &mut Rng) -> &'static str {
    match rng.happens(70) {
        true => rng.pick(RUNS),
        false => rng.pick(&[
            "scratch",
            "tuned/best.safetensors",
            "vit/checkpoints/step-2",
            "vit/checkpoints/step-4/model.safetensors",
            "vit/checkpoints/step-4/optimizer.safetensors",
            "tok/tokenizer.safetensors",
            "palette.safetensors",
            "arrays",
            "no-such",
            "vit.toml",
            "",
        ]),
    }
}

fn out(rng: &mut Rng) -> &'static str {
    match rng.happens(85) {
        true => "new",
        false => rng.pick(&["new/deep/down", "vit", "tok", "arrays", "vit.toml", "vit.toml/new", "", "."]),
    }
}

fn image(rng: &mut Rng) -> &'static str {
    match rng.happens(80) {
        true => rng.pick(&["arrays/a/0.npy", "pictures/a/0.jpg", "pictures/b/1.png", "arrays/b/3.npy"]),
        false => rng.pick(&["no-such.png", "vit.toml", "arrays", "", "shard.tar"]),
    }
}

fn channels(rng: &mut Rng) -> &'static str {
    rng.pick(&["1", "1", "3", "4", "2", "5", "0", "1000000000000", "x"])
}

/// The words of a line.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
