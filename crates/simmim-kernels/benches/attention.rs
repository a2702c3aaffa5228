//! Attention of a head at the sizes of ViT and Swin, and the kernels around it.

mod common;

use common::{bench_with_naive, numbers};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use simmim_kernels::attention::{
    AttentionScratch, HeadShape, attend, attend_backward, attend_backward_naive, attend_naive,
};
use simmim_kernels::continuous_position_bias::{
    PositionBiasWeights, continuous_position_bias, continuous_position_bias_backward,
    continuous_position_bias_backward_naive, continuous_position_bias_naive,
};
use simmim_kernels::dtype::{Bf16, Dtype, padded};
use simmim_kernels::heads::{
    HeadColumns, RowScale, Slots, copy_scaled, copy_scaled_naive, scale_backward, scale_backward_naive, scatter,
    scatter_naive,
};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::Tile;
use simmim_kernels::softmax::{softmax, softmax_backward, softmax_backward_naive, softmax_naive};
use std::hint::black_box;

/// Tokens and head width of Swin's windows, of a ViT of width 192 at 32² pixels, and of ViT-S.
const HEADS: [(usize, usize); 4] = [(36, 32), (49, 32), (64, 64), (197, 64)];

fn heads<T: Dtype>(c: &mut Criterion) {
    let (tile, kind) = (Tile::detect(), T::KIND);
    let mut group = c.benchmark_group("attention of a head");
    for (tokens, width) in HEADS {
        let shape = HeadShape { tokens, width };
        let rows = [(); 4].map(|_| vec![T::narrowed(0.1); shape.rows_len::<T>()]);
        let [q, k, v, d_o] = rows.each_ref().map(|rows| Matrix::new(rows, tokens, width));
        let mut p = vec![T::default(); tokens * padded::<T>(tokens)];
        let mut p_naive = vec![0.0; tokens * tokens];
        let [mut o, mut d_q, mut d_k, mut d_v] = [(); 4].map(|_| vec![0.0; tokens * width]);
        let mut scratch = AttentionScratch::default();
        let id = |name: &str| BenchmarkId::new(format!("{name} {kind:?}"), format!("{tokens}x{width}"));
        // criterion calls them elements; here they are operations
        group.throughput(Throughput::Elements((4 * tokens * tokens * width) as u64));
        group.bench_function(id("forward"), |bench| {
            bench.iter(|| attend(tile, shape, black_box(q), k, v, &[], &mut p, &mut o, &mut scratch));
        });
        group.bench_function(id("forward naive"), |bench| {
            bench.iter(|| attend_naive(shape, black_box(q), k, v, &[], &mut p_naive, &mut o));
        });
        group.throughput(Throughput::Elements((8 * tokens * tokens * width) as u64));
        group.bench_function(id("backward"), |bench| {
            bench.iter(|| {
                let (d_q, d_k, d_v) = (&mut d_q, &mut d_k, &mut d_v);
                attend_backward(tile, shape, black_box(q), k, v, &p, d_o, d_q, d_k, d_v, None, &mut scratch);
            });
        });
        group.bench_function(id("backward naive"), |bench| {
            bench.iter(|| {
                let (d_q, d_k, d_v) = (&mut d_q, &mut d_k, &mut d_v);
                attend_backward_naive(shape, black_box(q), k, v, &p, d_o, d_q, d_k, d_v, None);
            });
        });
    }
    group.finish();
}

fn scores(c: &mut Criterion) {
    let tokens = 197;
    let scores = numbers(tokens * tokens);
    let kernels = [softmax, softmax_naive];
    bench_with_naive(c, "softmax", kernels, &scores, tokens, |kernel, scores| kernel(scores, tokens, tokens));
    let p = vec![1.0 / tokens as f32; scores.len()];
    let kernels = [softmax_backward, softmax_backward_naive];
    bench_with_naive(c, "softmax_backward", kernels, &scores, tokens, |kernel, d| kernel(&p[..d.len()], d, tokens));
}

/// Moves of the columns of one head of ViT-S. Rows of unit length belong to SwinV2's cosine attention, and slots to windows with
/// padding.
fn moves<T: Dtype>(c: &mut Criterion) {
    let (tokens, width, stride) = (197, 64, 3 * 384);
    let name = |kernel: &str| format!("{kernel} {:?}", T::KIND);
    let rows: Vec<T> = numbers(tokens * stride).into_iter().map(T::narrowed).collect();
    let from = HeadColumns { rows: &rows, stride, width, slots: None };
    let (slots, padding): (Vec<u32>, _) = ((0..tokens as u32).rev().collect(), vec![T::default(); width]);
    let (dense, mut out) = (numbers(tokens * width), vec![T::default(); tokens * width]);

    for (what, scale) in
        [("copied", RowScale::By(1.0)), ("scaled", RowScale::By(0.125)), ("unit", RowScale::ToLength(1.0))]
    {
        let kernels = [copy_scaled::<T>, copy_scaled_naive::<T>];
        bench_with_naive(c, &name(&format!("copy_scaled, {what}")), kernels, &dense, width, |kernel, dense| {
            kernel(from, scale, &mut out[..dense.len()]);
        });
    }
    let kernels = [copy_scaled::<T>, copy_scaled_naive::<T>];
    bench_with_naive(c, &name("copy_scaled, by slots"), kernels, &dense, width, |kernel, dense| {
        let slots = Slots { rows: &slots, count: tokens, padding: &padding };
        kernel(HeadColumns { slots: Some(slots), ..from }, RowScale::By(1.0), &mut out[..dense.len()]);
    });
    let kernels = [scale_backward::<T>, scale_backward_naive::<T>];
    bench_with_naive(c, &name("scale_backward unit"), kernels, &dense, width, |kernel, d| {
        kernel(from, RowScale::ToLength(1.0), d)
    });
    let mut of_padding = vec![0.0; width];
    let kernels = [scatter::<T>, scatter_naive::<T>];
    bench_with_naive(c, &name("scatter"), kernels, &dense, width, |kernel, rows| {
        kernel(rows, width, &slots[..rows.len() / width], &mut out, &mut of_padding);
    });
}

/// SwinV2's continuous position bias for all offsets within a window of 12² tokens.
fn biases(c: &mut Criterion) {
    let (pairs, width, heads) = (23 * 23, 512, 6);
    let (w1, b1, w2) = (numbers(2 * width), numbers(width), numbers(heads * width));
    let mlp = PositionBiasWeights { w1: &w1, b1: &b1, w2: &w2 };
    let (offsets, d_bias) = (numbers(2 * pairs), numbers(pairs * heads));
    let (mut hidden, mut bias) = (vec![0.0; pairs * width], vec![0.0; pairs * heads]);
    let kernels = [continuous_position_bias, continuous_position_bias_naive];
    bench_with_naive(c, "continuous_position_bias", kernels, &offsets, 2, |kernel, offsets| {
        let pairs = offsets.len() / 2;
        kernel(mlp, offsets, &mut hidden[..pairs * width], &mut bias[..pairs * heads]);
    });
    let mut gradients = mlp.zero_gradients();
    let kernels = [continuous_position_bias_backward, continuous_position_bias_backward_naive];
    bench_with_naive(c, "continuous_position_bias_backward", kernels, &offsets, 2, |kernel, offsets| {
        let of_hidden = offsets.len() / 2 * width;
        let of_bias = offsets.len() / 2 * heads;
        kernel(mlp, offsets, &hidden[..of_hidden], &bias[..of_bias], &d_bias[..of_bias], &mut gradients);
    });
}

fn attention(c: &mut Criterion) {
    heads::<f32>(c);
    heads::<Bf16>(c);
    scores(c);
    moves::<f32>(c);
    moves::<Bf16>(c);
    biases(c);
}

criterion_group!(benches, attention);
criterion_main!(benches);
