//! Learned tokens, which are put before the tokens of each image.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
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
        let (first, data): (_, &[f32]) = (store.value(tokens), &x.data);
        let groups = parts(images);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, image_len + tokens_len)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            for (image, out) in group.clone().zip(out.chunks_exact_mut(image_len + tokens_len)) {
                out[..tokens_len].copy_from_slice(first);
                out[tokens_len..].copy_from_slice(&data[image * image_len..][..image_len]);
            }
        });
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
        for d in d_output.chunks_exact(with_tokens) {
            add_scaled(&mut d_tokens, 1.0, &d[..self.tokens_len]);
        }
        let (d_output, image_len): (&[f32], _) = (&d_output, self.image_len);
        let groups = parts(d_output.len() / with_tokens);
        let tasks = groups.iter().zip(split_mut(&mut d_x, &groups, image_len)).collect();
        cpu.threads.map(tasks, |(group, d_x)| {
            for (image, d_x) in group.clone().zip(d_x.chunks_exact_mut(image_len)) {
                d_x.copy_from_slice(&d_output[(image + 1) * with_tokens - image_len..][..image_len]);
            }
        });
        add_gradient(cpu, self.tokens, &d_tokens);
        gradients.add(self.input, d_x);
    }
}
