//! Kernels that go over rows of tokens of ViT-S: norms, epilogues of products, and small passes.

mod common;

use common::{bench_with_naive, numbers};
use criterion::{Criterion, criterion_group, criterion_main};
use simmim_kernels::dtype::{Bf16, Dtype};
use simmim_kernels::elementwise::{
    add_bias, add_bias_naive, add_column_dots, add_column_dots_naive, add_column_sums, add_column_sums_naive,
    add_residual, add_residual_naive, add_scaled, add_scaled_naive, multiply, multiply_naive, sum_of_squares,
    sum_of_squares_naive,
};
use simmim_kernels::epilogue::{
    add_strided_column_sums, add_strided_column_sums_naive, copy_rows, copy_rows_naive, gelu_backward_rows,
    gelu_backward_rows_naive, gelu_rows, gelu_rows_naive, narrow_rows, narrow_rows_naive,
};
use simmim_kernels::layer_norm::{
    RowStatistics, layer_norm, layer_norm_backward, layer_norm_backward_naive, layer_norm_naive, normalized_rows,
    normalized_rows_naive, restored_rows, restored_rows_naive,
};

/// Tokens and width of ViT-S.
const ROWS: usize = 197;
const WIDTH: usize = 384;

fn norms(c: &mut Criterion) {
    let (x, d_y, weight, bias) = (numbers(ROWS * WIDTH), numbers(ROWS * WIDTH), numbers(WIDTH), numbers(WIDTH));
    let (mut y, mut statistics) = (vec![0.0; x.len()], vec![RowStatistics::default(); ROWS]);
    let kernels = [layer_norm, layer_norm_naive];
    bench_with_naive(c, "layer_norm", kernels, &x, WIDTH, |kernel, x| {
        let rows = x.len() / WIDTH;
        kernel(x, &weight, &bias, 1e-6, &mut y[..x.len()], &mut statistics[..rows]);
    });
    let (mut d_weight, mut d_bias) = (vec![0.0; WIDTH], vec![0.0; WIDTH]);
    let kernels = [layer_norm_backward, layer_norm_backward_naive];
    bench_with_naive(c, "layer_norm_backward", kernels, &x, WIDTH, |kernel, x| {
        let (rows, len) = (x.len() / WIDTH, x.len());
        kernel(x, &weight, &statistics[..rows], &d_y[..len], &mut y[..len], &mut d_weight, &mut d_bias);
    });
}

/// What the branches of a block save of their norms.
fn saved_norms<T: Dtype>(c: &mut Criterion) {
    let name = |kernel: &str| format!("{kernel} {:?}", T::KIND);
    let (x, weight, bias) = (numbers(ROWS * WIDTH), numbers(WIDTH), numbers(WIDTH));
    let statistics = vec![RowStatistics { mean: 0.1, rstd: 2.0 }; ROWS];
    let mut normalized = vec![T::default(); x.len()];
    let [mut restored, mut y] = [(); 2].map(|_| vec![0.0; x.len()]);
    let kernels = [normalized_rows::<T>, normalized_rows_naive::<T>];
    bench_with_naive(c, &name("normalized_rows"), kernels, &x, WIDTH, |kernel, x| {
        kernel(x, &statistics[..x.len() / WIDTH], &mut normalized[..x.len()]);
    });
    let kernels = [restored_rows::<T>, restored_rows_naive::<T>];
    bench_with_naive(c, &name("restored_rows"), kernels, &x, WIDTH, |kernel, x| {
        let (rows, len) = (x.len() / WIDTH, x.len());
        let (x, y) = (&mut restored[..len], &mut y[..len]);
        kernel(&normalized[..len], &weight, &bias, &statistics[..rows], x, y);
    });
}

/// Epilogues of a block of columns in rows four times as long, as in an MLP.
fn epilogues<T: Dtype>(c: &mut Criterion) {
    const STRIDE: usize = 4 * WIDTH;
    let name = |kernel: &str| format!("{kernel} {:?}", T::KIND);
    let block = numbers(ROWS * WIDTH);
    let dense: Vec<T> = block.iter().map(|v| T::narrowed(*v)).collect();
    let [mut out, mut slope] = [ROWS * STRIDE, ROWS * WIDTH].map(|len| vec![T::default(); len]);
    let mut sums = vec![0.0; WIDTH];

    let kernels = [narrow_rows::<T>, narrow_rows_naive::<T>];
    bench_with_naive(c, &name("narrow_rows"), kernels, &block, WIDTH, |kernel, block| {
        kernel(block, WIDTH, &mut out, STRIDE);
    });
    let kernels = [copy_rows::<T>, copy_rows_naive::<T>];
    bench_with_naive(c, &name("copy_rows"), kernels, &dense, WIDTH, |kernel, dense| {
        kernel(dense, WIDTH, &mut out, STRIDE);
    });
    let kernels = [gelu_rows::<T>, gelu_rows_naive::<T>];
    bench_with_naive(c, &name("gelu_rows"), kernels, &block, WIDTH, |kernel, block| {
        kernel(block, WIDTH, &mut out, STRIDE, &mut slope[..block.len()]);
    });
    let kernels = [gelu_backward_rows::<T>, gelu_backward_rows_naive::<T>];
    bench_with_naive(c, &name("gelu_backward_rows"), kernels, &block, WIDTH, |kernel, block| {
        kernel(block, &dense[..block.len()], WIDTH, &mut out, STRIDE, &mut sums);
    });
    let kernels = [add_strided_column_sums::<T>, add_strided_column_sums_naive::<T>];
    bench_with_naive(c, &name("add_strided_column_sums"), kernels, &dense, WIDTH, |kernel, dense| {
        kernel(dense, WIDTH, &mut sums);
    });
}

fn small_passes(c: &mut Criterion) {
    let (x, other, per_column) = (numbers(ROWS * WIDTH), numbers(ROWS * WIDTH), numbers(WIDTH));
    let (mut y, mut sums) = (vec![0.0; x.len()], vec![0.0; WIDTH]);

    let kernels = [add_bias, add_bias_naive];
    bench_with_naive(c, "add_bias", kernels, &x, WIDTH, |kernel, x| kernel(x, &per_column));
    let kernels = [multiply, multiply_naive];
    bench_with_naive(c, "multiply", kernels, &x, WIDTH, |kernel, x| kernel(x, &other[..x.len()]));
    let kernels = [add_scaled, add_scaled_naive];
    bench_with_naive(c, "add_scaled", kernels, &x, WIDTH, |kernel, x| kernel(x, 0.5, &other[..x.len()]));
    let kernels = [add_residual, add_residual_naive];
    bench_with_naive(c, "add_residual", kernels, &x, WIDTH, |kernel, x| {
        kernel(x, &other[..x.len()], &per_column, 0.5, &mut y[..x.len()]);
    });
    let kernels = [add_column_sums, add_column_sums_naive];
    bench_with_naive(c, "add_column_sums", kernels, &x, WIDTH, |kernel, x| kernel(x, &mut sums));
    let kernels = [add_column_dots, add_column_dots_naive];
    bench_with_naive(c, "add_column_dots", kernels, &x, WIDTH, |kernel, x| kernel(x, &other[..x.len()], &mut sums));
    let kernels = [sum_of_squares, sum_of_squares_naive];
    bench_with_naive(c, "sum_of_squares", kernels, &x, WIDTH, |kernel, x| kernel(x));
}

fn rows(c: &mut Criterion) {
    norms(c);
    saved_norms::<f32>(c);
    saved_norms::<Bf16>(c);
    epilogues::<f32>(c);
    epilogues::<Bf16>(c);
    small_passes(c);
}

criterion_group!(benches, rows);
criterion_main!(benches);
