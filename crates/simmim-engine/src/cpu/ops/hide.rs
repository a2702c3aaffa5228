//! Replacing hidden tokens by the mask token.

use super::add_gradient;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::{Cpu, CpuTensor};
use crate::parameters::ParameterId;
use simmim_kernels::elementwise::add_column_sums;

struct Hide {
    input: NodeId,
    hidden: Vec<bool>,
    mask_token: ParameterId,
    width: usize,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, hidden: &[bool], mask_token: ParameterId) -> CpuTensor {
    assert_eq!(hidden.len(), x.rows(), "one flag per token");
    let width = x.width();
    let mut out = cpu.shelves.f32.copy(&x.data);
    {
        let store = cpu.store.borrow();
        for (row, _) in out.chunks_exact_mut(width).zip(hidden).filter(|(_, hidden)| **hidden) {
            row.copy_from_slice(store.value(mask_token));
        }
    }
    cpu.output(&x.shape, out, || Hide { input: x.node, hidden: hidden.to_vec(), mask_token, width })
}

impl Backward for Hide {
    fn name(&self) -> &'static str {
        "hide"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_token = vec![0.0; self.width];
        for (row, _) in d_output.chunks_exact_mut(self.width).zip(&self.hidden).filter(|(_, hidden)| **hidden) {
            add_column_sums(row, &mut d_token);
            row.fill(0.0);
        }
        add_gradient(cpu, self.mask_token, &d_token);
        gradients.add(self.input, d_output);
    }
}
