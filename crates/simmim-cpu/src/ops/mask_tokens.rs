//! Replacement of hidden tokens by the mask token.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};
use simmim_engine::ParameterId;
use simmim_kernels::elementwise::add_column_sums;

struct MaskTokensBackward {
    input: NodeId,
    hidden: Vec<bool>,
    mask_token: ParameterId,
    width: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, hidden: &[bool], mask_token: ParameterId) -> CpuTensor {
    assert_eq!(hidden.len(), x.rows(), "one flag per token");
    let width = x.width();
    let mut out = cpu.pools.f32.copy(&x.data);
    {
        let store = cpu.store.borrow();
        for (row, _) in out.chunks_exact_mut(width).zip(hidden).filter(|(_, hidden)| **hidden) {
            row.copy_from_slice(store.value(mask_token));
        }
    }
    cpu.output_with_parameters(vec![mask_token], &x.shape, out, || MaskTokensBackward {
        input: x.node,
        hidden: hidden.to_vec(),
        mask_token,
        width,
    })
}

impl Backward for MaskTokensBackward {
    fn name(&self) -> &'static str {
        "mask tokens"
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
