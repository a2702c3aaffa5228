//! A weighted sum of two tensors: residual connections outside of branches, and losses of two parts.

use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::add_scaled;

struct Sum {
    first: NodeId,
    second: NodeId,
    factor: f32,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, factor: f32, y: &CpuTensor) -> CpuTensor {
    assert_eq!(x.shape, y.shape, "only tensors of one shape are added");
    let mut out = cpu.shelves.f32.copy(&x.data);
    {
        let data: &[f32] = &y.data;
        let groups = parts(data.len());
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, 1)).collect();
        cpu.threads.map(tasks, |(group, out)| add_scaled(out, factor, &data[group.clone()]));
    }
    cpu.output(&x.shape, out, || Sum { first: x.node, second: y.node, factor })
}

impl Backward for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_y = cpu.shelves.f32.zeros(d_output.len());
        add_scaled(&mut d_y, self.factor, &d_output);
        gradients.add(self.second, d_y);
        gradients.add(self.first, d_output);
    }
}
