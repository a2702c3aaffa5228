//! A parameter as a tensor that several operations may use. Its gradient is summed on the tape and then added to the
//! store.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients};
use crate::{Cpu, CpuTensor};
use simmim_engine::ParameterId;

struct ParameterBackward {
    id: ParameterId,
}

pub(crate) fn forward(cpu: &Cpu, id: ParameterId) -> CpuTensor {
    let data = cpu.pools.f32.copy(cpu.store.borrow().value(id));
    cpu.output_with_parameters(vec![id], &cpu.table.get(id).shape, data, || ParameterBackward { id })
}

impl Backward for ParameterBackward {
    fn name(&self) -> &'static str {
        "parameter"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, _: &mut Gradients) {
        add_gradient(cpu, self.id, &d_output);
    }
}
