//! One file per operation: its forward pass, what it keeps, its backward pass.

pub(super) mod add_positions;
pub(super) mod attention_branch;
pub(super) mod bias;
mod blocks;
pub(super) mod convolution;
pub(super) mod cross_entropy;
mod frame;
pub(super) mod gather_rows;
pub(super) mod gelu;
pub(super) mod gumbel_softmax;
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
pub(super) mod recompute;
pub(super) mod regression;
pub(super) mod relu;
pub(super) mod soft_labels;
pub(super) mod sum;
pub(super) mod uniform_divergence;
pub(super) mod upsample;

use super::Cpu;
use super::kept::Stack;
use super::threads::{divide, split_mut};
use crate::backend::Linear;
use crate::parameters::ParameterId;
use simmim_kernels::element::Element;
use simmim_kernels::elementwise::add_scaled;
use simmim_kernels::product::product_of_packed;

/// Blocks of rows of a weight's gradient that are one task, about: the product reads its other operand again
/// after six of them, so two times six cost no more than all.
const GRADIENT_BLOCKS: usize = 12;

/// The operands of a weight's gradient, `d_yᵀ·x` `[out, in]`.
type GradientOf<'a> = (ParameterId, &'a Stack, &'a Stack);

/// Adds `d_yᵀ·x` to the gradients of weights.
///
/// Both operands were packed chunk by chunk; now each task writes rows of its own, with all tokens as
/// depth: no copy per task, no sum over tasks.
fn add_weight_gradients<E: Element>(cpu: &Cpu, weights: &[GradientOf]) {
    let tile = cpu.tile;
    let mut store = cpu.store.borrow_mut();
    let mut tasks = Vec::new();
    let gradients = store.gradients_to_start(weights.iter().map(|(weight, _, _)| *weight));
    for ((_, d_y, x), (gradient, start)) in weights.iter().zip(gradients) {
        let (d_y, x) = (d_y.packed(), x.packed());
        // whole blocks of rows to each task, and tasks that two workers share evenly
        let rows = divide(d_y.groups(), d_y.groups().div_ceil(GRADIENT_BLOCKS).next_multiple_of(2));
        let row = |block: usize| (block * tile.height()).min(d_y.columns());
        let rows: Vec<_> = rows.iter().map(|blocks| row(blocks.start)..row(blocks.end)).collect();
        let gradients = split_mut(gradient, &rows, x.columns());
        tasks.extend(rows.iter().zip(gradients).map(|(rows, gradient)| (d_y, rows.start, x, gradient, start)));
    }
    cpu.threads.map(tasks, |(d_y, first, x, gradient, start)| {
        product_of_packed::<E>(tile, d_y, first, x, gradient, start);
    });
}

/// Adds `d`, summed over rows, to the gradient of a bias, if the layer has one.
fn add_bias_gradient(cpu: &Cpu, linear: &Linear, d: &[f32]) {
    if let Some(bias) = linear.bias {
        add_gradient(cpu, bias, d);
    }
}

/// Adds to the gradient of a parameter.
fn add_gradient(cpu: &Cpu, id: ParameterId, d: &[f32]) {
    add_scaled(cpu.store.borrow_mut().gradient_mut(id), 1.0, d);
}
