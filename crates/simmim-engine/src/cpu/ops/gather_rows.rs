//! Picking rows, so that what follows computes only those.

use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::{Cpu, CpuTensor};

struct GatherRows {
    input: NodeId,
    input_len: usize,
    rows: Vec<u32>,
    width: usize,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, rows: &[u32]) -> CpuTensor {
    let width = x.width();
    let mut out = cpu.shelves.f32.take(rows.len() * width);
    for (out, row) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(&x.data[*row as usize * width..][..width]);
    }
    let keep = || GatherRows { input: x.node, input_len: x.data.len(), rows: rows.to_vec(), width };
    cpu.output(&[rows.len(), width], out, keep)
}

impl Backward for GatherRows {
    fn name(&self) -> &'static str {
        "gather rows"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_x = cpu.shelves.f32.zeros(self.input_len);
        for (d, row) in d_output.chunks_exact(self.width).zip(&self.rows) {
            d_x[*row as usize * self.width..][..self.width].copy_from_slice(d);
        }
        gradients.add(self.input, d_x);
    }
}
