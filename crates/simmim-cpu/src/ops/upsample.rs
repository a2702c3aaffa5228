//! Nearest-neighbor upsampling, which doubles the sides of images.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::pooling::{Halving, upsample, upsample_backward};

struct UpsampleBackward {
    input: NodeId,
    halving: Halving,
    images: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor) -> CpuTensor {
    let (images, height, width, channels) = x.image_shape();
    let halving = Halving { height: 2 * height, width: 2 * width, channels };
    let mut out = cpu.pools.f32.take(images * halving.large_len());
    {
        let data: &[f32] = &x.data;
        let groups = parts(images);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, halving.large_len())).collect();
        cpu.threads.map(tasks, |(group, out)| {
            for (image, out) in group.clone().zip(out.chunks_exact_mut(halving.large_len())) {
                upsample(&halving, &data[image * halving.small_len()..][..halving.small_len()], out);
            }
        });
    }
    let shape = [images, halving.height, halving.width, channels];
    cpu.output(&shape, out, || UpsampleBackward { input: x.node, halving, images })
}

impl Backward for UpsampleBackward {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let halving = self.halving;
        let mut d_x = cpu.pools.f32.take(self.images * halving.small_len());
        {
            let d_y: &[f32] = &d_output;
            let groups = parts(self.images);
            let tasks = groups.iter().zip(split_mut(&mut d_x, &groups, halving.small_len())).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                for (image, d_x) in group.clone().zip(d_x.chunks_exact_mut(halving.small_len())) {
                    upsample_backward(&halving, &d_y[image * halving.large_len()..][..halving.large_len()], d_x);
                }
            });
        }
        gradients.add(self.input, d_x);
    }
}
