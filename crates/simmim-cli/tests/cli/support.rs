//! Helpers that run the binary, and small inputs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

/// A file of the repository.
pub(crate) fn repository(path: &str) -> String {
    format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A thousand labeled grayscale images of 28 × 28 pixels.
pub(crate) fn fashion() -> String {
    repository("assets/fashion-mnist/test-images-idx3-ubyte.gz")
}

/// A folder of three photos.
pub(crate) fn photos() -> String {
    repository("testdata/images")
}

/// Edits that make the recipe of the demo tiny.
const TINY: &[&str] = &[
    "encoder.width=16",
    "encoder.depth=1",
    "encoder.heads=2",
    "train.batch_size=8",
    "train.max_steps=4",
    "train.log_every_steps=1",
];

/// The command with these arguments and, if it computes, one thread, because tests run in parallel, on the device that is
/// tested.
pub(crate) fn simmim<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simmim"));
    let arguments: Vec<S> = arguments.into_iter().collect();
    let first = arguments.first().map(|first| first.as_ref().to_owned());
    let computes = first.is_some_and(|first| {
        !["masks", "palette", "inspect", "import", "export", "recipes"].iter().any(|c| first == **c)
    });
    let device = crate::DEVICE.filter(|_| computes).map(|device| format!("--device={device}"));
    command.args(computes.then_some("--threads=1")).args(device).args(arguments).stdin(Stdio::null());
    command
}

/// The same command with another number of compute threads.
pub(crate) fn on_threads(threads: usize, command: &Command) -> Command {
    let mut other = Command::new(command.get_program());
    other.arg(format!("--threads={threads}")).args(command.get_args().skip(1)).stdin(Stdio::null());
    other
}

/// The same command with no signal ignored from its start, so that a test may send it some even where the tests
/// themselves run in the background or under `nohup`.
pub(crate) fn with_default_signals(command: &Command) -> Command {
    if !cfg!(target_os = "linux") {
        return on_threads(1, command);
    }
    let mut wrapped = Command::new("env");
    wrapped.arg("--default-signal=INT,HUP,TERM").arg(command.get_program()).args(command.get_args());
    wrapped.stdin(Stdio::null());
    wrapped
}

/// `simmim pretrain` with the tiny recipe and more edits.
pub(crate) fn pretrain(data: &str, out: &Path, edits: &[&str]) -> Command {
    let mut command = simmim(["pretrain", "--recipe", "demo", "--data", data, "--out"]);
    command.arg(out);
    for edit in TINY.iter().chain(edits) {
        command.args(["--set", edit]);
    }
    command
}

/// `simmim finetune` with the tiny recipe of the demo, all labels, and more edits.
pub(crate) fn finetune(from: &str, data: &str, out: &Path, edits: &[&str]) -> Command {
    let mut command = simmim(["finetune", "--from", from, "--recipe", "finetune-demo", "--data", data, "--out"]);
    command.arg(out);
    for edit in TINY.iter().chain(&["labels.fraction=1.0", "train.validate_every_steps=2"]).chain(edits) {
        command.args(["--set", edit]);
    }
    command
}

/// Writes `count` grayscale pictures per class into sub-folders; classes differ in brightness.
pub(crate) fn class_folders(folder: &Path, classes: &[&str], count: usize) {
    for (class, name) in classes.iter().enumerate() {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            let value = |x: u32, y: u32| {
                image::Luma([(class * 200 / classes.len()) as u8 + ((x * y + number as u32) % 40) as u8])
            };
            image::GrayImage::from_fn(28, 28, value).save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
}

/// The result of a process.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn succeeds(command: Command) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

/// Runs a command that must succeed with `--json`; returns the object on the last line of stdout.
#[track_caller]
pub(crate) fn json(mut command: Command) -> Map<String, Value> {
    command.arg("--json");
    let ran = succeeds(command);
    let last = ran.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Runs a command with invalid input: exit code 2, nothing on stdout, one error that contains `error`, one hint that
/// contains `hint`.
#[track_caller]
pub(crate) fn refuses(command: Command, error: &str, hint: &str) -> Ran {
    let ran = fails(command, 2, error);
    let hints: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(hints.len() == 1 && hints[0].contains(hint), "expected a hint with {hint:?} in {}", ran.stderr);
    ran
}

/// Runs a command that must fail with `code` and one error that contains `error`.
#[track_caller]
pub(crate) fn fails(command: Command, code: i32, error: &str) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(code), "{ran:?}");
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(error), "expected an error with {error:?} in {}", ran.stderr);
    assert_eq!(ran.stdout, "", "{ran:?}");
    ran
}

/// The log of a run without keys that depend on time.
pub(crate) fn log(run: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let entry = |line: &str| {
        let mut entry: Map<String, Value> = serde_json::from_str(line).unwrap();
        entry.remove("seconds");
        entry.remove("images_per_second");
        entry.remove("waiting_for_data");
        entry
    };
    text.lines().map(entry).collect()
}

/// The losses in the log of a run.
pub(crate) fn losses(run: &Path) -> Vec<f64> {
    log(run).iter().filter_map(|entry| entry.get("loss")?.as_f64()).collect()
}

/// The bytes of the weights and of the optimizer state of a checkpoint.
pub(crate) fn tensors(run: &Path, step: u64) -> [Vec<u8>; 2] {
    let folder = run.join("checkpoints").join(format!("step-{step}"));
    ["model.safetensors", "optimizer.safetensors"].map(|name| fs::read(folder.join(name)).unwrap())
}

/// The names of a run's checkpoints, sorted.
pub(crate) fn checkpoints(run: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// Copies one of the photos `count` times into `folder`.
pub(crate) fn fill(folder: &Path, count: usize) {
    fs::create_dir_all(folder).unwrap();
    for number in 0..count {
        fs::copy(format!("{}/tools-hammer5.jpg", photos()), folder.join(format!("good-{number}.jpg"))).unwrap();
    }
}

/// Writes a truncated JPEG.
pub(crate) fn broken_image(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let whole = fs::read(format!("{}/tools-hammer5.jpg", photos())).unwrap();
    fs::write(path, &whole[..200]).unwrap();
}

/// Writes a `.npy` array `[height, width, channels]` of bytes, with a different gradient in every channel.
pub(crate) fn array(path: &Path, height: usize, width: usize, channels: usize, seed: usize) {
    let shape = format!("({height}, {width}, {channels})");
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    for at in 0..height * width * channels {
        let (pixel, channel) = (at / channels, at % channels);
        bytes.push(((pixel / width * (channel + 1) + pixel % width * (seed + 1)) * 5 % 256) as u8);
    }
    fs::write(path, bytes).unwrap();
}

/// Writes a square `.npy` array of floats, row by row.
pub(crate) fn array_of_floats(path: &Path, side: usize, value: impl Fn(usize) -> f32) {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({side}, {side}), }}");
    let header = format!("{header:117}\n"); // with what is before it 128 bytes, a multiple of 64
    let values = (0..side * side).flat_map(|at| value(at).to_le_bytes());
    let start = [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    fs::write(path, start.into_iter().chain(values).collect::<Vec<u8>>()).unwrap();
}

/// A path inside a temporary folder, as text.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A temporary folder, and a path for a run in it.
pub(crate) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    (folder, run)
}
