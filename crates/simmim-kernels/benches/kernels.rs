//! Throughput of the kernels at the sizes of a ViT step, beside what they replace.
//!
//! `cargo bench -p simmim-kernels`; as a test (`cargo test --benches`) each runs once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemmkit::{MatMut, MatRef, Parallelism, gemm};
use simmim_kernels::attention::{HeadShape, Scratch, attend, attend_backward};
use simmim_kernels::element::{Bf16, Element, padded};
use simmim_kernels::gelu::{gelu_with_slope, gelu_with_slope_naive};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Layout, Packed, pack_depth_by_row};
use simmim_kernels::product::{Start, Tile, product, product_naive, product_of_packed};
use simmim_kernels::softmax::{softmax, softmax_naive};
use std::hint::black_box;

/// Rows, depth, columns of the forward products of ViT-S at 224² and of a ViT 192 wide at 32².
const FORWARD: [(usize, usize, usize); 5] =
    [(197, 384, 1152), (197, 384, 1536), (197, 1536, 384), (64, 192, 768), (64, 768, 192)];

/// Outputs, tokens, inputs of weight gradients of the same.
const GRADIENT: [(usize, usize, usize); 4] =
    [(1536, 1576, 384), (384, 1576, 1536), (768, 4096, 192), (1024, 4672, 256)];

/// Tokens and head width of ViT-S, the ViT 192 wide at 32², and windows of Swin.
const HEADS: [(usize, usize); 4] = [(197, 64), (64, 64), (49, 32), (36, 32)];

fn packed<E: Element>(rows: &[E], depth: usize, columns: usize, width: usize) -> (Vec<u32>, Layout) {
    let layout = Layout::new::<E>(depth, columns, width);
    let mut lanes = vec![0; layout.lanes()];
    pack_depth_by_row(Matrix::new(rows, depth, columns), layout, &mut lanes);
    (lanes, layout)
}

fn forward<E: Element>(c: &mut Criterion, kind: &str) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("forward product");
    for (m, k, n) in FORWARD {
        group.throughput(Throughput::Elements((2 * m * k * n) as u64)); // "elements" are operations
        let (a, b, mut out) = (vec![E::of(0.5); m * k], vec![E::of(0.25); k * n], vec![0.0; m * n]);
        let (panels, layout) = packed(&b, k, n, tile.width());
        group.bench_function(BenchmarkId::new(kind, format!("{m}x{k}x{n}")), |bench| {
            let (a, b) = (Matrix::new(&a, m, k), Packed::new(&panels, layout));
            bench.iter(|| product(tile, a, black_box(b), &mut out, n, Start::Zero));
        });
    }
    group.finish();
}

fn weight_gradients<E: Element>(c: &mut Criterion, kind: &str) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("weight gradient");
    for (m, k, n) in GRADIENT {
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let (d_y, x, mut out) = (vec![E::of(0.5); m * k], vec![E::of(0.25); k * n], vec![0.0; m * n]);
        let (blocks, of_blocks) = packed(&d_y, k, m, tile.height());
        let (panels, of_panels) = packed(&x, k, n, tile.width());
        group.bench_function(BenchmarkId::new(kind, format!("{m}x{k}x{n}")), |bench| {
            let (a, b) = (Packed::new(&blocks, of_blocks), Packed::new(&panels, of_panels));
            bench.iter(|| product_of_packed::<E>(tile, a, 0, black_box(b), &mut out, Start::Old));
        });
    }
    group.finish();
}

fn attention<E: Element>(c: &mut Criterion, kind: &str) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("attention of a head");
    for (tokens, width) in HEADS {
        let shape = HeadShape { tokens, width };
        let [q, k, v, d_o] = [(); 4].map(|_| vec![E::of(0.1); shape.rows_len::<E>()]);
        let mut p = vec![E::default(); tokens * padded::<E>(tokens)];
        let [mut o, mut d_q, mut d_k, mut d_v] = [(); 4].map(|_| vec![0.0; tokens * width]);
        let mut scratch = Scratch::default();
        group.throughput(Throughput::Elements((4 * tokens * tokens * width) as u64));
        group.bench_function(BenchmarkId::new(format!("forward {kind}"), format!("{tokens}x{width}")), |bench| {
            bench.iter(|| attend(tile, shape, black_box(&q), &k, &v, &[], &mut p, &mut o, &mut scratch));
        });
        group.throughput(Throughput::Elements((8 * tokens * tokens * width) as u64));
        group.bench_function(BenchmarkId::new(format!("backward {kind}"), format!("{tokens}x{width}")), |bench| {
            bench.iter(|| {
                let (d_q, d_k, d_v) = (&mut d_q, &mut d_k, &mut d_v);
                attend_backward(tile, shape, black_box(&q), &k, &v, &p, &d_o, d_q, d_k, d_v, None, &mut scratch);
            });
        });
    }
    group.finish();
}

/// What a tile is measured against: the naive twin, and a general library that packs on every call.
fn compared(c: &mut Criterion) {
    let (m, k, n) = (64, 192, 768);
    let (a, b, mut out) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
    let mut group = c.benchmark_group("forward product");
    group.throughput(Throughput::Elements((2 * m * k * n) as u64));
    group.bench_function(BenchmarkId::new("naive", format!("{m}x{k}x{n}")), |bench| {
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        bench.iter(|| product_naive(a, black_box(b), &mut out, n, Start::Zero));
    });
    group.bench_function(BenchmarkId::new("gemmkit f32", format!("{m}x{k}x{n}")), |bench| {
        let (a, b) = (MatRef::from_row_major(&a, m, k), MatRef::from_row_major(&b, k, n));
        bench.iter(|| gemm(1.0, a, black_box(b), 0.0, MatMut::from_row_major(&mut out, m, n), Parallelism::Serial));
    });
    group.finish();
}

fn products(c: &mut Criterion) {
    forward::<f32>(c, "f32");
    forward::<Bf16>(c, "bf16");
    compared(c);
    weight_gradients::<f32>(c, "f32");
    weight_gradients::<Bf16>(c, "bf16");
    attention::<f32>(c, "f32");
    attention::<Bf16>(c, "bf16");
}

fn elementwise(c: &mut Criterion) {
    let len = 197 * 1536;
    let source: Vec<f32> = (0..len).map(|i| (i % 600) as f32 * 0.01 - 3.0).collect();
    let (mut x, mut slope) = (source.clone(), vec![0.0; len]);
    let mut group = c.benchmark_group("element-wise, 197×1536");
    group.throughput(Throughput::Elements(len as u64));
    group.bench_function("gelu with slope", |bench| {
        bench.iter(|| {
            x.copy_from_slice(&source);
            gelu_with_slope(black_box(&mut x), &mut slope);
        });
    });
    group.bench_function("gelu with slope, naive, a hundredth", |bench| {
        bench.iter(|| gelu_with_slope_naive(black_box(&mut x[..len / 100]), &mut slope[..len / 100]));
    });
    group.bench_function("softmax", |bench| bench.iter(|| softmax(black_box(&mut x), 197)));
    group.bench_function("softmax, naive", |bench| bench.iter(|| softmax_naive(black_box(&mut x), 197)));
    group.finish();
}

criterion_group!(benches, products, elementwise);
criterion_main!(benches);
