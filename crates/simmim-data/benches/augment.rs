//! The time that one thread needs to augment one image: from decoded 375 by 500 pixels to 224 by 224.
//!
//! Run it with `cargo bench -p simmim-data`. As a test (`cargo test --benches`) each benchmark runs once.

use criterion::{Criterion, criterion_group, criterion_main};
use simmim_data::rng::rng;
use simmim_data::transform::OPERATIONS;
use simmim_data::{
    Augmentation, CenterCrop, Filter, FineTuning, Image, Normalization, Pixels, Purpose, RandAugment, RandomErasing,
    RandomResizedCrop, Transform,
};
use std::hint::black_box;
use std::time::Duration;

/// An image with arbitrary content, on which the time hardly depends.
fn image(height: usize, width: usize) -> Image {
    let pixels = (0..height * width * 3).map(|at| (at * 7919 % 253) as u8).collect();
    Image { channels: 3, height, width, pixels: Pixels::U8(pixels) }
}

fn transforms(c: &mut Criterion) {
    let mut group = c.benchmark_group("transform");
    let photograph = image(375, 500);
    let fine_tuning = FineTuning::default();
    let always = FineTuning {
        distortion: simmim_data::Distortion::RandAugment(RandAugment { probability: 1.0, ..RandAugment::default() }),
        erasing: Some(RandomErasing { probability: 1.0, ..RandomErasing::default() }),
        ..fine_tuning
    };
    for (name, augmentation) in [
        ("pre-training", Augmentation::RandomResizedCrop(RandomResizedCrop::default())),
        ("fine-tuning", Augmentation::FineTuning(fine_tuning)),
        ("fine-tuning, always all of it", Augmentation::FineTuning(always)),
        ("evaluation", Augmentation::CenterCrop(CenterCrop::default())),
    ] {
        let transform = Transform { height: 224, width: 224, augmentation, normalization: Normalization::imagenet() };
        let mut out = vec![0.0; transform.values()];
        let mut index = 0;
        group.bench_function(name, |bench| {
            bench.iter(|| {
                index += 1;
                transform.apply(black_box(&photograph), &mut rng(0, Purpose::Augment, 0, index), &mut out);
            });
        });
    }
}

fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("operation");
    for (name, operation) in OPERATIONS {
        let mut crop = image(224, 224);
        let operation = operation(9.0, 1.0);
        group.bench_function(name, |bench| bench.iter(|| operation.apply(&mut crop, Filter::Bicubic, &[0.5; 3])));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300));
    targets = transforms, operations
}
criterion_main!(benches);
