//! Jobs of several ranks, and what they leave behind.

use simmim::weights::WeightsFile;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One job at a time: several at once on few cores would only wait for each other.
static ONE_JOB: Mutex<()> = Mutex::new(());

pub(crate) fn one_job() -> MutexGuard<'static, ()> {
    ONE_JOB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small ViT with everything that could differ between ranks: drop path, micro-batches, clipping that is always active,
/// weight decay, and an average of the weights.
pub(crate) const VIT: &[&str] =
    &["encoder.width=16", "encoder.depth=2", "encoder.heads=2", "encoder.drop_path=0.2", "mask.unit_px=4"];

/// The same for Swin.
pub(crate) const SWIN: &[&str] =
    &["encoder.width=8", "encoder.depths=[2, 2]", "encoder.heads=[1, 2]", "encoder.drop_path=0.2", "mask.unit_px=4"];

pub(crate) const TRAIN: &[&str] = &[
    "train.batch_size=16",
    "train.accumulation_steps=2",
    "train.clip_grad=0.05",
    "train.weight_decay=0.1",
    "train.warmup_epochs=0.0",
    "train.base_lr=0.016",
    "train.average_decay=0.9",
    "train.log_every_steps=1",
    "data.image_size=16",
    "data.channels=1",
    "data.normalization=measured",
];

/// Arguments of `simmim pretrain` with these edits, in f32 and on one thread.
pub(crate) fn pretrain(recipe: &str, out: &Path, edits: &[&str]) -> Vec<String> {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/fashion-mnist/test-images-idx3-ubyte.gz");
    let out = out.display().to_string();
    let fixed = ["pretrain", "--recipe", recipe, "--data", data, "--out", &out];
    let common = ["--precision", "f32", "--threads", "1", "--workers", "1", "--seed", "3"];
    let edits = TRAIN.iter().chain(edits).flat_map(|edit| ["--set", edit]);
    fixed.into_iter().chain(common).chain(edits).map(str::to_owned).collect()
}

/// The command on so many ranks.
pub(crate) fn on_ranks(world: usize, arguments: &[String]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &world.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_simmim")).args(arguments).stdin(Stdio::null());
    command
}

/// The result of a job.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a job to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    end_of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Open MPI's mpirun is installed"))
}

pub(crate) fn end_of(job: Child) -> Ran {
    let output = job.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    ran
}

/// Process ids of the ranks of a job, in their order.
pub(crate) fn rank_pids(job: &Child) -> Vec<u32> {
    let mut found: Vec<(usize, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let rank = environment.split(|byte| *byte == 0).find_map(|variable| {
                std::str::from_utf8(variable).ok()?.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok()
            })?;
            (parent == job.id()).then_some((rank, pid))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}

/// Sends a signal by its name.
pub(crate) fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Steps of the checkpoints of a run, in their order.
pub(crate) fn checkpoints(out: &Path) -> Vec<u64> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten().flatten();
    let steps = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok());
    let mut steps: Vec<u64> = steps.collect();
    steps.sort_unstable();
    steps
}

/// Waits until a run has a checkpoint of this step or a later one.
#[track_caller]
pub(crate) fn wait_for_checkpoint(out: &Path, step: u64) {
    let since = Instant::now();
    while checkpoints(out).last().is_none_or(|last| *last < step) {
        assert!(since.elapsed() < Duration::from_secs(120), "no checkpoint of step {step} after 120 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The file of the last checkpoint.
pub(crate) fn last(out: &Path, file: &str) -> PathBuf {
    let step = checkpoints(out).pop().expect("the run has a checkpoint");
    out.join(format!("checkpoints/step-{step}/{file}"))
}

/// All values of a file of weights.
pub(crate) fn values(path: &Path) -> Vec<f32> {
    let file = WeightsFile::read(path).unwrap();
    file.shapes().iter().flat_map(|(name, _)| file.tensor(name).unwrap().unwrap().1).collect()
}

/// The distance of two lists of values, relative to the length of the first.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    apart / norm(&mut a.iter().map(|value| f64::from(*value)))
}
