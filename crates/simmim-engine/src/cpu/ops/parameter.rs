//! A parameter as a tensor: its gradient arrives through the tape and may have several users.

use super::add_gradient;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::{Cpu, CpuTensor};
use crate::parameters::ParameterId;

struct Parameter {
    id: ParameterId,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, id: ParameterId) -> CpuTensor {
    let data = cpu.shelves.f32.copy(cpu.store.borrow().value(id));
    cpu.output(&cpu.table.get(id).shape, data, || Parameter { id })
}

impl Backward for Parameter {
    fn name(&self) -> &'static str {
        "parameter"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, _: &mut Gradients) {
        add_gradient(cpu, self.id, &d_output);
    }
}
