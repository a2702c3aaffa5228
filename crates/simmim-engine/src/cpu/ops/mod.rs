//! One file per operation: its forward pass, what it keeps, its backward pass.

pub(super) mod add_positions;
pub(super) mod attention_branch;
pub(super) mod cross_entropy;
mod frame;
pub(super) mod gather_rows;
pub(super) mod gelu;
mod heads;
pub(super) mod hide;
pub(super) mod layer_norm;
pub(super) mod linear;
pub(super) mod mlp_branch;
pub(super) mod parameter;
pub(super) mod patch_embed;
pub(super) mod prepend_token;
pub(super) mod regression;

use super::Cpu;
use super::threads::split_mut;
use crate::backend::Linear;
use crate::parameters::ParameterId;
use simmim_kernels::elementwise::{add_bias, add_column_sums, add_scaled};
use simmim_kernels::matmul::{Into, Matrix, matmul};

/// `y = x·Wᵀ + b` for `rows` rows.
///
/// # Shapes
/// `x` `[rows, in]`, `weight` `[out, in]`, `bias` `[out]`, `y` `[rows, out]`.
fn project(x: &[f32], weight: &[f32], bias: Option<&[f32]>, rows: usize, y: &mut [f32]) {
    let (inputs, outputs) = (x.len() / rows, y.len() / rows);
    let weight = Matrix::new(weight, outputs, inputs);
    matmul(Matrix::new(x, rows, inputs), weight.transposed(), y, outputs, Into::Overwrite);
    if let Some(bias) = bias {
        add_bias(y, bias);
    }
}

/// `d_x = d_y·W` for `rows` rows.
fn project_back(d_y: &[f32], weight: &[f32], rows: usize, d_x: &mut [f32]) {
    let (inputs, outputs) = (d_x.len() / rows, d_y.len() / rows);
    matmul(Matrix::new(d_y, rows, outputs), Matrix::new(weight, outputs, inputs), d_x, inputs, Into::Overwrite);
}

/// Adds `d_yᵀ·x` to the gradient of a weight `[out, in]`, each worker writing rows of its own.
fn add_weight_gradient(cpu: &Cpu, weight: ParameterId, d_y: &[f32], x: &[f32], rows: usize) {
    if rows == 0 {
        return;
    }
    let (inputs, outputs) = (x.len() / rows, d_y.len() / rows);
    let mut store = cpu.store.borrow_mut();
    let groups = cpu.threads.groups(outputs);
    let parts = split_mut(store.gradient_mut(weight), &groups, inputs);
    let tasks = groups.iter().zip(parts).collect();
    cpu.threads.map(tasks, |(group, part)| {
        let d_y = Matrix::strided(&d_y[group.start..], rows, group.len(), outputs);
        matmul(d_y.transposed(), Matrix::new(x, rows, inputs), part, inputs, Into::Add);
    });
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
