//! SwinV2's continuous position bias: a table with a bias per head for each pair of offsets.
//!
//! It is computed in f32 at either precision, as it is a small part of a block and every score depends on it. Tasks
//! divide the offsets.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::store::Store;
use crate::tape::{Backward, Gradients};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::PositionMlp;
use simmim_kernels::continuous_position_bias::{
    PositionBiasWeights, continuous_position_bias, continuous_position_bias_backward,
};

struct ContinuousPositionBiasBackward {
    mlp: PositionMlp,
    /// `[T, 2]`
    offsets: Vec<f32>,
    /// `[T, A]`
    bias: Vec<f32>,
}

/// Reads the values of the parameters.
fn weights<'a>(mlp: &PositionMlp, store: &'a Store) -> PositionBiasWeights<'a> {
    let [w1, b1, w2] = [mlp.fc1_weight, mlp.fc1_bias, mlp.fc2_weight].map(|id| store.value(id));
    PositionBiasWeights { w1, b1, w2 }
}

pub(crate) fn forward(cpu: &Cpu, offsets: &[f32], mlp: &PositionMlp) -> CpuTensor {
    let rows = offsets.len() / 2;
    let [heads, hidden_width] = cpu.table.get(mlp.fc2_weight).shape[..] else {
        panic!("the second weight is [A, hidden]")
    };
    let mut bias = cpu.pools.f32.take(rows * heads);
    {
        let store = cpu.store.borrow();
        let weights = weights(mlp, &store);
        let groups = parts(rows);
        let (tasks, pool) = (groups.iter().zip(split_mut(&mut bias, &groups, heads)), &cpu.pools.f32);
        cpu.threads.map(tasks.collect(), |(group, bias)| {
            let mut hidden = pool.take(group.len() * hidden_width);
            continuous_position_bias(weights, &offsets[2 * group.start..2 * group.end], &mut hidden, bias);
        });
    }
    let saved_bias = bias.to_vec();
    cpu.output_with_parameters(mlp.parameters(), &[rows, heads], bias, || ContinuousPositionBiasBackward {
        mlp: *mlp,
        offsets: offsets.to_vec(),
        bias: saved_bias,
    })
}

impl Backward for ContinuousPositionBiasBackward {
    fn name(&self) -> &'static str {
        "continuous position bias"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, _: &mut Gradients) {
        let sums = {
            let store = cpu.store.borrow();
            let weights = weights(&self.mlp, &store);
            let rows = self.offsets.len() / 2;
            let (hidden_width, heads) = (weights.b1.len(), self.bias.len() / rows);
            let (offsets, bias, d_bias): (&[f32], &[f32], &[f32]) = (&self.offsets, &self.bias, &d_output);
            let pool = &cpu.pools.f32;
            cpu.threads.map(parts(rows), |group| {
                let part = |of: usize| group.start * of..group.end * of;
                let mut gradients = weights.zero_gradients();
                let (offsets, bias, d_bias) = (&offsets[part(2)], &bias[part(heads)], &d_bias[part(heads)]);
                // recomputed, as this takes little time, while saving it would take as much memory as a block's
                // activations
                let (mut hidden, mut same_bias) = (pool.take(group.len() * hidden_width), pool.take(bias.len()));
                continuous_position_bias(weights, offsets, &mut hidden, &mut same_bias);
                continuous_position_bias_backward(weights, offsets, &hidden, bias, d_bias, &mut gradients);
                gradients
            })
        };
        for gradients in sums {
            add_gradient(cpu, self.mlp.fc1_weight, &gradients.d_w1);
            add_gradient(cpu, self.mlp.fc1_bias, &gradients.d_b1);
            add_gradient(cpu, self.mlp.fc2_weight, &gradients.d_w2);
        }
    }
}
