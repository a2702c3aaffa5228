//! Packing of operands of ViT-S: activations as they are stored, and weights from f32, in both directions.

mod common;

use common::{beside_naive, numbers};
use criterion::{Criterion, criterion_group, criterion_main};
use simmim_kernels::element::{Bf16, Element};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{
    Layout, pack_depth_by_column, pack_depth_by_row, pack_naive, pack_weight_by_column, pack_weight_by_row,
};
use simmim_kernels::product::Tile;

/// Columns of all operands.
const COLUMNS: usize = 384;

/// Rows of activations, and of a weight of the MLP.
const TOKENS: usize = 197;
const OUTPUTS: usize = 1536;

type Pack<S> = fn(Matrix<S>, Layout, &mut [u32]);

/// `layout` is that of an operand of some rows.
fn pack<S: Element>(
    c: &mut Criterion,
    name: &str,
    kernels: [Pack<S>; 2],
    rows: &[S],
    layout: impl Fn(usize) -> Layout,
) {
    let mut lanes = vec![0; layout(rows.len() / COLUMNS).lanes()];
    beside_naive(c, name, kernels, rows, COLUMNS, |kernel, rows| {
        let count = rows.len() / COLUMNS;
        let layout = layout(count);
        kernel(Matrix::new(rows, count, COLUMNS), layout, &mut lanes[..layout.lanes()]);
    });
}

fn by_row_naive<S: Element, E: Element>(b: Matrix<S>, layout: Layout, out: &mut [u32]) {
    pack_naive::<E>(b.rows(), layout, |k, j| b.at(k, j), out);
}

fn by_column_naive<S: Element, E: Element>(b: Matrix<S>, layout: Layout, out: &mut [u32]) {
    pack_naive::<E>(b.columns(), layout, |k, j| b.at(j, k), out);
}

fn both_directions<E: Element>(c: &mut Criterion) {
    let width = Tile::detect().width();
    let by_row = |rows: usize| Layout::new::<E>(rows, COLUMNS, width);
    let by_column = |rows: usize| Layout::new::<E>(COLUMNS, rows, width);
    let name = |kernel: &str| format!("{kernel} {:?}", E::KIND);

    let stored: Vec<E> = numbers(TOKENS * COLUMNS).into_iter().map(E::of).collect();
    pack(c, &name("pack_depth_by_row"), [pack_depth_by_row, by_row_naive::<E, E>], &stored, by_row);
    pack(c, &name("pack_depth_by_column"), [pack_depth_by_column, by_column_naive::<E, E>], &stored, by_column);

    let weight = numbers(OUTPUTS * COLUMNS);
    let from_first: Pack<f32> = |weight, layout, out| pack_weight_by_row::<E>(weight, layout, 0, out);
    pack(c, &name("pack_weight_by_row"), [from_first, by_row_naive::<f32, E>], &weight, by_row);
    let from_first: Pack<f32> = |weight, layout, out| pack_weight_by_column::<E>(weight, layout, 0, out);
    pack(c, &name("pack_weight_by_column"), [from_first, by_column_naive::<f32, E>], &weight, by_column);
}

fn packing(c: &mut Criterion) {
    both_directions::<f32>(c);
    both_directions::<Bf16>(c);
}

criterion_group!(benches, packing);
criterion_main!(benches);
