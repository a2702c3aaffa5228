//! What must not change a result does not: how a batch is cut, how many threads compute or read images.

use super::support::{fashion, losses, on_threads, photos, pretrain, scratch, succeeds, tensors};

#[test]
fn a_batch_in_parts_gives_the_loss_curve_of_the_whole() {
    let (folder, _) = scratch();
    let curve = |parts: usize| {
        let out = folder.path().join(format!("parts-{parts}"));
        let parts = format!("train.accumulation_steps={parts}");
        let edits = ["train.batch_size=16", "train.max_updates=12", "encoder.drop_path=0.3", "encoder.depth=3", &parts];
        let mut command = pretrain(&fashion(), &out, &edits);
        command.args(["--precision", "f32"]);
        succeeds(command);
        losses(&out)
    };
    let whole = curve(1);
    assert_eq!(whole.len(), 12);
    for parts in [2, 4] {
        for (update, (a, b)) in whole.iter().zip(curve(parts)).enumerate() {
            // sums in another order: a few roundings of f32, which twelve updates enlarge
            assert!((a - b).abs() < 1e-4 * a.abs(), "update {}, {parts} parts: {a} and {b}", update + 1);
        }
    }
}

#[test]
fn the_weights_are_the_same_for_any_number_of_loader_threads() {
    let (folder, _) = scratch();
    let weights = |workers: &str| {
        let out = folder.path().join(workers);
        let mut command = pretrain(&photos(), &out, &["train.batch_size=2", "train.max_updates=8"]);
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
        // the header of a file says with how many threads it was made
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
