//! Patch embedding: cut into patches, then a linear layer.

use super::{add_bias_gradient, add_weight_gradient, project};
use crate::backend::{Images, Linear};
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::patches::{PatchGrid, cut};

struct PatchEmbed {
    linear: Linear,
    /// The cut images, `[B·N, C·p_h·p_w]`.
    rows: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
    let grid = PatchGrid {
        channels: images.channels,
        height: images.height,
        width: images.width,
        patch_height: patch.0,
        patch_width: patch.1,
    };
    assert!(
        grid.height.is_multiple_of(patch.0) && grid.width.is_multiple_of(patch.1),
        "patches of {patch:?} do not divide {}×{}",
        grid.height,
        grid.width
    );
    let tokens = grid.rows() * grid.columns();
    let width = cpu.table.get(linear.weight).shape[0];
    let (operands, tile) = (cpu.operands(), cpu.tile);
    let mut rows = cpu.shelves.f32.take(images.count * grid.image_len());
    let mut out = cpu.shelves.f32.take(images.count * tokens * width);
    let packed = cpu.forward_weight(linear.weight);
    {
        let weight: &[f32] = &packed;
        let store = cpu.store.borrow();
        let bias = linear.bias.map(|b| store.value(b));
        let groups = cpu.threads.groups(images.count);
        let parts = split_mut(&mut rows, &groups, grid.image_len());
        let outs = split_mut(&mut out, &groups, tokens * width);
        let tasks = groups.iter().zip(parts).zip(outs).collect();
        cpu.threads.map(tasks, |((group, rows), out)| {
            for (i, rows) in group.clone().zip(rows.chunks_exact_mut(grid.image_len())) {
                cut(&grid, images.image(i), rows);
            }
            operands.round(rows);
            if !group.is_empty() {
                project(tile, rows, weight, bias, group.len() * tokens, out);
            }
        });
    }
    cpu.output(&[images.count, tokens, width], out, || PatchEmbed { linear: *linear, rows })
}

impl Backward for PatchEmbed {
    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, _: &mut Gradients) {
        add_bias_gradient(cpu, &self.linear, &d_output);
        cpu.operands().round(&mut d_output);
        let rows = d_output.len() / cpu.table.get(self.linear.weight).shape[0];
        add_weight_gradient(cpu, self.linear.weight, &d_output, &self.rows, rows);
    }
}
