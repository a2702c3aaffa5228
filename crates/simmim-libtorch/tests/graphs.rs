//! Passes that are recorded and replayed compute what passes that are not do, to the bit. libtorch has graphs for GPUs alone; on
//! the CPU a recorder of operators takes their place, so that what is tested is what this crate does around them.

#![allow(clippy::unwrap_used, reason = "a recipe of the program's own is valid")]

use simmim::model::SimMim;
use simmim::recipe;
use simmim::targets::Colors;
use simmim::train::{Learner, Pretraining, Schedule, groups};
use simmim::weights::{Builder, initialize};
use simmim_data::Batch;
use simmim_engine::{Alone, Backend, Device, Precision, Slot};
use simmim_libtorch::{Libtorch, LibtorchDevice, record_graphs_on_the_cpu};
use std::rc::Rc;

const STEPS: u64 = 8;

/// The loss of each step, all weights at the end, and how many passes were replayed.
fn train(
    name: &str,
    edits: &[&str],
    precision: Precision,
    images_of: &[usize],
    has_graphs: bool,
) -> (Vec<f64>, Vec<f32>, u64) {
    let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
    let recipe = recipe::resolve(name, &edits).unwrap();
    let device = std::env::var("SIMMIM_LIBTORCH_DEVICE").unwrap_or("libtorch-cpu".into());
    let device = LibtorchDevice::new(&device, 1).unwrap();
    record_graphs_on_the_cpu();
    let device = if has_graphs { device.with_graphs().unwrap() } else { device };
    let mut builder = Builder::default();
    let model = Rc::new(SimMim::new(&recipe, &Colors::unknown(3), &device, &mut builder).unwrap());
    let (table, inits) = builder.finish();
    let groups = groups::groups(&table, model.encoder(), &recipe.train);
    let backend = device.open(table, precision);
    initialize(&backend, &inits, 0);
    let task = Pretraining::new(&recipe, model, 0);
    let learner = Learner::new(backend, task, &recipe.train, Schedule::constant(1e-3), groups);
    let (height, width) = recipe.data.image_size.height_and_width();
    let mut queued = Vec::new();
    for number in 1..=STEPS {
        let images = images_of[number as usize % images_of.len()];
        let value = |i: usize| ((i as u64 * 7 + number * 13) % 31) as f32 / 16.0 - 1.0;
        let mut batch = Batch {
            number,
            epoch: number,
            images: (0..images * 3 * height * width).map(value).collect(),
            samples: (0..images).collect(),
            labels: vec![None; images],
            skipped: Vec::new(),
        };
        queued.push(learner.queue(&mut Alone, &mut batch, number, false, &mut |_| ()).unwrap());
    }
    let b: &Libtorch = learner.backend();
    let losses = queued.into_iter().map(|queued| learner.read(queued).unwrap().loss).collect();
    (losses, b.read_slot(Slot::Values), b.replays())
}

/// Trains with graphs and without; as many passes as said are replayed.
fn check(name: &str, edits: &[&str], images_of: &[usize], replays: u64) {
    for precision in [Precision::F32, Precision::Bf16] {
        let (losses, values, none) = train(name, edits, precision, images_of, false);
        let (of_graphs, values_of_graphs, replayed) = train(name, edits, precision, images_of, true);
        assert_eq!(none, 0);
        assert_eq!(replayed, replays, "{name}");
        assert!(losses.windows(2).all(|pair| pair[0] != pair[1]), "{losses:?}");
        assert_eq!(losses, of_graphs, "{name}");
        assert_eq!(values, values_of_graphs, "{name}");
    }
}

const VIT: &[&str] = &["encoder.depth=2", "encoder.width=48", "encoder.heads=2", "encoder.drop_path=0.2"];
const SWIN: &[&str] = &["encoder.depths=[1,1]", "encoder.heads=[2,4]", "encoder.width=24"];

#[test]
fn passes_that_are_replayed_have_the_bits_of_those_that_are_not() {
    // three passes are made before they are recorded, one more where they make layouts of windows and biases; the recorded one
    // is replayed too, and not counted
    check("pretrain-vit-cifar", VIT, &[2], STEPS - 5);
    check("pretrain-swin-t-192", SWIN, &[2], STEPS - 5);
    check("pretrain-swinv2-t-192", SWIN, &[2], STEPS - 5);
}

#[test]
fn micro_batches_that_add_to_gradients_have_a_graph_of_their_own() {
    let edits = [VIT, &["train.batch_size=4", "train.accumulation_steps=2"]].concat();
    check("pretrain-vit-cifar", &edits, &[4], 2 * (STEPS - 5));
}

#[test]
fn another_pass_than_the_recorded_one_is_made_without_a_graph() {
    // the last batch is smaller
    check("pretrain-vit-cifar", VIT, &[1, 2, 2, 2, 2, 2, 2, 2], STEPS - 6);
    // and blocks that are recomputed have no graph at all
    check("pretrain-vit-cifar", &[VIT, &["train.recompute_blocks=true"]].concat(), &[2], 0);
}
