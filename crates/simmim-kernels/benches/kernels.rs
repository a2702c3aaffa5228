//! Throughput of the kernels at the sizes of a ViT step, beside what they replace.
//!
//! `cargo bench -p simmim-kernels`; as a test (`cargo test --benches`) each runs once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemmkit::{MatMut, MatRef, Parallelism, gemm};
use simmim_kernels::bf16::Operands;
use simmim_kernels::gelu::{gelu_with_slope, gelu_with_slope_naive};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{pack, packed_len};
use simmim_kernels::product::{Rows, Start, Tile, product};
use simmim_kernels::softmax::{softmax, softmax_naive};
use std::hint::black_box;

/// Rows, depth, columns of the forward products of ViT-S at 224² and of a ViT 192 wide at 32².
const FORWARD: [(usize, usize, usize); 5] =
    [(197, 384, 1152), (197, 384, 1536), (197, 1536, 384), (64, 192, 768), (64, 768, 192)];

/// Outputs, tokens, inputs of weight gradients of the same.
const GRADIENT: [(usize, usize, usize); 4] =
    [(1536, 1576, 384), (384, 1576, 1536), (768, 4096, 192), (1024, 4672, 256)];

fn products(c: &mut Criterion) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("forward product");
    for (m, k, n) in FORWARD {
        group.throughput(Throughput::Elements((2 * m * k * n) as u64)); // "elements" are operations
        let name = format!("{m}x{k}x{n}");
        let (a, b, mut out) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
        let mut panels = vec![0.0; packed_len(k, n, tile.width())];
        pack(Matrix::new(&b, k, n), tile.width(), 0, Operands::F32, &mut panels);
        group.bench_function(BenchmarkId::new("packed tiles", &name), |bench| {
            let rows = Rows::InPlace(Matrix::new(&a, m, k));
            bench.iter(|| product(tile, rows, black_box(&panels), k, 0..k, n, &mut out, n, Start::Zero));
        });
        group.bench_function(BenchmarkId::new("gemmkit", &name), |bench| {
            let (a, b) = (MatRef::from_row_major(&a, m, k), MatRef::from_row_major(&b, k, n));
            bench.iter(|| gemm(1.0, a, black_box(b), 0.0, MatMut::from_row_major(&mut out, m, n), Parallelism::Serial));
        });
    }
    group.finish();
}

fn weight_gradients(c: &mut Criterion) {
    let tile = Tile::detect();
    let mut group = c.benchmark_group("weight gradient");
    for (m, k, n) in GRADIENT {
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let name = format!("{m}x{k}x{n}");
        let (d_y, x, mut out) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
        let mut blocks = vec![0.0; packed_len(k, m, tile.height())];
        let mut panels = vec![0.0; packed_len(k, n, tile.width())];
        group.bench_function(BenchmarkId::new("pack and packed tiles", &name), |bench| {
            bench.iter(|| {
                pack(Matrix::new(&d_y, k, m), tile.height(), 0, Operands::F32, &mut blocks);
                pack(Matrix::new(&x, k, n), tile.width(), 0, Operands::F32, &mut panels);
                let rows = Rows::Packed { blocks: &blocks, rows: m, depth: k };
                for start in (0..k).step_by(768) {
                    product(tile, rows, black_box(&panels), k, start..(start + 768).min(k), n, &mut out, n, Start::Old);
                }
            });
        });
        group.bench_function(BenchmarkId::new("gemmkit", &name), |bench| {
            let (a, b) = (MatRef::from_col_major(&d_y, m, k), MatRef::from_row_major(&x, k, n));
            bench.iter(|| gemm(1.0, a, black_box(b), 1.0, MatMut::from_row_major(&mut out, m, n), Parallelism::Serial));
        });
    }
    group.finish();
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

criterion_group!(benches, products, weight_gradients, elementwise);
criterion_main!(benches);
