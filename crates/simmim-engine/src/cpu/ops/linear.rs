//! A linear layer on its own: prediction heads, classifiers, and patch merging.

use super::{add_bias_gradient, add_weight_gradients};
use crate::backend::{Linear, Precision};
use crate::cpu::buffers::Buffer;
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Stack, Stored};
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::element::{Bf16, padded};
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Start, product};
use simmim_kernels::stored::narrow_rows;
use std::marker::PhantomData;

struct Project<E> {
    linear: Linear,
    input: NodeId,
    chunks: Chunks,
    /// The input, `[rows, in]`.
    x: Stack,
    inputs: usize,
    outputs: usize,
    element: PhantomData<E>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, linear),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, linear),
    }
}

fn forward_in<E: Stored>(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    let (rows, inputs) = (x.rows(), x.width());
    let outputs = cpu.table.get(linear.weight).shape[0];
    let chunks = cpu.chunks::<E>(rows, inputs);
    let mut kept = Stack::kept::<E>(&cpu.shelves, &chunks, inputs, cpu.tile.width(), cpu.is_recording());
    let data: &[f32] = &x.data;
    let out = project_chunks::<E>(cpu, linear, &chunks, inputs, &mut kept, |rows, chunk| {
        chunk.copy_from_slice(&data[rows.start * inputs..rows.end * inputs]);
    });
    let mut shape = x.shape.to_vec();
    *shape.last_mut().expect("a tensor has at least one axis") = outputs;
    cpu.output(&shape, out, || Project::<E> {
        linear: *linear,
        input: x.node,
        chunks,
        x: kept,
        inputs,
        outputs,
        element: PhantomData,
    })
}

/// `y = x·Wᵀ + b` for all rows, where `fill` writes a chunk of `x` `[R, in]`, which is also packed to `kept`.
pub(super) fn project_chunks<E: Stored>(
    cpu: &Cpu,
    linear: &Linear,
    chunks: &Chunks,
    inputs: usize,
    kept: &mut Stack,
    fill: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) -> Buffer<f32> {
    let (tile, outputs, ranges) = (cpu.tile, cpu.table.get(linear.weight).shape[0], chunks.ranges());
    let rows = ranges.last().map_or(0, |chunk| chunk.end);
    let mut out = cpu.shelves.f32.take(rows * outputs);
    let packed = cpu.forward_weight::<E>(linear.weight);
    let store = cpu.store.borrow();
    let start = linear.bias.map_or(Start::Zero, |b| Start::Bias(store.value(b)));
    let weight = packed.get();
    let (shelves, chunk_rows) = (&cpu.shelves, chunks.chunk_rows());
    let tasks = ranges.iter().zip(split_mut(&mut out, &ranges, outputs)).zip(kept.split(chunks));
    cpu.threads.map(tasks.collect(), |((rows, out), mut kept)| {
        let (mut x, mut stored) = (shelves.f32.take(rows.len() * inputs), shelves.rows::<E>(chunk_rows, inputs));
        fill(rows.clone(), &mut x);
        narrow_rows(&x, inputs, &mut stored, padded::<E>(inputs));
        let x = Matrix::new(&stored[..rows.len() * padded::<E>(inputs)], rows.len(), inputs);
        kept.pack(x);
        product(tile, x, weight, out, outputs, start);
    });
    out
}

/// The chunks of a layer's backward pass: packs the gradient of its output for that of its weight, adds that of its
/// bias, and writes that of its input if it is given panels and room.
pub(super) fn backward_chunks<E: Stored>(
    cpu: &Cpu,
    linear: &Linear,
    chunks: &Chunks,
    d_y: &[f32],
    d_x: Option<(Packed, &mut [f32])>,
) -> Stack {
    let (tile, outputs, ranges) = (cpu.tile, cpu.table.get(linear.weight).shape[0], chunks.ranges());
    let mut packed = Stack::temporary::<E>(&cpu.shelves, chunks, outputs, tile.height());
    let d_x_parts: Vec<_> = match d_x {
        None => ranges.iter().map(|_| None).collect(),
        Some((weight, d_x)) => {
            split_mut(d_x, &ranges, weight.columns()).into_iter().map(|d_x| Some((weight, d_x))).collect()
        }
    };
    let (shelves, chunk_rows) = (&cpu.shelves, chunks.chunk_rows());
    let tasks = ranges.iter().zip(packed.split(chunks)).zip(d_x_parts);
    let sums = cpu.threads.map(tasks.collect(), |((rows, mut packed), d_x)| {
        let d_y = &d_y[rows.start * outputs..rows.end * outputs];
        let mut sums = vec![0.0; outputs];
        add_column_sums(d_y, &mut sums);
        let mut stored = shelves.rows::<E>(chunk_rows, outputs);
        narrow_rows(d_y, outputs, &mut stored, padded::<E>(outputs));
        let d_y = Matrix::new(&stored[..rows.len() * padded::<E>(outputs)], rows.len(), outputs);
        packed.pack(d_y);
        if let Some((weight, d_x)) = d_x {
            product(tile, d_y, weight, d_x, weight.columns(), Start::Zero);
        }
        sums
    });
    sums.iter().for_each(|sums| add_bias_gradient(cpu, linear, sums));
    packed
}

impl<E: Stored> Backward for Project<E> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { inputs, outputs, chunks, linear, .. } = *self;
        let mut d_x = cpu.shelves.f32.take(d_output.len() / outputs * inputs);
        let weight = cpu.backward_weight::<E>(linear.weight);
        let d_y = backward_chunks::<E>(cpu, &linear, &chunks, &d_output, Some((weight.get(), &mut d_x)));
        add_weight_gradients::<E>(cpu, &[(linear.weight, &d_y, &self.x)]);
        gradients.add(self.input, d_x);
    }
}
