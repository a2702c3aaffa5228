//! Losses with their gradients, at the sizes that their targets have in training.

mod common;

use common::{bench_with_naive, numbers};
use criterion::{Criterion, criterion_group, criterion_main};
use simmim_kernels::discrete_vae::{laplace, laplace_naive, uniform_divergence, uniform_divergence_naive};
use simmim_kernels::loss::{
    Distance, binary_cross_entropy, binary_cross_entropy_naive, class_cross_entropy, class_cross_entropy_naive,
    cross_entropy, cross_entropy_naive, regression, regression_naive,
};

fn regressions(c: &mut Criterion) {
    // hidden patches of 32² pixels in three channels
    let (patches, channels, pixels) = (64, 3, 1024);
    let columns = channels * pixels;
    let (prediction, weight) = (numbers(patches * columns), vec![1.0; patches * pixels]);
    let (target, mut d) = (vec![0.1; prediction.len()], vec![0.0; prediction.len()]);
    let kernels = [regression, regression_naive];
    for distance in [Distance::L1, Distance::L2, Distance::SmoothL1 { beta: 0.5 }] {
        bench_with_naive(c, &format!("regression {distance:?}"), kernels, &prediction, columns, |kernel, p| {
            let (len, weight) = (p.len(), &weight[..p.len() / channels]);
            kernel(distance, p, &target[..len], weight, channels, pixels, &mut d[..len])
        });
    }
}

fn cross_entropies(c: &mut Criterion) {
    let (images, classes) = (64, 1000);
    let logits = numbers(images * classes);
    let (target, weight) = (vec![1.0 / classes as f32; logits.len()], vec![1.0; logits.len()]);
    let kernels = [cross_entropy, cross_entropy_naive];
    bench_with_naive(c, "cross_entropy", kernels, &logits, classes, |kernel, logits| {
        let (target, weight) = (&target[..logits.len()], &weight[..logits.len() / classes]);
        kernel(logits, target, weight, classes)
    });
    let kernels = [binary_cross_entropy, binary_cross_entropy_naive];
    bench_with_naive(c, "binary_cross_entropy", kernels, &logits, classes, |kernel, logits| {
        let (target, weight) = (&target[..logits.len()], &weight[..logits.len()]);
        kernel(logits, target, weight)
    });

    // patches of 16 pixels in three channels, each value one of 8 bins
    let (patches, channels, pixels, bins) = (256, 3, 16, 8);
    let columns = channels * pixels * bins;
    let ids: Vec<u32> = (0..patches * channels * pixels).map(|i| (i * 3 % bins) as u32).collect();
    let logits = numbers(patches * columns);
    let kernels = [class_cross_entropy, class_cross_entropy_naive];
    bench_with_naive(c, "class_cross_entropy", kernels, &logits, columns, |kernel, logits| {
        let ids = &ids[..logits.len() / bins];
        kernel(logits, ids, &weight[..ids.len() / channels], channels, pixels, bins)
    });
}

fn discrete_vae(c: &mut Criterion) {
    let (pixels, channels) = (1024, 3);
    let prediction = numbers(pixels * 2 * channels);
    let (target, mut d) = (vec![0.1; pixels * channels], vec![0.0; prediction.len()]);
    let kernels = [laplace, laplace_naive];
    bench_with_naive(c, "laplace", kernels, &prediction, 2 * channels, |kernel, p| {
        let (target, d) = (&target[..p.len() / 2], &mut d[..p.len()]);
        kernel(p, target, channels, d)
    });

    // 8² tokens of the vocabulary of `tokenizer-cifar`
    let (tokens, classes) = (64, 512);
    let kernels = [uniform_divergence, uniform_divergence_naive];
    bench_with_naive(c, "uniform_divergence", kernels, &numbers(tokens * classes), classes, |kernel, logits| {
        kernel(logits, classes)
    });
}

fn losses(c: &mut Criterion) {
    regressions(c);
    cross_entropies(c);
    discrete_vae(c);
}

criterion_group!(benches, losses);
criterion_main!(benches);
