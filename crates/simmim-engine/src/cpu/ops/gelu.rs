//! The exact GELU on its own, between the layers of a head.

use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::multiply;
use simmim_kernels::gelu::gelu_with_slope;

struct Gelu {
    input: NodeId,
    slope: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let mut out = cpu.shelves.f32.copy(&x.data);
    let mut slope = cpu.shelves.f32.take(x.data.len());
    let groups = parts(x.data.len());
    let tasks = split_mut(&mut out, &groups, 1).into_iter().zip(split_mut(&mut slope, &groups, 1)).collect();
    cpu.threads.map(tasks, |(out, slope)| gelu_with_slope(out, slope));
    cpu.output(&x.shape, out, || Gelu { input: x.node, slope })
}

impl Backward for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn backward(self: Box<Self>, _: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        multiply(&mut d_output, &self.slope);
        gradients.add(self.input, d_output);
    }
}
