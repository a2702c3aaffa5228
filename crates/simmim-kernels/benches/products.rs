//! Throughput of the products in a training step of a ViT, to compare with the peak of the registers, the naive twins
//! and a general library.
//!
//! `cargo bench -p simmim-kernels --bench products` runs them. As tests (`cargo test --benches`), each runs once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemmkit::{MatMut, MatRef, Parallelism, gemm};
use simmim_kernels::aligned::Aligned;
use simmim_kernels::dtype::{Bf16, Dtype, padded};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Packed, PackedLayout, pack_depth_by_row};
use simmim_kernels::peak::PeakLoop;
use simmim_kernels::product::{Accumulator, Tile, product, product_naive, product_of_packed, product_of_packed_naive};
use std::hint::black_box;

/// Rows, depth and columns of the forward products of ViT-S at 224² pixels and of a ViT of width 192 at 32².
const FORWARD: [(usize, usize, usize); 5] =
    [(197, 384, 1152), (197, 384, 1536), (197, 1536, 384), (64, 192, 768), (64, 768, 192)];

/// Sizes beside one of those that no tile divides, which should cost little more for each operation.
const ODD: [(usize, usize, usize); 6] =
    [(191, 384, 1152), (199, 384, 1152), (197, 383, 1151), (197, 385, 1153), (197, 391, 1159), (193, 377, 1145)];

/// Outputs, tokens and inputs of the weight gradients of the same models.
const GRADIENT: [(usize, usize, usize); 4] =
    [(1536, 1576, 384), (384, 1576, 1536), (768, 4096, 192), (1024, 4672, 256)];

/// As [`ODD`], beside the second of those.
const ODD_GRADIENT: [(usize, usize, usize); 4] =
    [(383, 1575, 1535), (385, 1577, 1537), (391, 1583, 1543), (377, 1567, 1529)];

/// Rows that a naive twin computes.
const NAIVE_ROWS: usize = 2;

/// What criterion calls elements are operations here; a multiplication and an addition count as two.
fn operations(m: usize, k: usize, n: usize) -> Throughput {
    Throughput::Elements((2 * m * k * n) as u64)
}

/// Rows of a value, as [`Matrix`] wants them.
fn stored<T: Dtype>(value: f32, rows: usize, columns: usize) -> Vec<T> {
    vec![T::narrowed(value); rows * padded::<T>(columns)]
}

fn packed<T: Dtype>(rows: &[T], depth: usize, columns: usize, layout: PackedLayout) -> (Vec<u32>, PackedLayout) {
    let mut lanes = vec![0; layout.lanes()];
    pack_depth_by_row(Matrix::new(rows, depth, columns), layout, &mut lanes);
    (lanes, layout)
}

fn peak<T: Dtype>(c: &mut Criterion) {
    const ROUNDS: u64 = 10_000;
    let mut group = c.benchmark_group("register peak");
    for (name, peak) in [("best", PeakLoop::detect(T::KIND)), ("portable", PeakLoop::portable())] {
        group.throughput(Throughput::Elements(ROUNDS * peak.flops_per_round()));
        let id = BenchmarkId::new(format!("{name} {:?}", T::KIND), peak.name());
        group.bench_function(id, |bench| bench.iter(|| peak.run(black_box(ROUNDS))));
    }
    group.finish();
}

fn forward<T: Dtype>(c: &mut Criterion) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("forward product");
    for (m, k, n) in FORWARD.into_iter().chain(ODD) {
        let id = |name: &str, m: usize| BenchmarkId::new(format!("{name} {:?}", T::KIND), format!("{m}x{k}x{n}"));
        let (a, b, mut out) = (stored::<T>(0.5, m, k), stored::<T>(0.25, k, n), vec![0.0; m * n]);
        let (panels, layout) = packed(&b, k, n, tile.panels::<T>(k, n));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        group.throughput(operations(m, k, n));
        group.bench_function(id("tiles", m), |bench| {
            let b = Packed::new(&panels, layout);
            bench.iter(|| product(tile, a, black_box(b), &mut out, n, Accumulator::Zero));
        });
        if ODD.contains(&(m, k, n)) {
            continue; // the naive twin says nothing new of them, and two would have one name
        }
        group.throughput(operations(NAIVE_ROWS, k, n));
        group.bench_function(id("naive", NAIVE_ROWS), |bench| {
            let a = Matrix::new(a.data(), NAIVE_ROWS, k);
            bench.iter(|| product_naive(a, black_box(b), &mut out, n, Accumulator::Zero));
        });
    }
    group.finish();
}

/// Rows of a chunk.
const CHUNK: usize = 160;

/// Packs rows chunk by chunk.
fn in_chunks<T: Dtype>(rows: &[T], count: usize, columns: usize, layout: PackedLayout) -> Aligned<u32> {
    let (row, of_chunk, mut lanes) = (padded::<T>(columns), layout.repeated(1), Aligned::new(layout.lanes()));
    for (chunk, lanes) in lanes.chunks_exact_mut(of_chunk.lanes()).enumerate() {
        let rows_of_chunk = CHUNK.min(count - chunk * CHUNK);
        let part = Matrix::new(&rows[chunk * CHUNK * row..][..rows_of_chunk * row], rows_of_chunk, columns);
        pack_depth_by_row(part, of_chunk, lanes);
    }
    lanes
}

fn weight_gradients<T: Dtype>(c: &mut Criterion) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("weight gradient");
    for (m, k, n) in GRADIENT.into_iter().chain(ODD_GRADIENT) {
        let id = |name: &str, m: usize| BenchmarkId::new(format!("{name} {:?}", T::KIND), format!("{m}x{k}x{n}"));
        let (d_y, x, mut out) = (stored::<T>(0.5, k, m), stored::<T>(0.25, k, n), Aligned::new(m * n));
        // the backend packs tokens chunk by chunk
        let chunks = k.div_ceil(CHUNK);
        let of_blocks = tile.blocks::<T>(CHUNK, m).repeated(chunks);
        let of_panels = tile.panels::<T>(CHUNK, n).repeated(chunks);
        let (blocks, panels) = (in_chunks(&d_y, k, m, of_blocks), in_chunks(&x, k, n, of_panels));
        group.throughput(operations(m, k, n));
        group.bench_function(id("tiles", m), |bench| {
            let (a, b) = (Packed::new(&blocks, of_blocks), Packed::new(&panels, of_panels));
            bench.iter(|| product_of_packed::<T>(tile, a, 0, black_box(b), &mut out, Accumulator::Zero));
        });
        if ODD_GRADIENT.contains(&(m, k, n)) {
            continue; // as above
        }
        group.throughput(operations(NAIVE_ROWS, k, n));
        group.bench_function(id("naive", NAIVE_ROWS), |bench| {
            let (a, b, out) = (Matrix::new(&d_y, k, m), Matrix::new(&x, k, n), &mut out[..NAIVE_ROWS * n]);
            bench.iter(|| product_of_packed_naive(a, 0, black_box(b), out, Accumulator::Output));
        });
    }
    group.finish();
}

/// The same products by a general library, which packs B in each call.
fn library(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward product");
    for (m, k, n) in FORWARD {
        let (a, b, mut out) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
        group.throughput(operations(m, k, n));
        group.bench_function(BenchmarkId::new("gemmkit F32", format!("{m}x{k}x{n}")), |bench| {
            let (a, b) = (MatRef::from_row_major(&a, m, k), MatRef::from_row_major(&b, k, n));
            bench.iter(|| gemm(1.0, a, black_box(b), 0.0, MatMut::from_row_major(&mut out, m, n), Parallelism::Serial));
        });
    }
    group.finish();
}

fn products(c: &mut Criterion) {
    peak::<f32>(c);
    peak::<Bf16>(c);
    forward::<f32>(c);
    forward::<Bf16>(c);
    library(c);
    weight_gradients::<f32>(c);
    weight_gradients::<Bf16>(c);
}

criterion_group!(benches, products);
criterion_main!(benches);
