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
fn a_program_without_its_other_half_says_so() {
    let (folder, _) = scratch();
    let alone = folder.path().join("simmim");
    std::fs::copy(env!("CARGO_BIN_EXE_simmim"), &alone).unwrap();
    let mut command = Command::new(&alone);
    command.arg("recipes");
    refuses(command, "simmim-libtorch` cannot be started", "beside this program");
    // under the other's name it would start itself forever
    let renamed = folder.path().join("simmim-libtorch");
    std::fs::rename(&alone, &renamed).unwrap();
    let mut command = Command::new(&renamed);
    command.arg("recipes");
    refuses(command, "it is this program", "beside this program");
}

#[test]
fn what_a_device_does_not_have_is_refused() {
    let (_folder, run) = scratch();
    let command = pretrain(&fashion(), &run, &[]);
    for (device, option, error) in [
        ("libtorch-cpu", "--tf32", "device `libtorch-cpu` has no TF32"),
        ("libtorch-cpu", "--graphs", "device `libtorch-cpu`: this libtorch has no graphs for it"),
        ("cpu", "--tf32", "`--tf32`: the device is `cpu`"),
        ("cpu", "--graphs", "`--graphs`: the device is `cpu`"),
    ] {
        let mut command = on(device, &command);
        command.arg(option);
        refuses(command, error, "leave ");
    }
    assert!(!run.exists());
    refuses(simmim(["evaluate", "--from=run", "--data=d", "--graphs"]), "`--graphs` changes nothing in", "pretrain");
}

#[test]
fn a_recipe_is_inspected_for_a_device() {
    let of_device = json(simmim(["inspect", "demo", "--device=libtorch-cpu"]));
    assert_eq!((&of_device["device"], of_device["device_images"].is_null()), (&"libtorch-cpu".into(), true));
    refuses(simmim(["inspect", &fashion(), "--device=libtorch-cpu"]), "`--device` changes nothing in", "recipes");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn commands_that_compute_nothing_load_no_library_for_gpus() {
    let loads = |arguments: &[&str]| {
        let mut command = on("auto", &simmim(arguments));
        command.env("LD_DEBUG", "files"); // glibc then says on stderr which libraries it loads
        succeeds(command).stderr.contains("libtorch_cuda")
    };
    assert!(!loads(&["inspect", "demo"]));
    assert!(!loads(&["bench", "--data", &fashion(), "--recipe=demo", "--steps=1"]));
    // which is seen where it is loaded
    assert!(loads(&["bench", "--peak"]));
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
