//! Replacement of hidden tokens by the mask token.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
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
    let mut out = cpu.pools.f32.take(x.data.len());
    {
        let store = cpu.store.borrow();
        let (token, data): (_, &[f32]) = (store.value(mask_token), &x.data);
        let groups = parts(hidden.len());
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, width)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            for (row, out) in group.clone().zip(out.chunks_exact_mut(width)) {
                out.copy_from_slice(if hidden[row] { token } else { &data[row * width..][..width] });
            }
        });
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
        let (hidden, width) = (&self.hidden, self.width);
        let groups = parts(hidden.len());
        let tasks = groups.iter().zip(split_mut(&mut d_output, &groups, width)).collect();
        let sums = cpu.threads.map(tasks, |(group, d)| {
            let mut d_token = vec![0.0; width];
            for (row, _) in d.chunks_exact_mut(width).zip(&hidden[group.clone()]).filter(|(_, hidden)| **hidden) {
                add_column_sums(row, &mut d_token);
                row.fill(0.0);
            }
            d_token
        });
        sums.iter().for_each(|d_token| add_gradient(cpu, self.mask_token, d_token));
        gradients.add(self.input, d_output);
    }
}
