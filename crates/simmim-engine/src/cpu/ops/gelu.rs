//! The exact GELU on its own, between the layers of a head.

use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::multiply;
use simmim_kernels::gelu::gelu;

struct Gelu {
    input: NodeId,
    slope: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let x_data: &[f32] = &x.data;
    let [mut out, mut slope] = [(); 2].map(|_| cpu.shelves.f32.take(x_data.len()));
    let groups = parts(x_data.len());
    let outputs = split_mut(&mut out, &groups, 1).into_iter().zip(split_mut(&mut slope, &groups, 1));
    let tasks = groups.iter().zip(outputs).collect();
    cpu.threads.map(tasks, |(part, (out, slope))| gelu(&x_data[part.clone()], out, slope));
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
