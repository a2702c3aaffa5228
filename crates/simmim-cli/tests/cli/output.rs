//! Output of the command: results on stdout, progress on stderr, one JSON object with `--json`, and help texts.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::{Map, Value};

use super::support::{fashion, json, photos, pretrain, repository, run, scratch, simmim, succeeds, text};

#[track_caller]
fn has_keys(object: &Map<String, Value>, keys: &[&str]) {
    for key in keys {
        assert!(object.get(*key).is_some_and(|value| !value.is_null()), "`{key}` in {object:?}");
    }
}

#[test]
fn pretrain_says_how_it_went() {
    let (_folder, out) = scratch();
    let mut command = pretrain(&fashion(), &out, &[]);
    command.args(["--val", &fashion(), "--json"]);
    let ran = succeeds(command);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
    let result: Map<String, Value> = serde_json::from_str(ran.stdout.trim()).unwrap();
    has_keys(&result, &["steps", "loss", "val_loss", "images_per_second", "skipped_images", "checkpoint"]);
    assert_eq!((&result["steps"], &result["skipped_images"]), (&4.into(), &0.into()));
    assert!(fs::metadata(result["checkpoint"].as_str().unwrap()).unwrap().is_dir());
    assert!(ran.stderr.contains("loss"), "{}", ran.stderr);

    for name in ["recipe.toml", "resolved.toml", "log.jsonl", "report.html"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let names =
        |folder: &str| fs::read_dir(out.join(folder)).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert!(names("").iter().any(|name| name.to_string_lossy().starts_with("events.out.tfevents")));
    assert!(!names("pictures").is_empty());
    assert_eq!(names("checkpoints/step-4").len(), 4);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && !page.contains("src=\"http"), "the page holds its pictures");
}

#[test]
fn a_run_can_be_repeated_from_the_recipe_it_wrote() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let printed = succeeds(simmim(["recipes", "demo", "--set", "encoder.width=16"])).stdout;
    let file = folder.path().join("mine.toml");
    fs::write(&file, printed).unwrap();
    let described = json(simmim(["inspect", &text(&file)]));
    assert_eq!(described["recipe"]["encoder"]["width"], 16);
}

#[test]
fn quiet_is_silent() {
    let (_folder, out) = scratch();
    let mut command = pretrain(&fashion(), &out, &[]);
    command.args(["--quiet", "--json"]);
    let ran = succeeds(command);
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn demo_says_how_it_went() {
    let (_folder, out) = scratch();
    let mut command = simmim(["demo", "--set", "train.max_steps=3", "--set", "encoder.depth=1", "--out"]);
    command.arg(&out);
    let result = json(command);
    has_keys(&result, &["masked_l1", "mean_color_l1", "top1_pretrained", "top1_scratch", "report"]);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("from scratch") && page.contains("Predictions"));
    assert!(fs::metadata(result["report"].as_str().unwrap()).unwrap().is_file());
}

#[test]
fn inspect_knows_runs_weights_checkpoints_recipes_and_data() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let inspect = |what: &str| json(simmim(["inspect", what]));

    let of_run = inspect(&text(&out));
    has_keys(&of_run, &["parameters", "steps", "loss", "checkpoints"]);
    assert_eq!(of_run["steps"], 4);
    let of_weights = inspect(&text(&out.join("checkpoints/step-4/model.safetensors")));
    assert_eq!(of_weights["parameters"], of_run["parameters"]);
    assert_eq!(of_weights["tensors"]["encoder.mask_token"], serde_json::json!([1, 1, 16]));
    assert_eq!(inspect(&text(&out.join("checkpoints/step-4"))), of_weights);

    let of_recipe = inspect("pretrain-vit-b16-224");
    has_keys(&of_recipe, &["parameters", "gflops_per_image"]);
    let file = folder.path().join("mine.toml");
    fs::write(&file, "extends = \"demo\"\n[encoder]\nwidth = 16\n").unwrap();
    assert_eq!(inspect(&text(&file))["recipe"]["encoder"]["width"], 16);

    let of_data = inspect(&photos());
    assert_eq!((&of_data["images"], &of_data["unreadable"]), (&3.into(), &serde_json::json!([])));
    let of_classes = inspect(&fashion());
    assert_eq!(of_classes["classes"].as_object().unwrap().len(), 10);
    let with_broken = folder.path().join("data");
    super::support::fill(&with_broken, 2);
    super::support::broken_image(&with_broken.join("half.jpg"));
    let found = inspect(&text(&with_broken));
    assert_eq!(found["images"], 3);
    assert!(found["unreadable"][0]["name"].as_str().unwrap().ends_with("half.jpg"), "{found:?}");
}

#[test]
fn recipes_lists_and_prints_what_is_built_in() {
    let names = json(simmim(["recipes"]));
    let listed = succeeds(simmim(["recipes"])).stdout;
    for name in names["recipes"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        assert!(listed.lines().any(|line| line.starts_with(name)), "{name}");
        let text = succeeds(simmim(["recipes", name])).stdout;
        assert_eq!(text, fs::read_to_string(repository(&format!("recipes/{name}.toml"))).unwrap());
    }
}

#[test]
fn every_command_helps() {
    let common = ["--device", "--precision", "--threads", "--seed", "--set", "--json", "--quiet"];
    for (command, options) in [
        ("demo", &["--out"][..]),
        ("pretrain", &["--recipe", "--data", "--val", "--out", "--workers"]),
        ("finetune", &["--from", "--recipe", "--data", "--val", "--out", "--workers"]),
        ("probe", &["--from", "--data", "--val", "--layer", "--rates", "--cache"]),
        ("knn", &["--from", "--data", "--val", "--layer", "--k", "--temperature"]),
        ("evaluate", &["--from", "--data"]),
        ("reconstruct", &["--from", "--out", "IMAGE"]),
        ("inspect", &["RUN|FILE|RECIPE|DATA", "--channels", "--html", "--workers"]),
        ("recipes", &["NAME"]),
    ] {
        let help = succeeds(simmim([command, "--help"])).stdout;
        for option in common.iter().chain(options) {
            assert!(help.contains(option), "{option} in the help of {command}");
        }
    }
    let help = succeeds(simmim(["--help"])).stdout;
    assert!(["demo", "pretrain", "reconstruct", "inspect", "recipes"].iter().all(|command| help.contains(command)));
    assert!(succeeds(simmim(["--version"])).stdout.starts_with("simmim "));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut command = simmim(["recipes", "pretrain-vit-b16-224", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    child.wait().unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn colors_and_bars_stay_out_of_files() {
    let (_folder, out) = scratch();
    let ran = run(pretrain(&fashion(), &out, &[]));
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains('\r'), "{:?}", ran.stderr);
}
