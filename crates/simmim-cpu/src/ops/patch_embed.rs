//! Patch embedding: images are cut into patches, which go through a linear layer.

use super::add_weight_gradients;
use super::linear::{backward_chunks, project_chunks};
use crate::buffer_pool::Buffer;
use crate::chunks::Chunks;
use crate::packed_activations::{PackedActivations, Side};
use crate::pools::ActivationDtype;
use crate::tape::{Backward, Gradients};
use crate::{Cpu, CpuTensor};
use simmim_engine::{Images, Linear, Precision};
use simmim_kernels::dtype::Bf16;
use simmim_kernels::patches::{PatchSizes, cut_patch};
use std::marker::PhantomData;

struct PatchEmbedBackward<T> {
    linear: Linear,
    chunks: Chunks,
    /// The patches, `[B·N, C·p_h·p_w]`.
    x: PackedActivations,
    dtype: PhantomData<T>,
}

pub(crate) fn forward(cpu: &Cpu, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, images, patch, linear),
        Precision::Bf16 => forward_in::<Bf16>(cpu, images, patch, linear),
    }
}

fn forward_in<T: ActivationDtype>(cpu: &Cpu, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
    let sizes = PatchSizes {
        channels: images.channels,
        height: images.height,
        width: images.width,
        patch_height: patch.0,
        patch_width: patch.1,
    };
    assert!(
        sizes.height.is_multiple_of(patch.0) && sizes.width.is_multiple_of(patch.1),
        "patches of {patch:?} do not divide {}×{}",
        sizes.height,
        sizes.width
    );
    let tokens = sizes.rows() * sizes.columns();
    let inputs = sizes.patch_len();
    let chunks = cpu.chunks::<T>(images.count * tokens, inputs);
    let mut saved_x = PackedActivations::saved::<T>(cpu, &chunks, inputs, Side::Right, cpu.is_recording());
    let out = project_chunks::<T>(cpu, linear, &chunks, inputs, &mut saved_x, |rows, chunk| {
        for (row, patch) in rows.zip(chunk.chunks_exact_mut(inputs)) {
            cut_patch(&sizes, images.image(row / tokens), row % tokens, patch);
        }
    });
    let width = cpu.table.get(linear.weight).shape[0];
    let backward = || PatchEmbedBackward::<T> { linear: *linear, chunks, x: saved_x, dtype: PhantomData };
    cpu.output_with_parameters(linear.parameters(), &[images.count, tokens, width], out, backward)
}

impl<T: ActivationDtype> Backward for PatchEmbedBackward<T> {
    fn name(&self) -> &'static str {
        "patch embed"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, _: &mut Gradients) {
        let d_y = backward_chunks::<T>(cpu, &self.linear, &self.chunks, &d_output, None);
        add_weight_gradients::<T>(cpu, &[(self.linear.weight, &d_y, &self.x)]);
    }
}
