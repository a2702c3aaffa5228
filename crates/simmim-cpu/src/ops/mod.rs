//! One file per operation: its forward pass, what that saves for backward, and its backward pass.

pub(super) mod add;
pub(super) mod add_positions;
pub(super) mod attention_branch;
pub(super) mod bias_table;
mod column_blocks;
pub(super) mod continuous_position_bias;
pub(super) mod convolution;
pub(super) mod cross_entropy;
pub(super) mod gather_rows;
pub(super) mod gelu;
pub(super) mod gumbel_softmax;
pub(super) mod laplace;
pub(super) mod layer_norm;
pub(super) mod linear;
mod loss;
pub(super) mod mask_tokens;
pub(super) mod max_pool;
pub(super) mod mean_tokens;
pub(super) mod mlp_branch;
pub(super) mod parameter;
pub(super) mod patch_embed;
pub(super) mod prepend_tokens;
pub(super) mod recompute;
pub(super) mod regression;
pub(super) mod relu;
mod residual;
mod scaled_sum;
pub(super) mod soft_labels;
mod swiglu;
pub(super) mod uniform_divergence;
pub(super) mod upsample;

use super::Cpu;
use super::packed_activations::PackedActivations;
use super::threads::{divide, split_mut};
use simmim_engine::{Linear, ParameterId};
use simmim_kernels::dtype::Dtype;
use simmim_kernels::elementwise::add_scaled;
use simmim_kernels::product::product_of_packed_with_squares;

/// About the least rows of a weight's gradient in a task, if the gradient has that many. With vector instructions this is also the
/// most: their product reads its other operand again after as many rows, so a longer task would read it no less often.
const LEAST_ROWS_PER_TASK: usize = 96;

/// The most rows of a weight's gradient in a task for a unit for tiles, which reads the other operand once for all of them.
/// Their sums fill a quarter of the second-level cache of the CPUs with such a unit.
const MOST_ROWS_PER_TASK: usize = 384;

/// A weight and the operands of its gradient `d_yᵀ·x` `[out, in]`: `d_y` and `x`.
type WeightGradient<'a> = (ParameterId, &'a PackedActivations, &'a PackedActivations);

/// Adds `d_yᵀ·x` to the gradients of weights.
///
/// The operands were packed chunk by chunk. Here each task computes some rows of a gradient from all tokens, so tasks
/// need neither copies of the gradient nor sums over them. Each sum is that of its row and column alone, so it is the same
/// however many rows a task has. The squares of the gradients are summed on the way, for their norm.
fn add_weight_gradients<T: Dtype>(cpu: &Cpu, weights: &[WeightGradient]) {
    let tile = cpu.tile;
    let mut store = cpu.store.borrow_mut();
    let mut tasks = Vec::new();
    let rows_per_task = match tile.multiplies_tiles::<T>() {
        true => {
            let rows: usize = weights.iter().map(|(_, d_y, _)| d_y.packed().columns()).sum();
            (rows / (2 * cpu.threads.count())).clamp(LEAST_ROWS_PER_TASK, MOST_ROWS_PER_TASK)
        }
        false => LEAST_ROWS_PER_TASK,
    };
    let gradients = store.gradients_to_accumulate(weights.iter().map(|(weight, _, _)| *weight));
    for ((weight, d_y, x), (gradient, accumulator)) in weights.iter().zip(gradients) {
        let (d_y, x) = (d_y.packed(), x.packed());
        // each task gets whole blocks of rows, and an even number of tasks is shared evenly by two workers
        let rows = divide(d_y.groups(), d_y.columns().div_ceil(rows_per_task).next_multiple_of(2));
        let row = |block: usize| (block * d_y.width()).min(d_y.columns());
        let rows: Vec<_> = rows.iter().map(|blocks| row(blocks.start)..row(blocks.end)).collect();
        let gradients = split_mut(gradient, &rows, x.columns());
        let rows_and_gradients = rows.iter().zip(gradients);
        tasks.extend(rows_and_gradients.map(|(rows, gradient)| (*weight, d_y, rows.start, x, gradient, accumulator)));
    }
    let squares = cpu.threads.map(tasks, |(weight, d_y, first, x, gradient, accumulator)| {
        (weight, product_of_packed_with_squares::<T>(tile, d_y, first, x, gradient, accumulator))
    });
    for of_weight in squares.chunk_by(|first, second| first.0 == second.0) {
        // block by block, so that the sum does not depend on the tasks
        let sum = of_weight.iter().flat_map(|(_, squares)| squares).sum();
        store.gradients.set_squares(of_weight[0].0, sum);
    }
}

/// Adds `d`, which is a sum over rows, to the gradient of a layer's bias, if it has one.
fn add_bias_gradient(cpu: &Cpu, linear: &Linear, d: &[f32]) {
    if let Some(bias) = linear.bias {
        add_gradient(cpu, bias, d);
    }
}

/// Adds `d` to the gradient of a parameter.
fn add_gradient(cpu: &Cpu, id: ParameterId, d: &[f32]) {
    add_scaled(cpu.store.borrow_mut().gradient_mut(id), 1.0, d);
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::{Backend, Distance, Operations, ParameterTable, Precision, Regression, Slot};
    use simmim_kernels::product::Tile;

    #[test]
    fn a_weight_gradient_is_the_same_in_tasks_of_any_number_of_rows() {
        let gradient = |threads: usize| {
            let mut table = ParameterTable::default();
            let linear = Linear { weight: table.add("weight", &[400, 80]), bias: None };
            let cpu = Cpu::with_tile(table, Precision::Bf16, threads, Tile::model_of_amx());
            let values = |count: usize| (0..count).map(|i| (i % 101) as f32 / 101.0 - 0.5).collect::<Vec<f32>>();
            cpu.write_slot(Slot::Values, &values(400 * 80));
            cpu.start(true);
            let y = cpu.linear(&cpu.tensor(&[500, 80], &values(500 * 80)), &linear);
            let (target, weight) = (vec![0.0; 500 * 400], vec![1.0; 500]);
            let loss = Regression { distance: Distance::L2, target: &target, weight: &weight, channels: 400 };
            cpu.backward(&cpu.regression(&y, &loss));
            cpu.read_slot(Slot::Gradients)
        };
        let of_one = gradient(1); // tasks of 200 rows, then of about 100, and of fewer
        assert!(of_one.iter().any(|value| *value != 0.0));
        assert!([2, 3].into_iter().all(|threads| gradient(threads) == of_one));
    }
}
