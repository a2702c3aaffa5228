//! The end of a residual branch that is made of single operations: `x + drop_path_scale·layer_scale·f`.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::ParameterId;
use simmim_kernels::elementwise::{add_column_dots, add_residual, multiply};
use std::rc::Rc;

struct ScaledSumBackward {
    input: NodeId,
    branch: NodeId,
    layer_scale: Option<ParameterId>,
    /// The branch, `[rows, D]`, which the gradient of layer scale needs.
    f: Option<Rc<Buffer<f32>>>,
    /// Factor of each image's branch, `[B]`.
    drop_path_scale: Vec<f32>,
    width: usize,
    /// Values of an image, `N·D`.
    of_image: usize,
}

/// `x` and `f` `[B, N, D]` → `[B, N, D]`.
pub(super) fn forward(
    cpu: &Cpu,
    x: &CpuTensor,
    f: &CpuTensor,
    layer_scale: Option<ParameterId>,
    drop_path_scale: Option<&[f32]>,
) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    let drop_path_scale = drop_path_scale.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let mut out = cpu.pools.f32.take(x.data.len());
    {
        let store = cpu.store.borrow();
        let scale = layer_scale.map_or_else(|| vec![1.0; width], |id| store.value(id).to_vec());
        let (x, f, of_image): (&[f32], &[f32], _) = (&x.data, &f.data, tokens * width);
        let groups = parts(images);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, of_image)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            for (image, out) in group.clone().zip(out.chunks_exact_mut(of_image)) {
                let values = image * of_image..(image + 1) * of_image;
                add_residual(&x[values.clone()], &f[values], &scale, drop_path_scale[image], out);
            }
        });
    }
    let parameters = layer_scale.into_iter().collect();
    cpu.output_with_parameters(parameters, &x.shape, out, || ScaledSumBackward {
        input: x.node,
        branch: f.node,
        layer_scale,
        f: layer_scale.map(|_| Rc::clone(&f.data)),
        drop_path_scale,
        width,
        of_image: tokens * width,
    })
}

impl Backward for ScaledSumBackward {
    fn name(&self) -> &'static str {
        "scaled sum"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (images, width, of_image) = (self.drop_path_scale.len(), self.width, self.of_image);
        let mut d_f = cpu.pools.f32.copy(&d_output);
        let sums = {
            let store = cpu.store.borrow();
            let scale = self.layer_scale.map(|id| store.value(id));
            let f: Option<&[f32]> = self.f.as_ref().map(|f| &f[..]);
            let groups = parts(images);
            let tasks = groups.iter().zip(split_mut(&mut d_f, &groups, of_image)).collect();
            cpu.threads.map(tasks, |(group, d_f)| {
                let mut d_scale = vec![0.0; width];
                for (image, d_f) in group.clone().zip(d_f.chunks_exact_mut(of_image)) {
                    d_f.iter_mut().for_each(|d| *d *= self.drop_path_scale[image]);
                    if let (Some(scale), Some(f)) = (scale, f) {
                        add_column_dots(d_f, &f[image * of_image..(image + 1) * of_image], &mut d_scale);
                        d_f.chunks_exact_mut(width).for_each(|row| multiply(row, scale));
                    }
                }
                d_scale
            })
        };
        if let Some(id) = self.layer_scale {
            sums.iter().for_each(|d_scale| add_gradient(cpu, id, d_scale));
        }
        gradients.add(self.branch, d_f);
        gradients.add(self.input, d_output);
    }
}
