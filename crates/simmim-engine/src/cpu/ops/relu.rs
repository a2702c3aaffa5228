//! The rectifier between the layers of a convolutional network.

use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::relu::{relu, relu_backward};
use std::rc::Rc;

struct Relu {
    input: NodeId,
    /// The input; its sign is that of the output.
    x: Rc<Buffer<f32>>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let mut out = cpu.shelves.f32.copy(&x.data);
    let groups = parts(x.data.len());
    cpu.threads.map(split_mut(&mut out, &groups, 1), relu);
    cpu.output(&x.shape, out, || Relu { input: x.node, x: Rc::clone(&x.data) })
}

impl Backward for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn backward(self: Box<Self>, _: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        relu_backward(&self.x, &mut d_output);
        gradients.add(self.input, d_output);
    }
}
