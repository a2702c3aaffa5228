//! How far choices are from uniform; the gradient is computed with it, in one pass.

use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::discrete_vae::divergence_from_uniform;
use simmim_kernels::elementwise::add_scaled;

struct Divergence {
    logits: NodeId,
    d_logits: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, logits: &CpuTensor, denominator: f64) -> CpuTensor {
    let classes = logits.width();
    let mut d_logits = cpu.shelves.f32.copy(&logits.data);
    let groups = parts(logits.rows());
    let scale = (1.0 / denominator) as f32;
    let tasks = split_mut(&mut d_logits, &groups, classes);
    let sums = cpu.threads.map(tasks, |d_logits| divergence_from_uniform(d_logits, classes, scale));
    let value = cpu.shelves.f32.copy(&[(sums.iter().sum::<f64>() / denominator) as f32]);
    cpu.output(&[1], value, || Divergence { logits: logits.node, d_logits })
}

impl Backward for Divergence {
    fn name(&self) -> &'static str {
        "uniform divergence"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d = cpu.shelves.f32.zeros(self.d_logits.len());
        add_scaled(&mut d, d_output[0], &self.d_logits);
        gradients.add(self.logits, d);
    }
}
