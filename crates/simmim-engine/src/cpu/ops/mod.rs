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
pub(super) mod regression;
pub(super) mod relu;
pub(super) mod soft_labels;
pub(super) mod sum;
pub(super) mod uniform_divergence;
pub(super) mod upsample;

use super::Cpu;
use super::kept::Stack;
use super::threads::split_mut;
use crate::backend::Linear;
use crate::parameters::ParameterId;
use simmim_kernels::element::Element;
use simmim_kernels::elementwise::add_scaled;
use simmim_kernels::product::product_of_packed;

/// Adds `d_yᵀ·x` to the gradient of a weight `[out, in]`.
///
/// Both operands were packed chunk by chunk; now each worker writes rows of its own, with all tokens as
/// depth: no copy per worker, no sum over workers.
fn add_weight_gradient<E: Element>(cpu: &Cpu, weight: ParameterId, d_y: &Stack, x: &Stack) {
    let (tile, (d_y, x)) = (cpu.tile, (d_y.packed(), x.packed()));
    let mut store = cpu.store.borrow_mut();
    let (gradient, start) = store.gradient_to_start(weight);
    // whole blocks of rows to each worker
    let groups = cpu.threads.groups(d_y.groups());
    let row = |block: usize| (block * tile.height()).min(d_y.columns());
    let groups: Vec<_> = groups.iter().map(|g| row(g.start)..row(g.end)).collect();
    let tasks = groups.iter().zip(split_mut(gradient, &groups, x.columns())).collect();
    cpu.threads.map(tasks, |(group, gradient)| product_of_packed::<E>(tile, d_y, group.start, x, gradient, start));
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
