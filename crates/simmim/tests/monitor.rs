//! The monitor of pre-training: it measures the quality of features, reports its cost, and does not change the run.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use serde_json::Value;
use simmim::precision::PrecisionChoice;
use simmim::recipe::resolve;
use simmim::run::read_log;
use simmim::train::{Input, Options, Outcome, pretrain};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_engine::Alone;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/fashion-mnist/test-images-idx3-ubyte.gz");

fn train(out: &Path, edits: &[String]) -> simmim::Result<Outcome> {
    let small = ["encoder.width=32", "encoder.depth=2", "train.batch_size=16", "train.max_steps=12"];
    let average = ["train.average_decay=0.9"]; // which evaluations exchange with the weights
    let edits: Vec<String> =
        small.iter().chain(&average).map(|edit| (*edit).to_owned()).chain(edits.iter().cloned()).collect();
    let data = Input { source: simmim_data::open(DATA, 1)?, description: "fashion".into() };
    let options = Options {
        recipe: resolve("demo", &edits)?,
        given: String::new(),
        val: Some(data.clone()),
        data,
        out: out.to_owned(),
        seed: 0,
        precision: PrecisionChoice::F32,
        workers: 1,
    };
    pretrain(&CpuDevice { threads: 2 }, &mut Alone, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false))
}

fn monitor(train: &str, val: &str) -> Vec<String> {
    vec![
        format!("monitor.train={train:?}"),
        format!("monitor.val={val:?}"),
        "monitor.every_steps=4".into(),
        "monitor.max_images=200".into(),
    ]
}

#[test]
fn features_are_evaluated_at_steps_and_the_weights_have_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (with, without) = (folder.path().join("with"), folder.path().join("without"));
    let watched = train(&with, &monitor(DATA, DATA)).unwrap();
    let plain = train(&without, &[]).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors", "average.safetensors"] {
        // the headers differ, because one of them contains the recipe of the monitor
        let tensors = |outcome: &Outcome| {
            let bytes = std::fs::read(outcome.checkpoint.join(name)).unwrap();
            let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            bytes[8 + header..].to_vec()
        };
        assert!(tensors(&watched) == tensors(&plain), "{name}");
    }
    let entries = read_log(&with).unwrap();
    let monitored: Vec<_> = entries.iter().filter(|entry| entry.contains_key("knn_top1")).collect();
    let steps: Vec<u64> = monitored.iter().map(|entry| entry["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 4, 8, 12]);
    for entry in &monitored {
        let number = |key: &str| entry.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        // the two data sets are the same, so the nearest neighbor of an image is itself; chance would be 10 %
        assert!(number("knn_top1") > 30.0 && number("probe_top1") > 30.0, "{entry:?}");
        assert!(number("rank_me") >= 1.0 && number("rank_me") <= 32.0 && number("feature_variance") > 0.0, "{entry:?}");
        assert!(number("monitor_seconds") > 0.0 && number("monitor_time_share") <= 1.0, "{entry:?}");
    }
    let page = std::fs::read_to_string(with.join("report.html")).unwrap();
    assert!(page.contains("Do the features get better?") && page.contains("nearest neighbors"));
    assert!(!std::fs::read_to_string(without.join("report.html")).unwrap().contains("Do the features get better?"));
}

#[test]
fn a_monitor_that_cannot_evaluate_is_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let refused = |edits: &[String]| train(&out, edits).err().unwrap().to_string();
    assert!(refused(&monitor("nowhere", DATA)).contains("nowhere"));
    let photos = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images");
    assert!(refused(&monitor(photos, DATA)).contains("no labels"));
    let mut edits = monitor(DATA, DATA);
    edits.push("monitor.evry_steps=3".into());
    assert!(refused(&edits).contains("unknown key `monitor.evry_steps`"));
    edits.pop();
    edits[2] = "monitor.every_steps=0".into();
    assert!(refused(&edits).contains("`monitor.every_steps` is `0`"));
    assert!(!out.exists());
}
