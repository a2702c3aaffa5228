//! A learned token, which is put before the tokens of each image.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};
use simmim_engine::ParameterId;
use simmim_kernels::elementwise::add_scaled;

struct PrependTokenBackward {
    input: NodeId,
    token: ParameterId,
    /// Values of one image's tokens without the new one, `N·D`.
    image_len: usize,
    width: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, token: ParameterId) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    let image_len = tokens * width;
    let mut out = cpu.pools.f32.take(images * (image_len + width));
    {
        let store = cpu.store.borrow();
        for (out, x) in out.chunks_exact_mut(image_len + width).zip(x.data.chunks_exact(image_len)) {
            out[..width].copy_from_slice(store.value(token));
            out[width..].copy_from_slice(x);
        }
    }
    cpu.output_with_parameters(vec![token], &[images, 1 + tokens, width], out, || PrependTokenBackward {
        input: x.node,
        token,
        image_len,
        width,
    })
}

impl Backward for PrependTokenBackward {
    fn name(&self) -> &'static str {
        "prepend token"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let with_token = self.image_len + self.width;
        let mut d_token = vec![0.0; self.width];
        let mut d_x = cpu.pools.f32.take(d_output.len() / with_token * self.image_len);
        for (d, d_x) in d_output.chunks_exact(with_token).zip(d_x.chunks_exact_mut(self.image_len)) {
            add_scaled(&mut d_token, 1.0, &d[..self.width]);
            d_x.copy_from_slice(&d[self.width..]);
        }
        add_gradient(cpu, self.token, &d_token);
        gradients.add(self.input, d_x);
    }
}
