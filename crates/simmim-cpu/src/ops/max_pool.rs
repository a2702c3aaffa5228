//! Max pooling, which halves the sides of images.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::pooling::{Halving, max_pool, max_pool_backward};
use std::rc::Rc;

struct MaxPoolBackward {
    input: NodeId,
    x: Rc<Buffer<f32>>,
    halving: Halving,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let (images, height, width, channels) = x.image_shape();
    assert!(height.is_multiple_of(2) && width.is_multiple_of(2), "{height}×{width} pixels cannot be halved");
    let halving = Halving { height, width, channels };
    let mut out = cpu.pools.f32.take(images * halving.small_len());
    {
        let data: &[f32] = &x.data;
        let groups = parts(images);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, halving.small_len())).collect();
        cpu.threads.map(tasks, |(group, out)| {
            for (image, out) in group.clone().zip(out.chunks_exact_mut(halving.small_len())) {
                max_pool(&halving, &data[image * halving.large_len()..][..halving.large_len()], out);
            }
        });
    }
    let shape = [images, height / 2, width / 2, channels];
    cpu.output(&shape, out, || MaxPoolBackward { input: x.node, x: Rc::clone(&x.data), halving })
}

impl Backward for MaxPoolBackward {
    fn name(&self) -> &'static str {
        "max pool"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let halving = self.halving;
        let mut d_x = cpu.pools.f32.take(self.x.len());
        {
            let (x, d_y): (&[f32], &[f32]) = (&self.x, &d_output);
            let groups = parts(x.len() / halving.large_len());
            let tasks = groups.iter().zip(split_mut(&mut d_x, &groups, halving.large_len())).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                for (image, d_x) in group.clone().zip(d_x.chunks_exact_mut(halving.large_len())) {
                    let x = &x[image * halving.large_len()..][..halving.large_len()];
                    max_pool_backward(&halving, x, &d_y[image * halving.small_len()..][..halving.small_len()], d_x);
                }
            });
        }
        gradients.add(self.input, d_x);
    }
}
