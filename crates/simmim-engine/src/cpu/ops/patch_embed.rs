//! Patch embedding: cut into patches, then a linear layer.

use super::add_weight_gradients;
use super::linear::{backward_chunks, project_chunks};
use crate::backend::{Images, Linear, Precision};
use crate::cpu::buffers::Buffer;
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Stack, Stored};
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::element::Bf16;
use simmim_kernels::patches::{PatchGrid, cut_patch};
use std::marker::PhantomData;

struct PatchEmbed<E> {
    linear: Linear,
    chunks: Chunks,
    /// The cut images, `[B·N, C·p_h·p_w]`.
    x: Stack,
    element: PhantomData<E>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, images, patch, linear),
        Precision::Bf16 => forward_in::<Bf16>(cpu, images, patch, linear),
    }
}

fn forward_in<E: Stored>(cpu: &Cpu, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
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
    let inputs = grid.patch_len();
    let chunks = cpu.chunks::<E>(images.count * tokens, inputs);
    let mut kept = Stack::kept::<E>(&cpu.shelves, &chunks, inputs, cpu.tile.width(), cpu.is_recording());
    let out = project_chunks::<E>(cpu, linear, &chunks, inputs, &mut kept, |rows, chunk| {
        for (row, patch) in rows.zip(chunk.chunks_exact_mut(inputs)) {
            cut_patch(&grid, images.image(row / tokens), row % tokens, patch);
        }
    });
    let width = cpu.table.get(linear.weight).shape[0];
    let keep = || PatchEmbed::<E> { linear: *linear, chunks, x: kept, element: PhantomData };
    cpu.output(&[images.count, tokens, width], out, keep)
}

impl<E: Stored> Backward for PatchEmbed<E> {
    fn name(&self) -> &'static str {
        "patch embed"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, _: &mut Gradients) {
        let d_y = backward_chunks::<E>(cpu, &self.linear, &self.chunks, &d_output, None);
        add_weight_gradients::<E>(cpu, &[(self.linear.weight, &d_y, &self.x)]);
    }
}
