//! Loss of soft labels; the logits' gradient is computed with it, in one pass.

use crate::backend::{Labels, SoftLabels};
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::{add_scaled, multiply};
use simmim_kernels::loss::{binary_cross_entropy, cross_entropy};

struct Loss {
    logits: NodeId,
    d_logits: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, logits: &CpuTensor, loss: &SoftLabels) -> CpuTensor {
    let mut d_logits = cpu.shelves.f32.copy(&logits.data);
    let scale = (1.0 / loss.denominator) as f32;
    // rows are few, one per image: not worth the hand-over to other threads
    let sum = match loss.labels {
        Labels::One => {
            let mut mass = loss.target.to_vec();
            multiply(&mut mass, loss.weight);
            cross_entropy(&mut d_logits, &mass, &vec![1.0; logits.rows()], logits.width(), scale)
        }
        Labels::Many => binary_cross_entropy(&mut d_logits, loss.target, loss.weight, scale),
    };
    let value = cpu.shelves.f32.copy(&[(sum / loss.denominator) as f32]);
    cpu.output(&[1], value, || Loss { logits: logits.node, d_logits })
}

impl Backward for Loss {
    fn name(&self) -> &'static str {
        "soft labels"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d = cpu.shelves.f32.zeros(self.d_logits.len());
        add_scaled(&mut d, d_output[0], &self.d_logits);
        gradients.add(self.logits, d);
    }
}
