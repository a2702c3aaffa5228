//! Lists the operators of libtorch that training steps of a recipe call, and the time of the host in them:
//! `cargo run --example operators -- RECIPE PRECISION BATCH DEVICE`.

#![allow(clippy::unwrap_used, reason = "a program that shows how a step is made")]

use simmim::bench::Times;
use simmim::model::SimMim;
use simmim::recipe;
use simmim::targets::Colors;
use simmim::train::{Learner, Pretraining, Schedule, groups};
use simmim::weights::{Builder, initialize};
use simmim_data::Batch;
use simmim_engine::{Alone, Device, Precision};
use simmim_libtorch::{LibtorchDevice, count_operators};
use std::rc::Rc;
use std::time::Instant;

/// Steps before the first timed one, timed ones, and those whose operators are counted.
const WARM_UP: u64 = 3;
const TIMED: u64 = 5;
const COUNTED: u64 = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, precision, batch, device] = &arguments[..] else { panic!("RECIPE PRECISION BATCH DEVICE") };
    let recipe = recipe::resolve(recipe, &[format!("train.batch_size={batch}")]).unwrap();
    let precision = if precision == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let device = LibtorchDevice::new(device, threads).unwrap();
    let mut builder = Builder::default();
    let model = Rc::new(SimMim::new(&recipe, &Colors::unknown(3), &device, &mut builder).unwrap());
    let (table, inits) = builder.finish();
    let groups = groups::groups(&table, model.encoder(), &recipe.train);
    let backend = device.open(table, precision);
    initialize(&backend, &inits, 0);
    let (height, width) = recipe.data.image_size.height_and_width();
    let images = recipe.train.batch_size;
    let mut batch = Batch {
        number: 0,
        epoch: 0,
        images: (0..images * 3 * height * width).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect(),
        samples: (0..images).collect(),
        labels: vec![None; images],
        skipped: Vec::new(),
    };
    let task = Pretraining::new(&recipe, model, 0);
    let learner = Learner::new(backend, task, &recipe.train, Schedule::constant(1e-5), groups);
    let mut number = 0;
    let mut steps = |count: u64| {
        let times = (0..count).map(|_| {
            number += 1;
            let started = Instant::now();
            learner.step(&mut Alone, &mut batch, number, false, &mut |_| ()).unwrap();
            started.elapsed().as_secs_f64() * 1e3
        });
        Times::new(times.collect())
    };
    steps(WARM_UP);
    let times = steps(TIMED);
    let (_, mut operators) = count_operators(|| steps(COUNTED));
    operators.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    println!("a step takes {:.1} ms ({:.1} to {:.1})", times.median(), times.least(), times.most());
    for operator in operators.iter().take(40) {
        let ms = operator.seconds * 1e3 / COUNTED as f64;
        println!("{ms:>9.2} ms {:>7} times  {}", operator.count / COUNTED, operator.name);
    }
}
