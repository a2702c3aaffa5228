//! Any number of ranks trains the same model.

use super::support::{SWIN, VIT, distance, last, on_ranks, one_job, pretrain, run, succeeds, values};
use serde_json::Value;
use simmim::precision::PrecisionChoice;
use simmim::recipe::{Recipe, resolve_as};
use simmim::run::read_log;
use simmim::train::{Input, Options};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_engine::InProcess;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const FILES: [&str; 2] = ["model.safetensors", "average.safetensors"];

/// Sums over ranks have another order of additions than one rank's own, so that f32 rounds otherwise. 1e-6 of the length of
/// all weights together is some 16 times the rounding of a weight, after six steps.
const ROUNDING: f64 = 1e-6;

fn losses(out: &Path) -> Vec<f64> {
    let entries = read_log(out).unwrap();
    entries.iter().filter_map(|entry| entry.get("loss").and_then(Value::as_f64)).collect()
}

/// The same run on ranks that are threads of this process.
fn in_process(recipe: &str, edits: &[&str], out: &Path, world: usize) {
    let edits: Vec<String> = super::support::TRAIN.iter().chain(edits).map(|edit| (*edit).to_owned()).collect();
    std::thread::scope(|scope| {
        for mut rank in InProcess::ranks(world) {
            let edits = &edits;
            scope.spawn(move || {
                let spec = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/fashion-mnist/test-images-idx3-ubyte.gz");
                let data = Input { source: simmim_data::open(spec, 1).unwrap(), description: spec.into() };
                let options = Options::<Recipe> {
                    recipe: resolve_as(recipe, edits).unwrap(),
                    given: String::new(),
                    val: None,
                    data,
                    out: out.to_owned(),
                    seed: 3,
                    precision: PrecisionChoice::F32,
                    workers: 1,
                };
                let device = CpuDevice { threads: 1 };
                simmim::train::pretrain(
                    &device,
                    &mut rank,
                    &options,
                    &InitFrom::Scratch,
                    &mut |_| (),
                    &AtomicBool::new(false),
                )
                .unwrap();
            });
        }
    });
}

fn check(recipe: &str, edits: &[&str]) {
    let _one = one_job();
    let edits = [edits, &["train.max_steps=6"]].concat();
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    succeeds(&mut on_ranks(1, &pretrain(recipe, &out("1"), &edits)));
    for world in [2usize, 4] {
        let name = world.to_string();
        succeeds(&mut on_ranks(world, &pretrain(recipe, &out(&name), &edits)));
        let (one, several) = (losses(&out("1")), losses(&out(&name)));
        assert_eq!((one.len(), several.len()), (6, 6));
        for (a, b) in one.iter().zip(&several) {
            assert!((a - b).abs() < ROUNDING * a, "{a} on one rank, {b} on {world}");
        }
        in_process(recipe, &edits, &out("threads"), world);
        for file in FILES {
            let apart = distance(&values(&last(&out("1"), file)), &values(&last(&out(&name), file)));
            eprintln!("{recipe}, {file} on {world} ranks: {apart:.1e} from one rank");
            assert!(apart < ROUNDING, "{file} on {world} ranks is {apart:e} from that of one");
            let threads = values(&last(&out("threads"), file));
            assert!(values(&last(&out(&name), file)) == threads, "processes and threads have the same bits");
        }
        fs::remove_dir_all(out("threads")).unwrap();
    }
}

#[test]
fn one_two_and_four_ranks_pretrain_the_same_vit() {
    check("pretrain-vit-cifar", VIT);
}

#[test]
fn one_two_and_four_ranks_pretrain_the_same_swin() {
    check("pretrain-swin-cifar", SWIN);
}

/// Bytes that the second rank says it has sent.
fn sent(out: &Path) -> usize {
    let log = fs::read_to_string(out.join("ranks/rank-1.log")).unwrap();
    let line = log.lines().find(|line| line.contains(" bytes sent for ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// With its training state divided, and with sums beside the backward pass, ranks train to the same bits, and send what the
/// theory says.
fn check_divided(recipe: &str, edits: &[&str]) {
    let _one = one_job();
    let edits = [edits, &["train.max_steps=4", "train.validate_every_steps=2"]].concat();
    let folder = tempfile::tempdir().unwrap();
    let files = ["model.safetensors", "average.safetensors", "optimizer.safetensors"];
    for world in [2, 4] {
        let run = |shard: &str, overlap: &str| {
            let out = folder.path().join(format!("{world}-{shard}-{overlap}"));
            let mut arguments = pretrain(recipe, &out, &[&edits[..], &[&format!("train.shard={shard}")]].concat());
            arguments.extend(["--overlap", overlap, "--rank-timeline"].map(str::to_owned));
            let ran = succeeds(&mut on_ranks(world, &arguments));
            assert!(ran.stderr.contains("step 4: backward pass over at"), "{ran:#?}");
            let parameters = values(&last(&out, files[0])).len();
            let bits: Vec<Vec<u32>> =
                files.iter().map(|file| values(&last(&out, file)).iter().map(|v| v.to_bits()).collect()).collect();
            let sent = sent(&out) as f64 / (4 * 4 * parameters) as f64; // of the bytes of all parameters at each step
            (bits, sent)
        };
        let (whole, sent_whole) = run("none", "off");
        let share = (world - 1) as f64 / world as f64;
        for (shard, overlap, theory) in
            [("none", "on", 2.0), ("optimizer", "off", 3.0), ("gradients", "off", 2.0), ("gradients", "on", 2.0)]
        {
            let (bits, sent) = run(shard, overlap);
            assert!(bits == whole, "{shard} on {world} ranks, overlap {overlap}: other bits");
            // beside the four steps, the average is gathered for the evaluations after steps 0, 2 and 4; the checkpoint of the
            // end is written by all ranks, which see the folder
            let gathered = if shard == "none" { 0.0 } else { 3.0 / 4.0 };
            let expected = share * (theory + gathered);
            // the zeros between parameters are sent too, and ranks keep units of which there are a few hundred
            assert!((0.97..1.12).contains(&(sent / expected)), "{shard} on {world} ranks: {sent}, not {expected}");
        }
        assert!((1.0..1.12).contains(&(sent_whole / (2.0 * share))), "{sent_whole}");
    }
}

#[test]
fn ranks_that_divide_their_state_pretrain_the_same_vit() {
    check_divided("pretrain-vit-cifar", VIT);
}

#[test]
fn ranks_that_divide_their_state_pretrain_the_same_swin() {
    check_divided("pretrain-swin-cifar", SWIN);
}

#[test]
fn two_ranks_fine_tune_the_same_with_mixed_images() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let out = |world: usize| folder.path().join(world.to_string());
    for world in [1, 2] {
        let edits = ["train.max_steps=6", "augment.mix_probability=1.0", "augment.mixup=0.8", "augment.cutmix=1.0"];
        let mut arguments =
            pretrain("finetune-vit-cifar", &out(world), &[&VIT[..4], &["encoder.patch_px=4"], &edits].concat());
        arguments[0] = "finetune".into();
        arguments.extend(["--from", "scratch", "--val"].map(str::to_owned));
        arguments.push(arguments[4].clone());
        succeeds(&mut on_ranks(world, &arguments));
    }
    for file in FILES {
        let apart = distance(&values(&last(&out(1), file)), &values(&last(&out(2), file)));
        eprintln!("fine-tuning, {file}: {apart:.1e}");
        assert!(apart < ROUNDING, "{file}: {apart:e}");
    }
    // the first rank classifies every held-out image once
    let top1 = |world| {
        let entries = read_log(&out(world)).unwrap();
        entries.iter().filter_map(|entry| entry.get("top1").and_then(Value::as_f64)).next_back().unwrap()
    };
    assert!((top1(1) - top1(2)).abs() < 0.2, "at most one or two of 1000 images are decided by rounding");
}

#[test]
fn the_first_rank_speaks_and_the_others_write_files() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut arguments = pretrain("pretrain-vit-cifar", &out, &[VIT, &["train.max_steps=3"]].concat());
    arguments.push("--json".into());
    let ran = succeeds(&mut on_ranks(2, &arguments));
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| !line.is_empty()).collect();
    let [line] = lines[..] else { panic!("one result: {ran:#?}") };
    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["steps"], 3);
    assert!(ran.stderr.contains("2 ranks on 1 machine, 1 thread each"), "{ran:#?}");
    let log = fs::read_to_string(out.join("ranks/rank-1.log")).unwrap();
    assert!(log.contains("3 steps of 16") && !out.join("ranks/rank-0.log").exists(), "{log}");
    // 2·(n − 1)/n of the parameters, with the zeros between them, in 4 bytes each, at each of three steps
    let parameters = values(&last(&out, "model.safetensors")).len();
    let sent = log.lines().find_map(|line| line.strip_suffix(" sums of gradients")).unwrap();
    let sent: usize = sent.split(' ').next().unwrap().parse().unwrap();
    let (least, most) = (3 * 4 * parameters, 3 * 4 * (parameters + 15 * 60));
    assert!((least..most).contains(&sent), "{sent} bytes for {parameters} parameters");
}

#[test]
fn what_works_in_one_process_only_is_refused_once() {
    let _one = one_job();
    let ran = run(&mut on_ranks(2, &["recipes".to_owned()]));
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert_eq!(ran.stderr.matches("error: this command works in one process").count(), 1, "{ran:#?}");
}
