//! Packing of operands of ViT-S in both orders: activations from the type they are stored in, and weights from f32.

mod common;

use common::{bench_with_naive, numbers};
use criterion::{Criterion, criterion_group, criterion_main};
use simmim_kernels::dtype::{Bf16, Dtype};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{
    PackedLayout, pack_depth_by_column, pack_depth_by_row, pack_naive, pack_weight_by_column, pack_weight_by_row,
};
use simmim_kernels::product::Tile;

/// Columns of all operands.
const COLUMNS: usize = 384;

/// Rows of the activations, and of a weight of the MLP.
const TOKENS: usize = 197;
const OUTPUTS: usize = 1536;

type Pack<S> = fn(Matrix<S>, PackedLayout, &mut [u32]);

/// `layout` takes the number of rows, as the naive twin gets fewer of them.
fn pack<S: Dtype>(
    c: &mut Criterion,
    name: &str,
    kernels: [Pack<S>; 2],
    rows: &[S],
    layout: impl Fn(usize) -> PackedLayout,
) {
    let mut lanes = vec![0; layout(rows.len() / COLUMNS).lanes()];
    bench_with_naive(c, name, kernels, rows, COLUMNS, |kernel, rows| {
        let count = rows.len() / COLUMNS;
        let layout = layout(count);
        kernel(Matrix::new(rows, count, COLUMNS), layout, &mut lanes[..layout.lanes()]);
    });
}

fn by_row_naive<S: Dtype, T: Dtype>(b: Matrix<S>, layout: PackedLayout, out: &mut [u32]) {
    pack_naive::<T>(b.rows(), layout, |k, j| b.at(k, j), out);
}

fn by_column_naive<S: Dtype, T: Dtype>(b: Matrix<S>, layout: PackedLayout, out: &mut [u32]) {
    pack_naive::<T>(b.columns(), layout, |k, j| b.at(j, k), out);
}

fn both_directions<T: Dtype>(c: &mut Criterion) {
    let tile = Tile::detect();
    let by_row = |rows: usize| tile.panels::<T>(rows, COLUMNS);
    let by_column = |rows: usize| tile.panels::<T>(COLUMNS, rows);
    let name = |kernel: &str| format!("{kernel} {:?}", T::KIND);

    let stored: Vec<T> = numbers(TOKENS * COLUMNS).into_iter().map(T::narrowed).collect();
    pack(c, &name("pack_depth_by_row"), [pack_depth_by_row, by_row_naive::<T, T>], &stored, by_row);
    pack(c, &name("pack_depth_by_column"), [pack_depth_by_column, by_column_naive::<T, T>], &stored, by_column);

    let weight = numbers(OUTPUTS * COLUMNS);
    let from_first: Pack<f32> = |weight, layout, out| pack_weight_by_row::<T>(weight, layout, 0, out);
    pack(c, &name("pack_weight_by_row"), [from_first, by_row_naive::<f32, T>], &weight, by_row);
    let from_first: Pack<f32> = |weight, layout, out| pack_weight_by_column::<T>(weight, layout, 0, out);
    pack(c, &name("pack_weight_by_column"), [from_first, by_column_naive::<f32, T>], &weight, by_column);
}

fn packing(c: &mut Criterion) {
    both_directions::<f32>(c);
    both_directions::<Bf16>(c);
}

criterion_group!(benches, packing);
criterion_main!(benches);
