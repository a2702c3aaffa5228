//! Cross-entropy of classes; the logits' gradient is computed with it, in one pass.

use crate::backend::CrossEntropy;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::add_scaled;
use simmim_kernels::loss::class_cross_entropy;

struct Loss {
    logits: NodeId,
    d_logits: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, logits: &CpuTensor, loss: &CrossEntropy) -> CpuTensor {
    let choices = logits.width() / loss.classes;
    let positions = choices / loss.channels;
    let (rows, width) = (logits.rows(), logits.width());
    let mut d_logits = cpu.shelves.f32.copy(&logits.data);
    let scale = (1.0 / loss.denominator) as f32;
    let groups = parts(rows);
    let tasks = groups.iter().zip(split_mut(&mut d_logits, &groups, width)).collect();
    let sums = cpu.threads.map(tasks, |(group, d_logits)| {
        let ids = &loss.ids[group.start * choices..group.end * choices];
        let weight = &loss.weight[group.start * positions..group.end * positions];
        class_cross_entropy(d_logits, ids, weight, loss.channels, positions, loss.classes, scale)
    });
    let value = cpu.shelves.f32.copy(&[(sums.iter().sum::<f64>() / loss.denominator) as f32]);
    cpu.output(&[1], value, || Loss { logits: logits.node, d_logits })
}

impl Backward for Loss {
    fn name(&self) -> &'static str {
        "cross entropy"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d = cpu.shelves.f32.zeros(self.d_logits.len());
        add_scaled(&mut d, d_output[0], &self.d_logits);
        gradients.add(self.logits, d);
    }
}
