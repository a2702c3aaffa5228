//! A weighted sum of two tensors, such as a residual connection outside of branches or a loss of two terms.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::elementwise::add_scaled;

struct AddBackward {
    first: NodeId,
    second: NodeId,
    factor: f32,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, factor: f32, y: &CpuTensor) -> CpuTensor {
    assert_eq!(x.shape, y.shape, "only tensors of the same shape can be added");
    let mut out = cpu.pools.f32.copy(&x.data);
    {
        let data: &[f32] = &y.data;
        let groups = parts(data.len());
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, 1)).collect();
        cpu.threads.map(tasks, |(group, out)| add_scaled(out, factor, &data[group.clone()]));
    }
    cpu.output(&x.shape, out, || AddBackward { first: x.node, second: y.node, factor })
}

impl Backward for AddBackward {
    fn name(&self) -> &'static str {
        "add"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_y = cpu.pools.f32.zeros(d_output.len());
        add_scaled(&mut d_y, self.factor, &d_output);
        gradients.add(self.second, d_y);
        gradients.add(self.first, d_output);
    }
}
