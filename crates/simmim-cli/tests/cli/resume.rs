//! Resumed runs end with the same bits as uninterrupted ones, however they were stopped.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::event_files::steps_by_tag;
use super::support::{
    array, checkpoints, class_folders, fails, fashion, finetune, json, log, pretrain, refuses, run, scratch, simmim,
    succeeds, tensors, text, with_default_signals,
};

const STEPS: u64 = 160;
const SAVE_EVERY: u64 = 40;

fn command(out: &Path) -> Command {
    let edits = [format!("train.max_steps={STEPS}"), format!("train.checkpoint_every_steps={SAVE_EVERY}")];
    let mut command = pretrain(&fashion(), out, &edits.each_ref().map(String::as_str));
    command.args(["--set", "encoder.drop_path=0.1", "--val", &fashion()]);
    command
}

/// Fine-tuning with all random augmentations, drop path, and an EMA of the weights.
fn finetuning(out: &Path) -> Command {
    let edits = [
        format!("train.max_steps={STEPS}"),
        format!("train.checkpoint_every_steps={SAVE_EVERY}"),
        format!("train.validate_every_steps={SAVE_EVERY}"),
        "encoder.drop_path=0.1".into(),
        "augment.mix_probability=1.0".into(),
        "augment.distortion=randaugment".into(),
        "augment.erase_probability=0.5".into(),
        "train.average_decay=0.99".into(),
    ];
    let mut command = finetune("scratch", &fashion(), out, &edits.each_ref().map(String::as_str));
    command.args(["--val", &fashion()]);
    command
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().unwrap();
    assert!(status.success());
}

/// Starts a run in `out` and sends it a signal once `step` is logged; returns its exit code. On a busy machine the run
/// may end before the signal arrives; then it is started again.
fn stopped(command: fn(&Path) -> Command, out: &Path, step: u64, name: &str) -> Option<i32> {
    for _ in 0..5 {
        let _ = fs::remove_dir_all(out);
        let mut child =
            with_default_signals(&command(out)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        let is_logged = || {
            let text = fs::read_to_string(out.join("log.jsonl")).unwrap_or_default();
            text.matches("\"loss\"").count() as u64 >= step
        };
        while !is_logged() {
            assert!(Instant::now() < deadline, "step {step} is never logged");
            assert_eq!(child.try_wait().unwrap().and_then(|status| status.code()).unwrap_or(0), 0, "the run fails");
            sleep(Duration::from_millis(1));
        }
        signal(&child, name);
        let status = child.wait().unwrap();
        if !checkpoints(out).contains(&format!("step-{STEPS}")) {
            return status.code();
        }
    }
    panic!("the run ends before it can be stopped");
}

/// Checks that the report of a run says that it has done `steps` steps.
#[track_caller]
fn reports(run: &Path, steps: u64) {
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    let expected = format!("<dt>steps</dt><dd>{steps}</dd>");
    assert!(page.contains(&expected), "{expected} in {:?}", page.split("<dt>").nth(1));
}

#[track_caller]
fn check_ends_the_same(command: fn(&Path) -> Command, stopped: &Path, whole: &Path) {
    let result = json(command(stopped));
    assert_eq!(result["steps"], STEPS);
    succeeds(command(whole));
    assert!(tensors(stopped, STEPS) == tensors(whole, STEPS), "weights or moments differ");
    assert_eq!(log(stopped), log(whole));
    let (events, of_whole) = (steps_by_tag(stopped), steps_by_tag(whole));
    assert_eq!(of_whole["loss/train"], (1..=STEPS).collect::<Vec<u64>>());
    assert_eq!(events, of_whole, "TensorBoard shows every step once");
}

#[test]
fn the_events_of_a_checkpoint_are_not_lost_and_later_ones_are_replaced() {
    let (_folder, out) = scratch();
    let train = || {
        let mut command = pretrain(&fashion(), &out, &["train.checkpoint_every_steps=2"]);
        command.args(["--val", &fashion()]);
        command
    };
    succeeds(train());
    fs::remove_dir_all(out.join("checkpoints/step-4")).unwrap();
    succeeds(train());
    succeeds(train()); // nothing is left to do
    let events = steps_by_tag(&out);
    assert_eq!((&events["loss/train"], &events["loss/held-out"]), (&vec![1, 2, 3, 4], &vec![0, 2, 4]));
}

#[test]
fn a_run_stopped_by_ctrl_c_saves_and_ends_with_the_same_bits() {
    let (folder, out) = scratch();
    assert_eq!(stopped(command, &out, 50, "INT"), Some(130));
    let newest = checkpoints(&out).into_iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max();
    assert!(newest.is_some_and(|step| step >= 50), "{newest:?}");
    reports(&out, newest.unwrap());
    check_ends_the_same(command, &out, &folder.path().join("whole"));
}

#[test]
fn a_demo_that_is_stopped_says_how_it_goes_on() {
    let (_folder, out) = scratch();
    let mut demo = simmim(["demo", "--set=train.max_steps=100000", "--set=train.log_every_steps=1", "--out"]);
    demo.arg(&out);
    let child = with_default_signals(&demo).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !fs::read_to_string(out.join("log.jsonl")).unwrap_or_default().contains("\"lr\"") {
        assert!(Instant::now() < deadline, "the first step is never logged");
        sleep(Duration::from_millis(1));
    }
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{stdout}");
    assert!(stdout.starts_with("stopped after step ") && stdout.ends_with("the same command resumes\n"), "{stdout}");
}

#[test]
fn fine_tuning_stopped_by_ctrl_c_reports_what_it_has_done() {
    let (_folder, out) = scratch();
    assert_eq!(stopped(finetuning, &out, 50, "INT"), Some(130));
    let newest = checkpoints(&out).into_iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max();
    reports(&out, newest.unwrap());
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("Confusion matrix"));
}

#[test]
fn a_run_killed_between_checkpoints_ends_with_the_same_bits() {
    let (folder, out) = scratch();
    assert_eq!(stopped(command, &out, 90, "KILL"), None);
    check_ends_the_same(command, &out, &folder.path().join("whole"));
}

#[test]
fn fine_tuning_killed_between_checkpoints_ends_with_the_same_bits() {
    let (folder, out) = scratch();
    assert_eq!(stopped(finetuning, &out, 90, "KILL"), None);
    let whole = folder.path().join("whole");
    check_ends_the_same(finetuning, &out, &whole);
    for name in ["best.safetensors", &format!("checkpoints/step-{STEPS}/average.safetensors")] {
        assert!(fs::read(out.join(name)).unwrap() == fs::read(whole.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again_with_the_same_bits() {
    let (folder, out) = scratch();
    assert_eq!(stopped(command, &out, 3, "KILL"), None);
    check_ends_the_same(command, &out, &folder.path().join("whole"));
}

#[test]
fn a_finished_run_is_not_changed() {
    let (_folder, out) = scratch();
    let train = || pretrain(&fashion(), &out, &[]);
    let first = json(train());
    let (weights, entries) = (tensors(&out, 4), log(&out));
    let second = json(train());
    assert!(tensors(&out, 4) == weights);
    assert_eq!(log(&out), entries);
    for key in ["steps", "loss", "val_loss", "skipped_images", "checkpoint"] {
        assert_eq!(first[key], second[key], "{key}");
    }
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before_it() {
    let (_folder, out) = scratch();
    let train = || pretrain(&fashion(), &out, &["train.checkpoint_every_steps=2"]);
    succeeds(train());
    assert_eq!(checkpoints(&out), ["step-2", "step-4"]);
    let (weights, entries) = (tensors(&out, 4), log(&out));
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"] {
        truncate(&out.join("checkpoints/step-4").join(name));
        let again = succeeds(train());
        let warnings: Vec<&str> = again.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("step-4"), "{name}: {}", again.stderr);
        assert!(again.stderr.contains("after step 2"), "{name}: {}", again.stderr);
        assert!(tensors(&out, 4) == weights, "{name}");
        assert_eq!(log(&out), entries, "{name}");
    }
    fs::remove_file(out.join("checkpoints/step-4/model.safetensors")).unwrap();
    succeeds(train());
    assert!(tensors(&out, 4) == weights, "a missing file");
}

#[test]
fn reconstruct_uses_the_checkpoint_before_a_damaged_one() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &["train.checkpoint_every_steps=2"]));
    let image = folder.path().join("image.npy");
    array(&image, 28, 28, 1, 0);
    let reconstruct = |to: &str| {
        let mut command = simmim(["reconstruct", "--from"]);
        command.arg(&out).arg("--out").arg(folder.path().join(to)).arg(&image);
        command
    };
    let loss = |to: &str| json(reconstruct(to))["pictures"][0]["masked_l1"].as_f64().unwrap();
    let newest = loss("newest");
    truncate(&out.join("checkpoints/step-4/model.safetensors"));
    let ran = succeeds(reconstruct("said"));
    assert!(ran.stderr.contains("step-4") && ran.stderr.contains("the checkpoint before it"), "{}", ran.stderr);
    let before = loss("before");
    assert_ne!(newest, before);
    fs::remove_dir_all(out.join("checkpoints/step-4")).unwrap();
    assert_eq!(loss("alone"), before);
}

#[test]
fn a_run_with_only_damaged_checkpoints_is_refused() {
    let (_folder, out) = scratch();
    let train = || pretrain(&fashion(), &out, &[]);
    succeeds(train());
    truncate(&out.join("checkpoints/step-4/model.safetensors"));
    refuses(train(), "step-4/model.safetensors", "");
}

#[test]
fn a_checkpoint_that_is_named_itself_is_compared_with_its_checksums() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let checkpoint = out.join("checkpoints/step-4");
    let embed = || {
        let features = text(&folder.path().join("f.npy"));
        simmim(["embed", "--from", &text(&checkpoint), "--data", &fashion(), "--out", &features])
    };
    let file = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1; // a value that is as finite as before
    fs::write(&file, bytes).unwrap();
    refuses(embed(), "does not match its manifest", "");
    fs::remove_file(checkpoint.join("manifest.json")).unwrap();
    succeeds(embed());
}

#[test]
fn a_run_in_use_is_refused_to_a_second_process() {
    let (_folder, out) = scratch();
    let mut first = pretrain(&fashion(), &out, &["train.max_steps=1000000", "train.log_every_steps=1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !out.join("log.jsonl").exists() {
        sleep(Duration::from_millis(5));
    }
    let second = run(pretrain(&fashion(), &out, &["train.max_steps=1000000", "train.log_every_steps=1000"]));
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("in use"), "{second:?}");
}

#[test]
fn images_that_were_replaced_are_named() {
    let (folder, out) = scratch();
    let at = |name: &str| folder.path().join(name);
    class_folders(&at("first"), &["a"], 12);
    class_folders(&at("second"), &["x", "b"], 6); // as many, but for half of them others
    class_folders(&at("val"), &["a"], 3);
    let resumed = |data: &str, val: &str| {
        let mut command = pretrain(&text(&at(data)), &out, &[]);
        command.arg("--val").arg(at(val));
        succeeds(command).stderr
    };
    let warnings = |stderr: &str| {
        stderr.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(warnings(&resumed("first", "val")).is_empty());
    assert!(warnings(&resumed("first", "val")).is_empty(), "the same images");
    fs::rename(at("first"), at("moved")).unwrap();
    assert!(warnings(&resumed("moved", "val")).is_empty(), "the same images elsewhere");

    let found = warnings(&resumed("second", "val"));
    let names =
        |line: &str, names: [&str; 2]| names.iter().all(|name| line.contains(&format!("`{}`", text(&at(name)))));
    assert!(found.len() == 1 && names(&found[0], ["first", "second"]), "{found:?}");
    fs::rename(at("second"), at("first")).unwrap();
    let found = warnings(&resumed("first", "val"));
    assert!(found.len() == 1 && found[0].contains("the training images of `"), "{found:?}");
    let found = warnings(&resumed("moved", "first"));
    assert!(found.len() == 1 && found[0].contains("held-out") && names(&found[0], ["val", "first"]), "{found:?}");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint() {
    let (_folder, out) = scratch();
    let edits = ["train.base_lr=1e30", "train.clip_grad=0.0", "train.checkpoint_every_steps=1", "train.max_steps=40"];
    let ran = fails(pretrain(&fashion(), &out, &edits), 1, "step ");
    assert!(ran.stderr.contains("lower `train.base_lr`"), "{}", ran.stderr);
    assert!(!checkpoints(&out).is_empty());
}
