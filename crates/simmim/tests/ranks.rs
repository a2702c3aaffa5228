//! Data parallelism: several ranks train the same model as one rank with the same batch.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use serde_json::Value;
use simmim::precision::PrecisionChoice;
use simmim::recipe::{FinetuneRecipe, Recipe, RecipeKind, resolve_as};
use simmim::run::read_log;
use simmim::train::{Input, Options, Outcome, finetune, pretrain};
use simmim::weights::{InitFrom, WeightsFile};
use simmim_cpu::CpuDevice;
use simmim_data::{Encoded, Source, Subset};
use simmim_engine::{Alone, Collective, CollectiveError, InProcess};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// One compute thread per rank, because the ranks run at the same time.
const DEVICE: CpuDevice = CpuDevice { threads: 1 };

/// A small run whose batch two ranks can share, with everything that could differ between them: drop path,
/// micro-batches, clipping that is always active, weight decay, and an EMA of the weights.
const EDITS: &[&str] = &[
    "train.batch_size=16",
    "train.accumulation_steps=2",
    "train.clip_grad=0.05",
    "train.weight_decay=0.1",
    "train.average_decay=0.9",
    "train.max_steps=6",
    "train.log_every_steps=1",
    "encoder.drop_path=0.2",
    "data.image_size=16",
    "data.channels=1",
    "data.normalization=measured",
];

const VIT: &[&str] = &["encoder.width=16", "encoder.depth=2", "encoder.heads=2", "mask.unit_px=4"];
const SWIN: &[&str] = &["encoder.width=8", "encoder.depths=[2, 2]", "encoder.heads=[1, 2]", "mask.unit_px=4"];

fn options<R: RecipeKind>(recipe: &str, edits: &[&str], out: &Path) -> Options<R> {
    let edits: Vec<String> = EDITS.iter().chain(edits).map(|edit| (*edit).to_owned()).collect();
    let spec = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/fashion-mnist/test-images-idx3-ubyte.gz");
    let data = Input { source: simmim_data::open(spec, 1).unwrap(), description: "fashion".into() };
    Options {
        recipe: resolve_as(recipe, &edits).unwrap(),
        given: String::new(),
        val: Some(data.clone()),
        data,
        out: out.to_owned(),
        seed: 3,
        precision: PrecisionChoice::F32,
        workers: 1,
    }
}

/// Runs `train` on `world` ranks in threads; returns the result of each rank.
fn on_ranks<T: Send>(world: usize, train: impl Fn(&mut dyn Collective) -> T + Sync) -> Vec<T> {
    match world {
        1 => vec![train(&mut Alone)],
        _ => std::thread::scope(|scope| {
            let (ranks, train) = (InProcess::ranks(world).into_iter(), &train);
            let running: Vec<_> = ranks.map(|mut rank| scope.spawn(move || train(&mut rank))).collect();
            running.into_iter().map(|rank| rank.join().unwrap()).collect()
        }),
    }
}

/// A source of which every third image cannot be read.
struct ThirdsUnreadable(std::sync::Arc<dyn Source>);

impl Source for ThirdsUnreadable {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    fn encoded(&self, index: usize) -> simmim_data::Result<Encoded> {
        let name = self.name(index);
        if index.is_multiple_of(3) { Err(simmim_data::Error::NotFinite { name }) } else { self.0.encoded(index) }
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.0.label(index)
    }
}

#[test]
fn ranks_count_and_log_the_unreadable_images_of_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = |world: usize| {
        let out = folder.path().join(format!("{world}"));
        let outcomes = on_ranks(world, |collective| {
            let edits = [VIT, &["data.max_skipped=0.5"]].concat();
            let mut options = options::<Recipe>("pretrain-vit-cifar", &edits, &out);
            let few = Subset::spread(std::sync::Arc::clone(&options.data.source), 24);
            options.data.source = std::sync::Arc::new(ThirdsUnreadable(std::sync::Arc::new(few)));
            pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false)).unwrap()
        });
        assert!(outcomes.iter().all(|outcome| outcome.skipped == outcomes[0].skipped));
        assert!(outcomes.iter().all(|outcome| outcome.replaced == outcomes[0].replaced));
        let entries = read_log(&out).unwrap();
        let mut named: Vec<String> =
            entries.iter().filter_map(|entry| Some(entry.get("skipped")?.as_str()?.to_owned())).collect();
        named.sort();
        (outcomes[0].skipped, outcomes[0].replaced, named)
    };
    let one = run(1);
    assert!(one.0 == 8 && one.1 > 8 && one.2.len() == 8, "{one:?}");
    for world in [2, 4] {
        assert_eq!(run(world), one, "{world} ranks");
    }
}

/// Losses by step, final weights, and their EMA.
fn result(out: &Path, outcomes: &[Outcome]) -> (Vec<f64>, Vec<f32>, Vec<f32>) {
    assert!(outcomes.iter().all(Outcome::is_finished));
    assert!(outcomes.iter().all(|outcome| outcome.loss == outcomes[0].loss), "all ranks log the same loss");
    let entries = read_log(out).unwrap();
    let mut norms = entries.iter().filter_map(|entry| entry.get("gradient_norm").and_then(Value::as_f64));
    assert!(norms.all(|norm| norm > 0.05), "clipping to 0.05 is active at every step");
    let losses = entries.iter().filter_map(|entry| entry.get("loss").and_then(Value::as_f64)).collect();
    let values = |name: &str| {
        let file = WeightsFile::read(&outcomes[0].checkpoint.join(name)).unwrap();
        file.shapes().iter().flat_map(|(name, _)| file.tensor(name).unwrap().unwrap().1).collect::<Vec<f32>>()
    };
    (losses, values("model.safetensors"), values("average.safetensors"))
}

/// Trains on one, two and four ranks, and compares the results.
fn ranks_train_the_same(train: impl Fn(&mut dyn Collective, &Path) -> Outcome + Sync) {
    let folder = tempfile::tempdir().unwrap();
    let run = |world: usize, name: &str| {
        let out = folder.path().join(name);
        let outcomes = on_ranks(world, |collective| train(collective, &out));
        result(&out, &outcomes)
    };
    let one = run(1, "one");
    assert_eq!(one.0.len(), 6);
    for world in [2, 4] {
        let several = run(world, &format!("{world}"));
        for (step, (a, b)) in one.0.iter().zip(&several.0).enumerate() {
            // another order of summation: rounding errors of f32, which grow with the steps
            assert!((a - b).abs() < 1e-5 * a.abs(), "step {}: {a} on one rank, {b} on {world}", step + 1);
        }
        for (a, b) in [(&one.1, &several.1), (&one.2, &several.2)] {
            let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            let size = distance(a, &vec![0.0; a.len()]);
            assert!(distance(a, b) < 1e-4 * size, "{} of {size} apart on {world} ranks", distance(a, b));
        }
        assert!(several == run(world, &format!("{world} again")), "{world} ranks have the same bits every time");
    }
}

fn pretraining_is_the_same(recipe: &str, edits: &[&str]) {
    ranks_train_the_same(|collective, out| {
        let options = options::<Recipe>(recipe, edits, out);
        pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false)).unwrap()
    });
}

#[test]
fn ranks_pretrain_the_same_vit() {
    pretraining_is_the_same("pretrain-vit-cifar", VIT);
}

#[test]
fn ranks_pretrain_the_same_swin() {
    pretraining_is_the_same("pretrain-swin-cifar", SWIN);
}

#[test]
fn ranks_that_sum_in_bf16_stay_near_and_have_the_same_bits_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let run = |world: usize, name: &str, edit: &str| {
        let out = folder.path().join(name);
        let outcomes = on_ranks(world, |collective| {
            let options = options::<Recipe>("pretrain-vit-cifar", &[VIT, &[edit]].concat(), &out);
            pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false)).unwrap()
        });
        result(&out, &outcomes)
    };
    let bf16 = "train.reduce_in_bf16=true";
    let (exact, rounded) = (run(2, "f32", "train.reduce_in_bf16=false"), run(2, "bf16", bf16));
    assert!(rounded != exact && rounded == run(2, "again", bf16));
    assert!(run(1, "alone", bf16) == run(1, "alone in f32", "train.reduce_in_bf16=false"));
    for (a, b) in exact.0.iter().zip(&rounded.0) {
        assert!((a - b).abs() < 1e-3 * a, "{a} in f32, {b} in bf16"); // a gradient is off by 2⁻⁹ of itself
    }
}

#[test]
fn ranks_that_recompute_blocks_pretrain_the_same_vit() {
    let recompute = ["train.recompute_blocks=true"];
    let shared_table = ["encoder.absolute_positions=false", "encoder.position_bias=shared"];
    pretraining_is_the_same("pretrain-vit-cifar", &[VIT, &recompute, &shared_table].concat());
}

#[test]
fn ranks_fine_tune_the_same_with_mixed_images() {
    let mixed =
        ["augment.mix_probability=1.0", "augment.mixup=0.8", "augment.cutmix=1.0", "train.validate_every_steps=3"];
    let edits = [&VIT[..3], &["encoder.patch_px=4", "encoder.layer_scale=0.1"], &mixed].concat();
    ranks_train_the_same(|collective, out| {
        let options = options::<FinetuneRecipe>("finetune-vit-cifar", &edits, out);
        let scratch = InitFrom::Scratch;
        finetune(&DEVICE, collective, &options, &scratch, &mut |_| (), &AtomicBool::new(false)).unwrap()
    });
}

#[test]
fn a_run_resumes_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let run = |world: usize, name: &str, most: usize| {
        let out = folder.path().join(name);
        on_ranks(world, |collective| {
            let options = options::<Recipe>("pretrain-vit-cifar", VIT, &out);
            let (stop, mut steps) = (AtomicBool::new(false), 0);
            let mut observe = |event: simmim::train::Event| {
                if let simmim::train::Event::Stepped { .. } = event {
                    steps += 1;
                    stop.store(steps >= most, std::sync::atomic::Ordering::Relaxed);
                }
            };
            pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut observe, &stop).unwrap()
        })
    };
    let whole = run(1, "whole", usize::MAX);
    // if one rank stops, all stop, one step later
    let stopped = run(2, "stopped", 2);
    assert!(stopped.iter().all(|outcome| outcome.steps == 3 && !outcome.is_finished()), "{stopped:?}");
    let resumed = run(1, "stopped", usize::MAX);
    let difference = (whole[0].loss.unwrap() - resumed[0].loss.unwrap()).abs();
    assert!(resumed[0].is_finished() && difference < 1e-5 * whole[0].loss.unwrap(), "{difference}");
}

/// Weights, moments and average of the last checkpoint, as bits.
fn checkpoint(outcomes: &[Outcome]) -> Vec<u32> {
    let file = |name: &str| {
        let file = WeightsFile::read(&outcomes[0].checkpoint.join(name)).unwrap();
        let names: Vec<String> = file.shapes().into_iter().map(|(name, _)| name).collect();
        names.iter().flat_map(|name| file.tensor(name).unwrap().unwrap().1).map(f32::to_bits).collect::<Vec<_>>()
    };
    ["model.safetensors", "average.safetensors", "optimizer.safetensors"].map(file).concat()
}

/// Pre-trains on `world` ranks, of which the first stops the run after `most` steps.
fn pretrain_some(recipe: &str, edits: &[&str], out: &Path, world: usize, most: usize) -> Vec<Outcome> {
    on_ranks(world, |collective| {
        let options = options::<Recipe>(recipe, edits, out);
        let (stop, mut steps) = (AtomicBool::new(false), 0);
        let mut observe = |event: simmim::train::Event| {
            if let simmim::train::Event::Stepped { .. } = event {
                steps += 1;
                stop.store(steps >= most, std::sync::atomic::Ordering::Relaxed);
            }
        };
        pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut observe, &stop).unwrap()
    })
}

/// With its training state divided over ranks, a run ends with the bits that it has on as many ranks that keep all.
fn divided_state_changes_no_bit(recipe: &str, edits: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for accumulation in ["train.accumulation_steps=1", "train.accumulation_steps=2"] {
        for world in [1, 2, 4] {
            let run = |shard: &str| {
                let out = folder.path().join(format!("{world} {shard} {accumulation}"));
                let shard = format!("train.shard={shard}");
                let layers = ["train.layer_decay=0.7", "train.validate_every_steps=2"];
                let edits = [edits, &layers, &[accumulation, &shard]].concat();
                let outcomes = pretrain_some(recipe, &edits, &out, world, usize::MAX);
                (checkpoint(&outcomes), result(&out, &outcomes).0, outcomes[0].metric("val_loss").unwrap())
            };
            let whole = run("none");
            for shard in ["optimizer", "gradients"] {
                let divided = run(shard);
                assert!(divided.0 == whole.0, "{shard} on {world} ranks, {accumulation}: other bits");
                assert_eq!((divided.1, divided.2), (whole.1.clone(), whole.2), "{shard} on {world} ranks: the log");
            }
        }
    }
}

#[test]
fn divided_state_changes_no_bit_of_a_vit() {
    divided_state_changes_no_bit("pretrain-vit-cifar", VIT);
}

#[test]
fn divided_state_changes_no_bit_of_a_swin() {
    divided_state_changes_no_bit("pretrain-swin-cifar", SWIN);
}

/// Names and bytes of the files of the last checkpoint that hold no times.
fn files(outcomes: &[Outcome]) -> Vec<(&'static str, Vec<u8>)> {
    let names = ["average.safetensors", "model.safetensors", "optimizer.safetensors"];
    let mut found: Vec<String> = std::fs::read_dir(&outcomes[0].checkpoint)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(
        found,
        ["average.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    );
    names.map(|name| (name, std::fs::read(outcomes[0].checkpoint.join(name)).unwrap())).to_vec()
}

#[test]
fn ranks_that_share_no_folder_write_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, edit: &str, is_shared: bool| {
        let outcomes = on_ranks(4, |collective| {
            // as on machines with disks of their own
            let rank = if is_shared { 0 } else { collective.rank() };
            let out = folder.path().join(format!("{name} {rank}"));
            let options = options::<Recipe>("pretrain-vit-cifar", &[VIT, &["train.max_steps=2", edit]].concat(), &out);
            pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false)).unwrap()
        });
        assert!((1..4).all(|rank| !folder.path().join(format!("{name} {rank}")).join("checkpoints").exists()));
        files(&outcomes)
    };
    let whole = run("whole", "train.shard=none", true);
    let written_by_all = run("written by all", "train.shard=optimizer", true);
    assert!(run("gathered", "train.shard=optimizer", false) == written_by_all);
    assert!(written_by_all[2] == whole[2], "the other two say how the state is divided in their metadata");
}

#[test]
fn a_run_resumes_with_its_state_divided_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, parts: &[(usize, &str, usize)]| {
        let out = folder.path().join(name);
        let mut outcomes = Vec::new();
        for (world, shard, most) in parts {
            let shard = format!("train.shard={shard}");
            outcomes = pretrain_some("pretrain-vit-cifar", &[VIT, &[&shard]].concat(), &out, *world, *most);
        }
        assert!(outcomes[0].is_finished());
        checkpoint(&outcomes)
    };
    let all = usize::MAX;
    let whole = run("whole", &[(2, "none", 2), (4, "none", 1), (1, "none", all)]);
    for (index, parts) in [
        [(2, "gradients", 2), (4, "gradients", 1), (1, "gradients", all)],
        [(2, "optimizer", 2), (4, "none", 1), (1, "optimizer", all)],
        [(2, "none", 2), (4, "gradients", 1), (1, "none", all)],
    ]
    .iter()
    .enumerate()
    {
        assert!(run(&index.to_string(), parts) == whole, "{parts:?}: other bits");
    }
}

#[test]
fn a_rank_that_leaves_ends_the_run_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = on_ranks(2, |collective| {
        if collective.rank() == 1 {
            return None; // the rank is dropped without training
        }
        let options = options::<Recipe>("pretrain-vit-cifar", VIT, &out);
        pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false)).err()
    });
    let error = ended[0].as_ref().unwrap();
    assert!(matches!(error, simmim::Error::Rank(CollectiveError { rank: 1, failure: None })), "{error}");
    assert!(!out.exists(), "a run that does not begin leaves no folder");
}

#[test]
fn a_batch_that_ranks_cannot_share_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let errors = on_ranks(3, |collective| {
        let options = options::<Recipe>("pretrain-vit-cifar", VIT, &folder.path().join("run"));
        pretrain(&DEVICE, collective, &options, &InitFrom::Scratch, &mut |_| (), &AtomicBool::new(false)).err().unwrap()
    });
    for error in errors {
        assert!(error.to_string().contains("`train.batch_size` is `16`"), "{error}");
        assert_eq!(error.hint().unwrap(), "--set train.batch_size=18");
    }
}
