//! Selection of rows, so that the operations after it compute only these.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};

struct GatherRowsBackward {
    input: NodeId,
    input_len: usize,
    rows: Vec<u32>,
    width: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, rows: &[u32]) -> CpuTensor {
    let width = x.width();
    let mut out = cpu.pools.f32.take(rows.len() * width);
    for (out, row) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(&x.data[*row as usize * width..][..width]);
    }
    let backward = || GatherRowsBackward { input: x.node, input_len: x.data.len(), rows: rows.to_vec(), width };
    cpu.output(&[rows.len(), width], out, backward)
}

impl Backward for GatherRowsBackward {
    fn name(&self) -> &'static str {
        "gather rows"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_x = cpu.pools.f32.zeros(self.input_len);
        for (d, row) in d_output.chunks_exact(self.width).zip(&self.rows) {
            d_x[*row as usize * self.width..][..self.width].copy_from_slice(d);
        }
        gradients.add(self.input, d_x);
    }
}
