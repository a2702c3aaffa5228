//! A block whose activations are not kept but computed again (arXiv:1604.06174).

use crate::backend::Block;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, walk_back};
use crate::cpu::{Cpu, CpuTensor};

struct Recompute {
    x: CpuTensor,
    block: Block<Cpu>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, block: Block<Cpu>) -> CpuTensor {
    let was_recording = cpu.tape.borrow_mut().set_recording(false);
    let out = block(cpu, x);
    cpu.tape.borrow_mut().set_recording(was_recording);
    if was_recording {
        cpu.tape.borrow_mut().record(out.node, Recompute { x: x.clone(), block });
    }
    out
}

impl Backward for Recompute {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        cpu.tape.borrow_mut().set_recording(true);
        let out = (self.block)(cpu, &self.x);
        let records = cpu.tape.borrow_mut().take_records();
        gradients.add(out.node, d_output);
        walk_back(cpu, records, gradients);
    }
}
