//! The mean of each image's tokens, the input of a classifier.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};
use simmim_kernels::elementwise::{add_column_sums, add_scaled};

struct MeanTokensBackward {
    input: NodeId,
    tokens: usize,
    width: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    let mut out = cpu.pools.f32.zeros(images * width);
    for (mean, image) in out.chunks_exact_mut(width).zip(x.data.chunks_exact(tokens * width)) {
        add_column_sums(image, mean);
        mean.iter_mut().for_each(|m| *m /= tokens as f32);
    }
    cpu.output(&[images, width], out, || MeanTokensBackward { input: x.node, tokens, width })
}

impl Backward for MeanTokensBackward {
    fn name(&self) -> &'static str {
        "mean tokens"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_x = cpu.pools.f32.zeros(d_output.len() * self.tokens);
        for (d, d_x) in d_output.chunks_exact(self.width).zip(d_x.chunks_exact_mut(self.tokens * self.width)) {
            for d_token in d_x.chunks_exact_mut(self.width) {
                add_scaled(d_token, 1.0 / self.tokens as f32, d);
            }
        }
        gradients.add(self.input, d_x);
    }
}
