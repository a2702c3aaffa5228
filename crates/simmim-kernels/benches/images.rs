//! Kernels on images: patches, neighborhoods of a convolution, pooling and upsampling.

mod common;

use common::{bench_with_naive, numbers};
use criterion::{Criterion, criterion_group, criterion_main};
use simmim_kernels::convolution::{
    Neighborhood, add_channels_last_gradient, add_channels_last_gradient_naive, channels_last_weight,
    channels_last_weight_naive, fold, fold_naive, unfold, unfold_naive,
};
use simmim_kernels::patches::{PatchSizes, cut_patch, cut_patch_naive};
use simmim_kernels::pooling::{
    Halving, max_pool, max_pool_backward, max_pool_backward_naive, max_pool_naive, upsample, upsample_backward,
    upsample_backward_naive, upsample_naive,
};

fn patches(c: &mut Criterion) {
    let sizes = PatchSizes { channels: 3, height: 224, width: 224, patch_height: 16, patch_width: 16 };
    let image = numbers(sizes.image_len());
    let kernels = [cut_patch, cut_patch_naive];
    bench_with_naive(c, "cut_patch", kernels, &numbers(image.len()), sizes.patch_len(), |kernel, rows| {
        let patches = rows.chunks_exact_mut(sizes.patch_len()).enumerate();
        patches.for_each(|(n, patch)| kernel(&sizes, &image, n, patch));
    });
}

/// The convolutions in the middle of `tokenizer-cifar`'s encoder.
fn neighborhoods(c: &mut Criterion) {
    let n = Neighborhood { height: 16, width: 16, channels: 64, side: 3 };
    let mut image = numbers(n.pixels() * n.channels);
    let rows = numbers(n.pixels() * n.row_len());
    let kernels = [unfold, unfold_naive];
    bench_with_naive(c, "unfold", kernels, &rows, n.row_len(), |kernel, rows| {
        kernel(&n, &image, 0..rows.len() / n.row_len(), rows);
    });
    let kernels = [fold, fold_naive];
    bench_with_naive(c, "fold", kernels, &rows, n.row_len(), |kernel, rows| {
        kernel(&n, rows, 0..rows.len() / n.row_len(), &mut image);
    });

    let weight = numbers(64 * n.row_len());
    let mut d_weight = vec![0.0; weight.len()];
    let kernels = [channels_last_weight, channels_last_weight_naive];
    bench_with_naive(c, "channels_last_weight", kernels, &weight, n.row_len(), |kernel, weight| kernel(&n, weight));
    let kernels = [add_channels_last_gradient, add_channels_last_gradient_naive];
    bench_with_naive(c, "add_channels_last_gradient", kernels, &weight, n.row_len(), |kernel, d| {
        kernel(&n, d, &mut d_weight[..d.len()]);
    });
}

/// A row of the benchmark is two rows of pixels of the larger image, or one of the smaller.
fn pooling(c: &mut Criterion) {
    let (width, channels) = (32, 32);
    let h = |large: usize| Halving { height: large / (width * channels), width, channels };
    let (of_large, of_small) = (2 * width * channels, width / 2 * channels);
    let whole = numbers(16 * of_large);
    let (values, mut small, mut large) = (whole.clone(), vec![0.0; whole.len() / 4], vec![0.0; whole.len()]);
    let kernels = [max_pool, max_pool_naive];
    bench_with_naive(c, "max_pool", kernels, &whole, of_large, |kernel, large| {
        kernel(&h(large.len()), large, &mut small[..large.len() / 4]);
    });
    let kernels = [max_pool_backward, max_pool_backward_naive];
    bench_with_naive(c, "max_pool_backward", kernels, &whole, of_large, |kernel, pooled| {
        let len = pooled.len();
        kernel(&h(len), pooled, &values[..len / 4], &mut large[..len]);
    });
    let kernels = [upsample, upsample_naive];
    bench_with_naive(c, "upsample", kernels, &values[..small.len()], of_small, |kernel, small| {
        let len = 4 * small.len();
        kernel(&h(len), small, &mut large[..len]);
    });
    let kernels = [upsample_backward, upsample_backward_naive];
    bench_with_naive(c, "upsample_backward", kernels, &whole, of_large, |kernel, d_large| {
        kernel(&h(d_large.len()), d_large, &mut small[..d_large.len() / 4]);
    });
}

fn images(c: &mut Criterion) {
    patches(c);
    neighborhoods(c);
    pooling(c);
}

criterion_group!(benches, images);
criterion_main!(benches);
