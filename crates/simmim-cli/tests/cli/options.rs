//! Nothing is ignored: an option or a key that a command does not use is refused, and one that it can use is applied.

use super::support::{array, broken_image, class_folders, fashion, finetune, json, pretrain, refuses, run, scratch};
use super::support::{simmim, succeeds, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn an_option_that_a_command_does_not_use_is_refused_with_those_that_do() {
    let (folder, _) = scratch();
    let out = text(&folder.path().join("out"));
    for (arguments, option) in [
        (&["recipes", "--seed=1"][..], "--seed"),
        (&["recipes", "demo", "--threads=2"], "--threads"),
        (&["recipes", "--device=cpu"], "--device"),
        (&["inspect", "demo", "--precision=f32"], "--precision"),
        (&["inspect", "demo", "--seed=1"], "--seed"),
        (&["inspect", "demo", "--channels=1"], "--channels"),
        (&["masks", "--threads=1", "--out", &out], "--threads"),
        (&["palette", "--precision=bf16", "--data", "d", "--out", &out], "--precision"),
        (&["evaluate", "--seed=1", "--from", "run", "--data", "d"], "--seed"),
        (&["bench", "--peak", "--seed=1"], "--seed"),
        (&["bench", "--adamw=10", "--precision=f32"], "--precision"),
        (&["bench", "--data=images", "--precision=f32"], "--precision"),
        (&["bench", "--data=images", "--device=cpu"], "--device"),
    ] {
        let ran = refuses(simmim(arguments), option, "");
        assert!(ran.stderr.contains(&format!("changes nothing in `simmim {}", arguments[0])), "{}", ran.stderr);
    }
    refuses(simmim(["recipes", "--seed=1"]), "`--seed` changes nothing in `simmim recipes`", "pretrain, finetune");
    // those that exclude each other are refused as a wrong usage
    let excluded =
        [["bench", "--peak", "--steps=3"], ["bench", "--adamw", "--recipe=demo"], ["bench", "--data=d", "--peak"]];
    for arguments in excluded {
        assert_eq!(run(simmim(arguments)).code, Some(2), "{arguments:?}");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn an_edit_that_a_command_does_not_use_is_refused() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let picture = folder.path().join("image.npy");
    array(&picture, 28, 28, 1, 0);
    let (run, picture) = (text(&out), text(&picture));
    let pictures = text(&folder.path().join("pictures"));
    let reconstruct = ["reconstruct", "--from", &run, "--out", &pictures, &picture];
    let check = |arguments: &[&str], edit: &str| {
        let mut command = simmim(arguments);
        command.args(["--set", edit]);
        refuses(command, &format!("`--set {edit}` changes nothing in `simmim {}", arguments[0]), "");
    };
    check(&reconstruct, "train.epochs=3");
    check(&reconstruct, "nonsense.key=1");
    check(&[&reconstruct[..], &["--mask=random"]].concat(), "mask.strategy=square");
    check(&[&reconstruct[..], &["--mask-box=0,0,8,8"]].concat(), "mask.ratio=0.5");
    check(&["evaluate", "--from", &run, "--data", &fashion()], "mask.ratio=0.05");
    check(&["knn", "--from", &run, "--data", &fashion(), "--val", &fashion()], "mask.ratio=0.05");
    check(&["probe", "--from", &run, "--data", &fashion(), "--val", &fashion()], "train.epochs=3");
    check(&["masks", "--out", &pictures], "train.epochs=3");
    check(&["palette", "--data", &fashion(), "--out", &pictures], "target.clusters=4");
    check(&["inspect", &run], "mask.ratio=0.05");
    check(&["recipes"], "mask.ratio=0.05");
    check(&["bench", "--peak"], "mask.ratio=0.05");
    check(&["bench"], "train.log_every_steps=2");
    check(&["bench", "--data=d"], "encoder.width=16");
    let mut normalized = simmim(["knn", "--from", &run, "--data", &fashion(), "--val", &fashion()]);
    normalized.args(["--set", "data.normalization=none"]);
    refuses(normalized, "normalized as in the training", "");
    let mut unknown = simmim(reconstruct);
    unknown.args(["--set", "mask.rati=0.5"]);
    refuses(unknown, "unknown key `mask.rati`", "`mask.ratio`");
    assert!(!Path::new(&pictures).exists());
}

/// The JSON of a command with one more edit.
fn with(arguments: &[&str], edit: Option<&str>) -> Value {
    let mut command = simmim(arguments);
    command.args(edit.map(|edit| format!("--set={edit}")));
    Value::Object(json(command))
}

#[test]
fn an_edit_that_makes_sense_is_applied_to_the_recipe_that_weights_carry() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let picture = folder.path().join("image.npy");
    array(&picture, 28, 28, 1, 0);
    let (from, picture) = (text(&out), text(&picture));
    let pictures = text(&folder.path().join("pictures"));
    let reconstruct = ["reconstruct", "--from", &from, "--out", &pictures, &picture];
    let picture_with = |edit: Option<&str>| {
        let result = with(&reconstruct, edit);
        (result["pictures"][0]["mean_color_l1"].clone(), fs::read(folder.path().join("pictures/image.png")).unwrap())
    };
    let as_trained = picture_with(None);
    assert!(picture_with(Some("mask.ratio=0.6")) == as_trained, "the recipe's own value");
    for edit in ["mask.ratio=0.05", "mask.strategy=square"] {
        assert!(picture_with(Some(edit)) != as_trained, "{edit}");
    }

    let tuned = text(&folder.path().join("tuned"));
    succeeds(finetune("scratch", &fashion(), Path::new(&tuned), &[]));
    let loss = |edit| with(&["evaluate", "--from", &tuned, "--data", &fashion()], edit)["loss"].clone();
    assert_ne!(loss(Some("evaluate.crop=0.3")), loss(None));
    assert_eq!(loss(Some("evaluate.crop=0.3")), loss(Some("evaluate.crop=0.3")));

    let data = folder.path().join("data");
    class_folders(&data, &["dark", "light"], 3);
    let data = text(&data);
    let kept = folder.path().join("kept");
    let knn = ["knn", "--k=1", "--from", &from, "--data", &data, "--val", &data, "--cache", &text(&kept)];
    with(&knn, None);
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    with(&knn, Some("data.image_size=16"));
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 2, "features of another size");
    let scratch = ["knn", "--k=1", "--from=scratch", "--recipe=demo", "--data", &data, "--val", &data];
    with(&scratch, Some("encoder.depth=1"));
}

#[test]
fn reconstruct_makes_all_pictures_that_it_can_and_reports_the_others() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let at = |name: &str| folder.path().join(name);
    for name in ["a.npy", "d.npy"] {
        array(&at(name), 28, 28, 1, 0);
    }
    array(&at("channels.npy"), 28, 28, 5, 0);
    broken_image(&at("half.jpg"));
    let reconstruct = |names: &[&str], option: &str| -> Command {
        let mut command = simmim(["reconstruct", "--from", &text(&out), option, "--out"]);
        command.arg(at("pictures")).args(names.iter().map(|name| at(name)));
        command
    };
    let names = ["a.npy", "half.jpg", "absent.png", "channels.npy", "d.npy"];
    let ran = run(reconstruct(&names, "--json"));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let result: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    let made: Vec<&str> = result["pictures"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert_eq!(made, ["a.png", "d.png"].map(|name| text(&at("pictures").join(name))));
    assert!(made.iter().all(|path| Path::new(path).is_file()));
    let failed: Vec<String> =
        result["failed"].as_array().unwrap().iter().map(|f| f["image"].as_str().unwrap().into()).collect();
    assert_eq!(failed, names[1..4].iter().map(|name| text(&at(name))).collect::<Vec<_>>());
    assert_eq!(ran.stderr.matches("error: ").count(), 3, "{}", ran.stderr);
    assert!(run(reconstruct(&names, "--quiet")).stdout.lines().count() == 2);
    // a picture that cannot be written is the machine's fault, and the others are made
    fs::remove_dir_all(at("pictures")).unwrap();
    fs::create_dir_all(at("pictures/a.png/in-the-way")).unwrap();
    assert_eq!(run(reconstruct(&names, "--quiet")).code, Some(1));
    assert!(at("pictures/d.png").is_file());
    assert_eq!(succeeds(reconstruct(&["d.npy"], "--quiet")).stdout.lines().count(), 1);
}

/// A build without MPI would start a run for each process, all in one folder.
#[cfg(not(feature = "mpi"))]
#[test]
fn several_processes_are_refused_by_a_build_that_cannot_use_them() {
    let (_folder, out) = scratch();
    let started = |variables: &[(&str, &str)]| {
        let mut command = pretrain(&fashion(), &out, &[]);
        command.envs(variables.iter().copied());
        command
    };
    let hint = "--features mpi";
    for first in [
        &[("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "0")][..],
        &[("PMI_SIZE", "2"), ("PMI_RANK", "0")],
        &[("SLURM_NTASKS", "2"), ("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "0")],
    ] {
        refuses(started(first), "2 processes were started together", hint);
    }
    let second = run(started(&[("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")]));
    assert_eq!((second.code, second.stderr.as_str()), (Some(2), ""), "one of them says it");
    assert!(!out.exists());
    // a batch script, and a launcher of one process
    succeeds(started(&[("SLURM_NTASKS", "2")]));
    succeeds(started(&[("OMPI_COMM_WORLD_SIZE", "1")]));
}
