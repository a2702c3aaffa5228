//! A linear layer on its own: prediction heads and classifiers.

use super::{add_bias_gradient, add_weight_gradient, project, project_back};
use crate::backend::Linear;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};

struct Project {
    linear: Linear,
    input: NodeId,
    /// The input as an operand, `[rows, in]`.
    x: Buffer<f32>,
    rows: usize,
    inputs: usize,
    outputs: usize,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    let (rows, inputs) = (x.rows(), x.width());
    let outputs = cpu.table.get(linear.weight).shape[0];
    let mut operand = cpu.shelves.f32.copy(&x.data);
    cpu.operands().round(&mut operand);
    let mut out = cpu.shelves.f32.take(rows * outputs);
    let packed = cpu.forward_weight(linear.weight);
    {
        let (weight, tile): (&[f32], _) = (&packed, cpu.tile);
        let store = cpu.store.borrow();
        let bias = linear.bias.map(|b| store.value(b));
        let data: &[f32] = &operand;
        let groups = cpu.threads.groups(rows);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, outputs)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            if !group.is_empty() {
                project(tile, &data[group.start * inputs..group.end * inputs], weight, bias, group.len(), out);
            }
        });
    }
    let mut shape = x.shape.to_vec();
    *shape.last_mut().expect("a tensor has at least one axis") = outputs;
    cpu.output(&shape, out, || Project { linear: *linear, input: x.node, x: operand, rows, inputs, outputs })
}

impl Backward for Project {
    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        add_bias_gradient(cpu, &self.linear, &d_output);
        cpu.operands().round(&mut d_output);
        let mut d_x = cpu.shelves.f32.take(self.x.len());
        let Self { inputs, outputs, .. } = *self;
        {
            let packed = cpu.backward_weight(self.linear.weight);
            let (weight, tile): (&[f32], _) = (&packed, cpu.tile);
            let d_y: &[f32] = &d_output;
            let groups = cpu.threads.groups(self.rows);
            let tasks = groups.iter().zip(split_mut(&mut d_x, &groups, inputs)).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                if !group.is_empty() {
                    let d_y = &d_y[group.start * outputs..group.end * outputs];
                    project_back(tile, d_y, weight, group.len(), d_x);
                }
            });
        }
        add_weight_gradient(cpu, self.linear.weight, &d_output, &self.x, self.rows);
        gradients.add(self.input, d_x);
    }
}
