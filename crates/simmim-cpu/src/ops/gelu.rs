//! The exact GELU where it is not part of an MLP branch, such as between the layers of a head.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::elementwise::multiply;
use simmim_kernels::gelu::gelu;

struct GeluBackward {
    input: NodeId,
    slope: Buffer<f32>,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let x_data: &[f32] = &x.data;
    let [mut out, mut slope] = [(); 2].map(|_| cpu.pools.f32.take(x_data.len()));
    let groups = parts(x_data.len());
    let outputs = split_mut(&mut out, &groups, 1).into_iter().zip(split_mut(&mut slope, &groups, 1));
    let tasks = groups.iter().zip(outputs).collect();
    cpu.threads.map(tasks, |(part, (out, slope))| gelu(&x_data[part.clone()], out, slope));
    cpu.output(&x.shape, out, || GeluBackward { input: x.node, slope })
}

impl Backward for GeluBackward {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn backward(self: Box<Self>, _: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        multiply(&mut d_output, &self.slope);
        gradients.add(self.input, d_output);
    }
}
