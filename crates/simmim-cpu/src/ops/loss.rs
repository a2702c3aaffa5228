//! What all losses have in common: the gradient of the input is computed in the same pass as the value and saved for
//! backward.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};
use simmim_kernels::elementwise::add_scaled;

struct LossBackward {
    name: &'static str,
    input: NodeId,
    d_input: Buffer<f32>,
}

/// The output of a loss with this value, whose gradient with respect to `input` is `d_input`.
pub(super) fn loss_output(
    cpu: &Cpu,
    name: &'static str,
    input: &CpuTensor,
    value: f64,
    d_input: Buffer<f32>,
) -> CpuTensor {
    let value = cpu.pools.f32.copy(&[value as f32]);
    cpu.output(&[1], value, || LossBackward { name, input: input.node, d_input })
}

impl Backward for LossBackward {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_input = cpu.pools.f32.zeros(self.d_input.len());
        add_scaled(&mut d_input, d_output[0], &self.d_input);
        gradients.add(self.input, d_input);
    }
}
