//! SwiGLU between the two layers of a gated MLP.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::swiglu::{swiglu, swiglu_backward};
use std::rc::Rc;

struct SwigluBackward {
    input: NodeId,
    /// The input, `[rows, 2·hidden]`.
    x: Rc<Buffer<f32>>,
    hidden: usize,
}

/// `[.., 2·hidden]` → `[.., hidden]`.
pub(super) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let hidden = x.width() / 2;
    let mut out = cpu.pools.f32.take(x.rows() * hidden);
    {
        let (data, groups): (&[f32], _) = (&x.data, parts(x.rows()));
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, hidden)).collect();
        cpu.threads.map(tasks, |(rows, out)| {
            swiglu(&data[rows.start * 2 * hidden..rows.end * 2 * hidden], hidden, out);
        });
    }
    let mut shape = x.shape.to_vec();
    *shape.last_mut().expect("a tensor has at least one axis") = hidden;
    cpu.output(&shape, out, || SwigluBackward { input: x.node, x: Rc::clone(&x.data), hidden })
}

impl Backward for SwigluBackward {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (hidden, x, d_out): (_, &[f32], &[f32]) = (self.hidden, &self.x, &d_output);
        let mut d_x = cpu.pools.f32.take(x.len());
        let groups = parts(d_out.len() / hidden);
        let tasks = groups.iter().zip(split_mut(&mut d_x, &groups, 2 * hidden)).collect();
        cpu.threads.map(tasks, |(rows, d_x)| {
            let x = &x[rows.start * 2 * hidden..rows.end * 2 * hidden];
            swiglu_backward(x, hidden, &d_out[rows.start * hidden..rows.end * hidden], d_x);
        });
        gradients.add(self.input, d_x);
    }
}
