//! A run that is stopped within an evaluation ends soon, and goes on with what was left of it: with the numbers and the weights
//! of a run that was never stopped.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use serde_json::{Map, Value};
use simmim::precision::PrecisionChoice;
use simmim::recipe::{FinetuneRecipe, Recipe, RecipeKind, resolve_as};
use simmim::run::read_log;
use simmim::train::{Event, Input, Options, Outcome, finetune, pretrain};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_data::Subset;
use simmim_engine::Alone;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/fashion-mnist/test-images-idx3-ubyte.gz");
const DEVICE: CpuDevice = CpuDevice { threads: 2 };

fn options<R: RecipeKind>(recipe: &str, edits: &[String], out: &Path) -> Options<R> {
    let small = ["encoder.width=32", "encoder.depth=2", "train.batch_size=16", "train.max_steps=12"];
    let every = ["train.validate_every_steps=4", "train.checkpoint_every_steps=6"];
    let edits: Vec<String> =
        small.iter().chain(&every).map(|edit| (*edit).to_owned()).chain(edits.iter().cloned()).collect();
    let source = simmim_data::open(DATA, 1).unwrap();
    let half = source.len() / 2;
    let part = |first: usize| Input {
        source: Arc::new(Subset::of(Arc::clone(&source), (first..first + half).collect())),
        description: format!("from {first}"),
    };
    Options {
        recipe: resolve_as(recipe, &edits).unwrap(),
        given: String::new(),
        data: part(0),
        val: Some(part(half)),
        out: out.to_owned(),
        seed: 0,
        precision: PrecisionChoice::F32,
        workers: 1,
    }
}

/// Trains until the loss of step `until` is told, or to the end. Returns the steps at which a long evaluation gave a result.
fn train<R: RecipeKind>(
    options: &Options<R>,
    until: Option<u64>,
    run: impl Fn(&Options<R>, &mut dyn FnMut(Event), &AtomicBool) -> simmim::Result<Outcome>,
) -> (Outcome, Vec<u64>) {
    let (stop, mut evaluated) = (AtomicBool::new(false), Vec::new());
    let outcome = run(
        options,
        &mut |event| match event {
            Event::Stepped { steps, .. } if Some(steps) == until => stop.store(true, Ordering::Relaxed),
            Event::Classified { steps, .. } | Event::Monitored { steps, .. } => evaluated.push(steps),
            _ => {}
        },
        &stop,
    );
    (outcome.unwrap(), evaluated)
}

/// The log without what depends on the clock, ordered by step.
fn log(run: &Path) -> Vec<Map<String, Value>> {
    let mut entries = read_log(run).unwrap();
    for entry in &mut entries {
        for key in ["seconds", "images_per_second", "waiting_for_data", "monitor_seconds", "monitor_time_share"] {
            entry.remove(key);
        }
    }
    entries.into_iter().map(|entry| entry.into_iter().collect()).collect()
}

/// The tensors of a file of a checkpoint.
fn tensors(outcome: &Outcome, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(outcome.checkpoint.join(name)).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

/// Trains without a stop, and with one within the evaluation of step 4.
#[track_caller]
fn check<R: RecipeKind>(
    recipe: &str,
    edits: &[String],
    expected: &[u64],
    run: impl Fn(&Options<R>, &mut dyn FnMut(Event), &AtomicBool) -> simmim::Result<Outcome>,
) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let (outcome, evaluated) = train(&options(recipe, edits, &whole), None, &run);
    assert_eq!(evaluated, expected);
    let options = options(recipe, edits, &parts);
    let (stopped, before) = train(&options, Some(4), &run);
    assert_eq!((stopped.steps, before.contains(&4)), (4, false), "the evaluation of step 4 ends early");
    let (resumed, after) = train(&options, None, &run);
    assert_eq!([before, after].concat(), expected, "it is done when the run goes on");
    assert_eq!(log(&parts), log(&whole));
    assert_eq!(resumed.metrics.keys().collect::<Vec<_>>(), outcome.metrics.keys().collect::<Vec<_>>());
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(tensors(&resumed, name) == tensors(&outcome, name), "{name}");
    }
}

#[test]
fn fine_tuning_stops_within_a_classification() {
    check::<FinetuneRecipe>("finetune-demo", &["labels.fraction=1.0".into()], &[4, 8, 12], |options, observe, stop| {
        finetune(&DEVICE, &mut Alone, options, &InitFrom::Scratch, observe, stop)
    });
}

#[test]
fn pre_training_stops_within_its_second_evaluation() {
    let monitor = [
        format!("monitor.train={DATA:?}"),
        format!("monitor.val={DATA:?}"),
        "monitor.every_steps=4".into(),
        "monitor.max_images=200".into(),
    ];
    check::<Recipe>("demo", &monitor, &[0, 4, 8, 12], |options, observe, stop| {
        pretrain(&DEVICE, &mut Alone, options, &InitFrom::Scratch, observe, stop)
    });
}
