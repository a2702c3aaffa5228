//! Devices that are not there, and runs that go on on another backend.

use crate::support::{fashion, json, losses, pretrain, refuses, scratch, simmim, succeeds};
use std::path::Path;
use std::process::Command;

/// A command on another device than the one that is tested.
fn on(device: &str, command: &Command) -> Command {
    let others = command.get_args().filter(|argument| !argument.to_string_lossy().starts_with("--device="));
    let mut other = Command::new(command.get_program());
    other.args(others).arg(format!("--device={device}"));
    other
}

#[test]
fn devices_that_are_not_there_are_refused_before_anything_is_written() {
    let (_folder, run) = scratch();
    let command = pretrain(&fashion(), &run, &[]);
    for (device, error, hint) in [
        ("cuda:x", "there is no device `cuda:x`", "libtorch-cpu"),
        ("tpu", "there is no device `tpu`", "libtorch-cpu"),
        ("cuda:99", "device `cuda:99`: ", "GPU"),
    ] {
        refuses(on(device, &command), error, hint);
    }
    if cfg!(not(target_os = "macos")) {
        refuses(on("mps", &command), "was built without MPS", "Macs");
    }
    assert!(!run.exists());
}

#[test]
fn the_benchmark_names_the_device() {
    let result = json(simmim(["bench", "--peak"]));
    assert_eq!(result["device"], "libtorch-cpu");
    assert!(result["peak_gflops"].as_f64().unwrap() > 0.0);
}

/// The losses of a run of eight steps, four on each of two devices.
fn losses_on(folder: &Path, devices: [&str; 2]) -> Vec<f64> {
    let run = folder.join(devices.join("-"));
    let edits = ["train.max_steps=8", "train.checkpoint_every_steps=4", "encoder.drop_path=0.1"];
    let train = |device: &str| {
        let mut command = on(device, &pretrain(&fashion(), &run, &edits));
        command.args(["--precision", "f32"]);
        succeeds(command)
    };
    train(devices[0]);
    std::fs::remove_dir_all(run.join("checkpoints/step-8")).unwrap();
    let resumed = train(devices[1]);
    assert!(resumed.stderr.contains("after step 4"), "{resumed:?}");
    losses(&run)
}

#[test]
fn blocks_that_are_recomputed_give_the_same_losses() {
    let (folder, _) = scratch();
    let losses = ["false", "true"].map(|recompute| {
        let run = folder.path().join(recompute);
        let edits = [&format!("train.recompute_blocks={recompute}"), "encoder.depth=3", "encoder.drop_path=0.2"];
        let mut command = pretrain(&fashion(), &run, &edits);
        command.args(["--precision", "f32"]);
        succeeds(command);
        losses(&run)
    });
    for (a, b) in losses[0].iter().zip(&losses[1]) {
        // blocks share a bias table, whose gradient is summed in another order
        assert!((a - b).abs() < 1e-5 * a.abs(), "{losses:?}");
    }
}

#[test]
fn a_run_goes_on_on_the_other_backend_with_the_same_losses_up_to_rounding() {
    let (folder, _) = scratch();
    let runs = [["cpu", "cpu"], ["libtorch-cpu", "libtorch-cpu"], ["cpu", "libtorch-cpu"], ["libtorch-cpu", "cpu"]];
    let losses = runs.map(|devices| losses_on(folder.path(), devices));
    assert_eq!(losses[0].len(), 8);
    for (devices, of_run) in runs.iter().zip(&losses) {
        for (step, (a, b)) in losses[0].iter().zip(of_run).enumerate() {
            // another order of sums: rounding errors of f32, which grow over eight steps
            assert!((a - b).abs() < 1e-4 * a.abs(), "step {} on {devices:?}: {b}, on the CPU alone {a}", step + 1);
        }
    }
}
