//! Results do not depend on the number of micro-batches, compute threads or loader threads.

use super::support::{fashion, losses, on_threads, photos, pretrain, scratch, succeeds, tensors};

#[test]
fn micro_batches_give_the_loss_curve_of_the_whole_batch() {
    let (folder, _) = scratch();
    let curve = |micro_batches: usize| {
        let out = folder.path().join(format!("micro-batches-{micro_batches}"));
        let accumulation = format!("train.accumulation_steps={micro_batches}");
        let edits =
            ["train.batch_size=16", "train.max_steps=12", "encoder.drop_path=0.3", "encoder.depth=3", &accumulation];
        let mut command = pretrain(&fashion(), &out, &edits);
        command.args(["--precision", "f32"]);
        succeeds(command);
        losses(&out)
    };
    let whole = curve(1);
    assert_eq!(whole.len(), 12);
    for micro_batches in [2, 4] {
        for (step, (a, b)) in whole.iter().zip(curve(micro_batches)).enumerate() {
            // another order of summation: rounding errors of f32, which grow over twelve steps
            assert!((a - b).abs() < 1e-4 * a.abs(), "step {}, {micro_batches} micro-batches: {a} and {b}", step + 1);
        }
    }
}

#[test]
fn the_weights_are_the_same_for_any_number_of_loader_threads() {
    let (folder, _) = scratch();
    let weights = |workers: &str| {
        let out = folder.path().join(workers);
        let mut command = pretrain(&photos(), &out, &["train.batch_size=2", "train.max_steps=8"]);
        command.args(["--workers", workers]);
        succeeds(command);
        tensors(&out, 8)
    };
    let none = weights("0");
    assert!(weights("1") == none, "1 thread");
    assert!(weights("3") == none, "3 threads");
}

#[test]
fn the_weights_are_the_same_for_any_number_of_threads() {
    let (folder, _) = scratch();
    let weights = |threads: usize| {
        let out = folder.path().join(threads.to_string());
        succeeds(on_threads(threads, &pretrain(&fashion(), &out, &["encoder.depth=2"])));
        // the header of the file contains the number of threads
        tensors(&out, 4).map(|file| {
            let header = u64::from_le_bytes(*file.first_chunk().unwrap());
            file[8 + header as usize..].to_vec()
        })
    };
    let one = weights(1);
    assert!(weights(2) == one, "2 threads");
    assert!(weights(5) == one, "5 threads");
}

#[test]
fn another_seed_gives_other_weights() {
    let (folder, _) = scratch();
    let weights = |seed: &str| {
        let out = folder.path().join(seed);
        let mut command = pretrain(&fashion(), &out, &[]);
        command.args(["--seed", seed]);
        succeeds(command);
        tensors(&out, 4)
    };
    assert!(weights("1") != weights("2"));
}
