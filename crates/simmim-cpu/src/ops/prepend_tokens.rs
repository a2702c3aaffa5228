//! Learned tokens, which are put before the tokens of each image.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};
use simmim_engine::ParameterId;
use simmim_kernels::elementwise::add_scaled;

struct PrependTokensBackward {
    input: NodeId,
    tokens: ParameterId,
    /// Values of one image's tokens without the new ones, `N·D`.
    image_len: usize,
    /// Values of the new tokens, `T·D`.
    tokens_len: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, tokens: ParameterId) -> CpuTensor {
    let (images, others, width) = x.tokens_shape();
    let (image_len, tokens_len) = (others * width, cpu.table.get(tokens).range.len());
    let mut out = cpu.pools.f32.take(images * (image_len + tokens_len));
    {
        let store = cpu.store.borrow();
        for (out, x) in out.chunks_exact_mut(image_len + tokens_len).zip(x.data.chunks_exact(image_len)) {
            out[..tokens_len].copy_from_slice(store.value(tokens));
            out[tokens_len..].copy_from_slice(x);
        }
    }
    cpu.output_with_parameters(vec![tokens], &[images, tokens_len / width + others, width], out, || {
        PrependTokensBackward { input: x.node, tokens, image_len, tokens_len }
    })
}

impl Backward for PrependTokensBackward {
    fn name(&self) -> &'static str {
        "prepend tokens"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let with_tokens = self.image_len + self.tokens_len;
        let mut d_tokens = vec![0.0; self.tokens_len];
        let mut d_x = cpu.pools.f32.take(d_output.len() / with_tokens * self.image_len);
        for (d, d_x) in d_output.chunks_exact(with_tokens).zip(d_x.chunks_exact_mut(self.image_len)) {
            add_scaled(&mut d_tokens, 1.0, &d[..self.tokens_len]);
            d_x.copy_from_slice(&d[self.tokens_len..]);
        }
        add_gradient(cpu, self.tokens, &d_tokens);
        gradients.add(self.input, d_x);
    }
}
