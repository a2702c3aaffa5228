//! The ReLU between the layers of a convolutional network.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::relu::{relu, relu_backward};
use std::rc::Rc;

struct ReluBackward {
    input: NodeId,
    /// The input, which is above zero where the output is.
    x: Rc<Buffer<f32>>,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let mut out = cpu.pools.f32.copy(&x.data);
    let groups = parts(x.data.len());
    cpu.threads.map(split_mut(&mut out, &groups, 1), relu);
    cpu.output(&x.shape, out, || ReluBackward { input: x.node, x: Rc::clone(&x.data) })
}

impl Backward for ReluBackward {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn backward(self: Box<Self>, _: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        relu_backward(&self.x, &mut d_output);
        gradients.add(self.input, d_output);
    }
}
