//! Random use: commands, options, recipe values, broken files, signals, full disks and more, drawn by a seed.
//!
//! The test suite makes a few runs. `SIMMIM_RANDOM_USE="seed=7 runs=5000" cargo test --release -p simmim-cli --test
//! random_use -- --nocapture` makes many; `first=N runs=1` repeats one of them, `folder=PATH` keeps its files, and
//! `small_disk=PATH` is an empty folder on a disk of some megabytes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it claims")]

mod damage;
mod draw;
mod edits;
mod judge;
mod process;
mod rng;
mod scenario;
mod world;

use rng::Rng;
use scenario::Scenario;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// How often the command is used, and where.
#[derive(Debug)]
struct Settings {
    seed: u64,
    first: u64,
    runs: u64,
    folder: Option<PathBuf>,
    small_disk: Option<PathBuf>,
}

impl Settings {
    fn of(text: &str) -> Self {
        let mut settings = Self { seed: 0, first: 0, runs: 50, folder: None, small_disk: None };
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "seed" => settings.seed = value.parse().unwrap(),
                "first" => settings.first = value.parse().unwrap(),
                "runs" => settings.runs = value.parse().unwrap(),
                "folder" => settings.folder = Some(value.into()),
                "small_disk" => settings.small_disk = Some(value.into()),
                other => panic!("SIMMIM_RANDOM_USE has no `{other}`"),
            }
        }
        settings
    }
}

#[test]
fn whatever_is_typed_sent_or_broken_ends_in_a_result_or_a_message() {
    let settings = Settings::of(&std::env::var("SIMMIM_RANDOM_USE").unwrap_or_default());
    let temporary = tempfile::tempdir().unwrap();
    let root = settings.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let inputs = root.join("inputs");
    fs::create_dir_all(&inputs).unwrap();
    world::make(&inputs);
    let started = std::time::Instant::now();
    let (mut faulty, mut ends) = (Vec::new(), BTreeMap::new());
    for number in settings.first..settings.first + settings.runs {
        let folder = root.join(number.to_string());
        world::copy(&inputs, &folder);
        let mut scenario = Scenario {
            folder,
            small_disk: settings.small_disk.as_deref(),
            rng: Rng::new(settings.seed, number),
            story: Vec::new(),
            faults: Vec::new(),
            ends,
        };
        scenario.play();
        ends = std::mem::take(&mut scenario.ends);
        if settings.folder.is_none() {
            fs::remove_dir_all(&scenario.folder).unwrap();
        }
        if !scenario.faults.is_empty() {
            let story = scenario.story.join("\n  ");
            let again = format!("SIMMIM_RANDOM_USE=\"seed={} first={number} runs=1\"", settings.seed);
            eprintln!("fault of {again}\n  {story}\n{}\n", scenario.faults.join("\n"));
            faulty.push(number);
        }
    }
    let Settings { seed, runs, .. } = settings;
    println!(
        "{runs} runs of seed {seed} in {:.0?}, calls by their ends {ends:?}, faults in {faulty:?}",
        started.elapsed()
    );
    assert!(faulty.is_empty(), "faults in {} of {runs} runs: {faulty:?}", faulty.len());
}
