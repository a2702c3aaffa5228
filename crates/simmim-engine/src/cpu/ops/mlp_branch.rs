//! The MLP half of a block, one image at a time.

use super::frame::{FrameKept, FrameSpec};
use super::{add_bias_gradient, add_weight_gradient, project, project_back};
use crate::backend::MlpBranch;
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::Kept;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::multiply;
use simmim_kernels::gelu::gelu_with_slope;
use std::rc::Rc;

struct Mlp {
    branch: MlpBranch,
    input: NodeId,
    images: usize,
    keep: Vec<f32>,
    x: Rc<Buffer<f32>>,
    frame: FrameKept,
    /// Input of the first layer, `[B, N, D]`.
    a: Kept,
    /// Slope of the GELU, `[B, N, hidden]`.
    slope: Kept,
    /// Input of the second layer, `[B, N, hidden]`.
    hidden: Kept,
}

fn frame_spec(branch: &MlpBranch) -> FrameSpec {
    FrameSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, branch: &MlpBranch, keep: Option<&[f32]>) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    let inner = cpu.table.get(branch.fc1.weight).shape[0];
    let (image_len, hidden_len) = (tokens * width, tokens * inner);
    let keep = keep.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let (precision, operands, tile) = (cpu.precision, cpu.operands(), cpu.tile);

    let mut out = cpu.shelves.f32.take(x.data.len());
    let mut kept_frame = frame_spec(branch).keep(cpu, images * tokens);
    let mut kept_a = Kept::new(&cpu.shelves, precision, images * image_len);
    let mut kept_slope = Kept::new(&cpu.shelves, precision, images * hidden_len);
    let mut kept_hidden = Kept::new(&cpu.shelves, precision, images * hidden_len);
    let (packed1, packed2) = (cpu.forward_weight(branch.fc1.weight), cpu.forward_weight(branch.fc2.weight));
    {
        let store = cpu.store.borrow();
        let frame = frame_spec(branch).frame(&store, &keep, operands);
        let (w1, b1): (&[f32], _) = (&packed1, branch.fc1.bias.map(|b| store.value(b)));
        let (w2, b2): (&[f32], _) = (&packed2, branch.fc2.bias.map(|b| store.value(b)));
        let data: &[f32] = &x.data;
        let groups = cpu.threads.groups(images);
        let tasks = groups
            .iter()
            .zip(split_mut(&mut out, &groups, image_len))
            .zip(kept_frame.split(&groups, tokens, width))
            .zip(kept_a.split(&groups, image_len))
            .zip(kept_slope.split(&groups, hidden_len))
            .zip(kept_hidden.split(&groups, hidden_len))
            .collect();
        cpu.threads.map(tasks, |(((((group, out), mut kept_frame), mut kept_a), mut kept_slope), mut kept_hidden)| {
            let [mut a, mut f, mut scratch] = [(); 3].map(|_| vec![0.0; image_len]);
            let [mut hidden, mut slope] = [(); 2].map(|_| vec![0.0; hidden_len]);
            for (i, image) in group.clone().enumerate() {
                let x = &data[image * image_len..][..image_len];
                let a = kept_a.fill(i * image_len, &mut a, |a| frame.enter(x, i, &mut kept_frame, a)); // [N, D]
                let hidden = kept_hidden.fill(i * hidden_len, &mut hidden, |hidden| {
                    project(tile, a, w1, b1, tokens, hidden); // [N, hidden]
                    kept_slope.fill(i * hidden_len, &mut slope, |slope| gelu_with_slope(hidden, slope));
                    operands.round(hidden);
                });
                project(tile, hidden, w2, b2, tokens, &mut f); // [N, D]
                let out = &mut out[i * image_len..][..image_len];
                frame.leave(x, &mut f, &mut scratch, i, image, &mut kept_frame, out);
            }
        });
    }
    cpu.output(&x.shape, out, || Mlp {
        branch: *branch,
        input: x.node,
        images,
        keep,
        x: Rc::clone(&x.data),
        frame: kept_frame,
        a: kept_a,
        slope: kept_slope,
        hidden: kept_hidden,
    })
}

impl Backward for Mlp {
    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { branch, input, images, keep, x, frame: kept_frame, a, slope, hidden } = *self;
        let spec = frame_spec(&branch);
        let image_len = x.len() / images;
        let width = cpu.table.get(branch.fc2.weight).shape[0];
        let tokens = image_len / width;
        let hidden_len = tokens * cpu.table.get(branch.fc1.weight).shape[0];
        let (operands, tile) = (cpu.operands(), cpu.tile);

        let mut d_f = cpu.shelves.f32.take(x.len()); // [B, N, D]
        let mut d_hidden = cpu.shelves.f32.take(images * hidden_len); // [B, N, hidden]
        let (packed1, packed2) = (cpu.backward_weight(branch.fc1.weight), cpu.backward_weight(branch.fc2.weight));
        let sums = {
            let store = cpu.store.borrow();
            let frame = spec.frame(&store, &keep, operands);
            let (w1, w2): (&[f32], &[f32]) = (&packed1, &packed2);
            let (x, kept, slope): (&[f32], _, _) = (&x, kept_frame.view(), slope.view());
            let groups = cpu.threads.groups(images);
            let tasks = groups
                .iter()
                .zip(split_mut(&mut d_output, &groups, image_len))
                .zip(split_mut(&mut d_f, &groups, image_len))
                .zip(split_mut(&mut d_hidden, &groups, hidden_len))
                .collect();
            cpu.threads.map(tasks, |(((group, d_x), d_f), d_hidden)| {
                let mut sums = frame.sums();
                let [mut d_a, mut scratch] = [(); 2].map(|_| vec![0.0; image_len]);
                let mut image_slope = vec![0.0; hidden_len];
                for (i, image) in group.clone().enumerate() {
                    let d_x = &mut d_x[i * image_len..][..image_len];
                    let d_f = &mut d_f[i * image_len..][..image_len];
                    let d_hidden = &mut d_hidden[i * hidden_len..][..hidden_len];
                    frame.leave_backward(d_x, image, kept, &mut sums, d_f, &mut scratch);
                    operands.round(d_f);
                    project_back(tile, d_f, w2, tokens, d_hidden);
                    multiply(d_hidden, slope.read(image * hidden_len, &mut image_slope));
                    operands.round(d_hidden);
                    project_back(tile, d_hidden, w1, tokens, &mut d_a);
                    frame.enter_backward(&x[image * image_len..][..image_len], &d_a, image, kept, &mut sums, d_x);
                }
                sums
            })
        };
        for sums in &sums {
            spec.add_gradients(cpu, sums);
        }
        let rows = images * tokens;
        add_bias_gradient(cpu, &branch.fc2, &d_f);
        add_bias_gradient(cpu, &branch.fc1, &d_hidden);
        add_weight_gradient(cpu, branch.fc2.weight, &d_f, &hidden.into_f32(&cpu.shelves), rows);
        add_weight_gradient(cpu, branch.fc1.weight, &d_hidden, &a.into_f32(&cpu.shelves), rows);
        gradients.add(input, d_output);
    }
}
