//! One file per operation: its forward pass, what it keeps, its backward pass.

pub(super) mod add_positions;
pub(super) mod attention_branch;
pub(super) mod convolution;
pub(super) mod cross_entropy;
mod frame;
pub(super) mod gather_rows;
pub(super) mod gelu;
pub(super) mod gumbel_softmax;
mod heads;
pub(super) mod hide;
pub(super) mod laplace;
pub(super) mod layer_norm;
pub(super) mod linear;
pub(super) mod max_pool;
pub(super) mod mean_tokens;
pub(super) mod mlp_branch;
pub(super) mod parameter;
pub(super) mod patch_embed;
pub(super) mod position_bias;
pub(super) mod prepend_token;
pub(super) mod regression;
pub(super) mod relu;
pub(super) mod soft_labels;
pub(super) mod sum;
pub(super) mod uniform_divergence;
pub(super) mod upsample;

use super::Cpu;
use super::threads::split_mut;
use crate::backend::Linear;
use crate::parameters::ParameterId;
use simmim_kernels::bf16::Operands;
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{pack, packed_len};
use simmim_kernels::product::{Rows, Start, Tile, product};

/// `y = x·Wᵀ + b` for `rows` rows.
///
/// # Shapes
/// `x` `[rows, in]`, `weight` packed from `Wᵀ` `[in, out]`, `bias` `[out]`, `y` `[rows, out]`.
fn project(tile: Tile, x: &[f32], weight: &[f32], bias: Option<&[f32]>, rows: usize, y: &mut [f32]) {
    let (inputs, outputs) = (x.len() / rows, y.len() / rows);
    let start = bias.map_or(Start::Zero, Start::Bias);
    product(tile, Rows::InPlace(Matrix::new(x, rows, inputs)), weight, inputs, 0..inputs, outputs, y, outputs, start);
}

/// `d_x = d_y·W` for `rows` rows, `weight` packed from `W` `[out, in]`.
fn project_back(tile: Tile, d_y: &[f32], weight: &[f32], rows: usize, d_x: &mut [f32]) {
    project(tile, d_y, weight, None, rows, d_x);
}

/// Depth that a weight gradient's products are cut into: two operands of that depth stay in cache.
const GRADIENT_DEPTH: usize = 768;

/// Adds `d_yᵀ·x` to the gradient of a weight `[out, in]`.
///
/// Both operands are packed once, with all tokens as depth, then each worker writes rows of its own:
/// no copy per worker, no sum over workers.
fn add_weight_gradient(cpu: &Cpu, weight: ParameterId, d_y: &[f32], x: &[f32], rows: usize) {
    if rows == 0 {
        return;
    }
    let tile = cpu.tile;
    let (inputs, outputs) = (x.len() / rows, d_y.len() / rows);
    let panels = pack_in_parallel(cpu, Matrix::new(x, rows, inputs), tile.width());
    let blocks = pack_in_parallel(cpu, Matrix::new(d_y, rows, outputs), tile.height());
    let mut store = cpu.store.borrow_mut();
    // whole blocks of rows to each worker
    let groups: Vec<_> = cpu.threads.groups(outputs.div_ceil(tile.height()));
    let groups: Vec<_> = groups.iter().map(|g| g.start * tile.height()..(g.end * tile.height()).min(outputs)).collect();
    let tasks = groups.iter().zip(split_mut(store.gradient_mut(weight), &groups, inputs)).collect();
    let (panels, blocks): (&[f32], &[f32]) = (&panels, &blocks);
    cpu.threads.map(tasks, |(group, d_weight)| {
        let a = Rows::Packed { blocks: &blocks[group.start * rows..], rows: group.len(), depth: rows };
        for start in (0..rows).step_by(GRADIENT_DEPTH) {
            let depth = start..(start + GRADIENT_DEPTH).min(rows);
            product(tile, a, panels, rows, depth, inputs, d_weight, inputs, Start::Old);
        }
    });
}

/// Packs groups of `width` columns, each worker its share.
fn pack_in_parallel(cpu: &Cpu, b: Matrix, width: usize) -> super::Buffer<f32> {
    let mut packed = cpu.shelves.f32.take(packed_len(b.rows(), b.columns(), width));
    let groups = cpu.threads.groups(b.columns().div_ceil(width));
    let tasks = groups.iter().zip(split_mut(&mut packed, &groups, b.rows() * width)).collect();
    cpu.threads.map(tasks, |(group, panels)| pack(b, width, group.start, Operands::F32, panels));
    packed
}

/// Adds the column sums of `d_y` to the gradient of a bias, if the layer has one.
fn add_bias_gradient(cpu: &Cpu, linear: &Linear, d_y: &[f32]) {
    if let Some(bias) = linear.bias {
        add_column_sums(d_y, cpu.store.borrow_mut().gradient_mut(bias));
    }
}

/// Adds one worker's sums to the gradient of a parameter.
fn add_gradient(cpu: &Cpu, id: ParameterId, d: &[f32]) {
    add_scaled(cpu.store.borrow_mut().gradient_mut(id), 1.0, d);
}
