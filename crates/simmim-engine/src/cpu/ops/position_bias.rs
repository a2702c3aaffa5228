//! SwinV2's continuous position bias: offsets to a bias table, divided by offsets.
//!
//! Runs in f32 at either precision: it is a small part of a block, and every score depends on it.

use super::add_gradient;
use crate::backend::PositionMlp;
use crate::cpu::buffers::Buffer;
use crate::cpu::store::Store;
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::position_bias::{self as kernel, position_bias, position_bias_backward};

struct PositionBias {
    mlp: PositionMlp,
    /// `[T, 2]`
    offsets: Vec<f32>,
    /// `[T, A]`
    bias: Vec<f32>,
}

fn weights<'a>(mlp: &PositionMlp, store: &'a Store) -> kernel::PositionMlp<'a> {
    let [w1, b1, w2] = [mlp.fc1_weight, mlp.fc1_bias, mlp.fc2_weight].map(|id| store.value(id));
    kernel::PositionMlp { w1, b1, w2 }
}

pub(in crate::cpu) fn forward(cpu: &Cpu, offsets: &[f32], mlp: &PositionMlp) -> CpuTensor {
    let rows = offsets.len() / 2;
    let [heads, width] = cpu.table.get(mlp.fc2_weight).shape[..] else { panic!("the second weight is [A, hidden]") };
    let mut bias = cpu.shelves.f32.take(rows * heads);
    {
        let store = cpu.store.borrow();
        let weights = weights(mlp, &store);
        let groups = parts(rows);
        let (tasks, shelf) = (groups.iter().zip(split_mut(&mut bias, &groups, heads)), &cpu.shelves.f32);
        cpu.threads.map(tasks.collect(), |(group, bias)| {
            let mut hidden = shelf.take(group.len() * width);
            position_bias(weights, &offsets[2 * group.start..2 * group.end], &mut hidden, bias);
        });
    }
    let kept = bias.to_vec();
    cpu.output(&[rows, heads], bias, || PositionBias { mlp: *mlp, offsets: offsets.to_vec(), bias: kept })
}

impl Backward for PositionBias {
    fn name(&self) -> &'static str {
        "position bias"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, _: &mut Gradients) {
        let sums = {
            let store = cpu.store.borrow();
            let weights = weights(&self.mlp, &store);
            let rows = self.offsets.len() / 2;
            let (width, heads) = (weights.b1.len(), self.bias.len() / rows);
            let (offsets, bias, d_bias): (&[f32], &[f32], &[f32]) = (&self.offsets, &self.bias, &d_output);
            let shelf = &cpu.shelves.f32;
            cpu.threads.map(parts(rows), |group| {
                let part = |of: usize| group.start * of..group.end * of;
                let mut gradients = weights.zero_gradients();
                let (offsets, bias, d_bias) = (&offsets[part(2)], &bias[part(heads)], &d_bias[part(heads)]);
                // computed again: it is small work, and as large as a block's activations when kept
                let (mut hidden, mut again) = (shelf.take(group.len() * width), shelf.take(bias.len()));
                position_bias(weights, offsets, &mut hidden, &mut again);
                position_bias_backward(weights, offsets, &hidden, bias, d_bias, &mut gradients);
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
