//! A linear layer that is not part of a branch: in prediction heads, classifiers and patch merging.

use super::{add_bias_gradient, add_weight_gradients};
use crate::buffer_pool::Buffer;
use crate::chunks::Chunks;
use crate::packed_activations::{PackedActivations, Side};
use crate::pools::ActivationDtype;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::split_mut;
use crate::{Cpu, CpuTensor};
use simmim_engine::{Linear, Precision};
use simmim_kernels::dtype::{Bf16, padded};
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::epilogue::narrow_rows;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Accumulator, product};
use std::marker::PhantomData;
use std::ops::Range;

struct LinearBackward<T> {
    linear: Linear,
    input: NodeId,
    chunks: Chunks,
    /// The input, `[rows, in]`.
    x: PackedActivations,
    inputs: usize,
    outputs: usize,
    dtype: PhantomData<T>,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, linear),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, linear),
    }
}

fn forward_in<T: ActivationDtype>(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    let (rows, inputs) = (x.rows(), x.width());
    let outputs = cpu.table.get(linear.weight).shape[0];
    let chunks = cpu.chunks::<T>(rows, inputs);
    let mut saved_x = PackedActivations::saved::<T>(cpu, &chunks, inputs, Side::Right, cpu.is_recording());
    let data: &[f32] = &x.data;
    let out = project_chunks::<T>(cpu, linear, &chunks, inputs, &mut saved_x, |rows, chunk| {
        chunk.copy_from_slice(&data[rows.start * inputs..rows.end * inputs]);
    });
    let mut shape = x.shape.to_vec();
    *shape.last_mut().expect("a tensor has at least one axis") = outputs;
    cpu.output_with_parameters(linear.parameters(), &shape, out, || LinearBackward::<T> {
        linear: *linear,
        input: x.node,
        chunks,
        x: saved_x,
        inputs,
        outputs,
        dtype: PhantomData,
    })
}

/// Computes `y = x·Wᵀ + b` for all rows. `fill` writes a chunk of `x`, `[R, in]`, which is also packed to `saved_x`.
pub(super) fn project_chunks<T: ActivationDtype>(
    cpu: &Cpu,
    linear: &Linear,
    chunks: &Chunks,
    inputs: usize,
    saved_x: &mut PackedActivations,
    fill: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Buffer<f32> {
    let (tile, outputs, ranges) = (cpu.tile, cpu.table.get(linear.weight).shape[0], chunks.ranges());
    let rows = ranges.last().map_or(0, |chunk| chunk.end);
    let mut out = cpu.pools.f32.take(rows * outputs);
    let packed = cpu.forward_weight::<T>(linear.weight);
    let store = cpu.store.borrow();
    let accumulator = linear.bias.map_or(Accumulator::Zero, |bias| Accumulator::Bias(store.value(bias)));
    let weight = packed.get();
    let (pools, chunk_rows) = (&cpu.pools, chunks.chunk_rows());
    let tasks = ranges.iter().zip(split_mut(&mut out, &ranges, outputs)).zip(saved_x.split(chunks));
    cpu.threads.map(tasks.collect(), |((rows, out), mut saved_x)| {
        let (mut x, mut stored) = (pools.f32.take(rows.len() * inputs), pools.rows::<T>(chunk_rows, inputs));
        fill(rows.clone(), &mut x);
        narrow_rows(&x, inputs, &mut stored, padded::<T>(inputs));
        let x = Matrix::new(&stored[..rows.len() * padded::<T>(inputs)], rows.len(), inputs);
        saved_x.pack(x);
        product(tile, x, weight, out, outputs, accumulator);
    });
    out
}

/// Runs the backward pass of a layer except for the gradient of its weight: adds the gradient of the bias and, given
/// the weight's panels and memory for it, writes the gradient of the input. Returns the gradient of the output, packed
/// for the gradient of the weight.
pub(super) fn backward_chunks<T: ActivationDtype>(
    cpu: &Cpu,
    linear: &Linear,
    chunks: &Chunks,
    d_y: &[f32],
    d_x: Option<(Packed, &mut [f32])>,
) -> PackedActivations {
    let (tile, outputs, ranges) = (cpu.tile, cpu.table.get(linear.weight).shape[0], chunks.ranges());
    let mut packed = PackedActivations::temporary::<T>(cpu, chunks, outputs, Side::Left);
    let d_x_parts: Vec<_> = match d_x {
        None => ranges.iter().map(|_| None).collect(),
        Some((weight, d_x)) => {
            split_mut(d_x, &ranges, weight.columns()).into_iter().map(|d_x| Some((weight, d_x))).collect()
        }
    };
    let (pools, chunk_rows) = (&cpu.pools, chunks.chunk_rows());
    let tasks = ranges.iter().zip(packed.split(chunks)).zip(d_x_parts);
    let sums = cpu.threads.map(tasks.collect(), |((rows, mut packed), d_x)| {
        let d_y = &d_y[rows.start * outputs..rows.end * outputs];
        let mut sums = vec![0.0; outputs];
        add_column_sums(d_y, &mut sums);
        let mut stored = pools.rows::<T>(chunk_rows, outputs);
        narrow_rows(d_y, outputs, &mut stored, padded::<T>(outputs));
        let d_y = Matrix::new(&stored[..rows.len() * padded::<T>(outputs)], rows.len(), outputs);
        packed.pack(d_y);
        if let Some((weight, d_x)) = d_x {
            product(tile, d_y, weight, d_x, weight.columns(), Accumulator::Zero);
        }
        sums
    });
    sums.iter().for_each(|sums| add_bias_gradient(cpu, linear, sums));
    packed
}

impl<T: ActivationDtype> Backward for LinearBackward<T> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { inputs, outputs, chunks, linear, .. } = *self;
        let mut d_x = cpu.pools.f32.take(d_output.len() / outputs * inputs);
        let weight = cpu.backward_weight::<T>(linear.weight);
        let d_y = backward_chunks::<T>(cpu, &linear, &chunks, &d_output, Some((weight.get(), &mut d_x)));
        add_weight_gradients::<T>(cpu, &[(linear.weight, &d_y, &self.x)]);
        gradients.add(self.input, d_x);
    }
}
