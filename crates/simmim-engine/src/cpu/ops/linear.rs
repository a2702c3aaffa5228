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
    let mut kept = Stack::new::<E>(&cpu.shelves, &chunks, inputs, cpu.tile.width(), cpu.is_recording());
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
    let (tile, outputs, groups) = (cpu.tile, cpu.table.get(linear.weight).shape[0], chunks.groups());
    let rows = groups.last().map_or(0, |g| g.end);
    let mut out = cpu.shelves.f32.take(rows * outputs);
    let packed = cpu.forward_weight::<E>(linear.weight);
    let store = cpu.store.borrow();
    let start = linear.bias.map_or(Start::Zero, |b| Start::Bias(store.value(b)));
    let weight = packed.get();
    let tasks = groups.iter().zip(split_mut(&mut out, &groups, outputs)).zip(kept.split(chunks)).map(|(task, kept)| {
        let scratch = cpu.shelves.f32.take(chunks.chunk_rows() * inputs);
        (task, kept, scratch, cpu.shelves.rows::<E>(chunks.chunk_rows(), inputs))
    });
    cpu.threads.map(tasks.collect(), |((group, out), mut kept, mut scratch, mut stored)| {
        for (chunk, rows) in chunks.of(group.clone()).enumerate() {
            let scratch = &mut scratch[..rows.len() * inputs];
            fill(rows.clone(), scratch);
            narrow_rows(scratch, inputs, &mut stored, padded::<E>(inputs));
            let x = Matrix::new(&stored[..rows.len() * padded::<E>(inputs)], rows.len(), inputs);
            kept.pack(chunk, x);
            let out = &mut out[(rows.start - group.start) * outputs..][..rows.len() * outputs];
            product(tile, x, weight, out, outputs, start);
        }
    });
    out
}

/// Packs the gradient of a layer's output and adds that of its bias.
pub(super) fn pack_output_gradient<E: Stored>(
    cpu: &Cpu,
    linear: &Linear,
    chunks: &Chunks,
    d_y: &[f32],
    mut with_stored: impl FnMut(&[Buffer<E>]),
) -> Stack {
    let outputs = cpu.table.get(linear.weight).shape[0];
    let mut packed = Stack::new::<E>(&cpu.shelves, chunks, outputs, cpu.tile.height(), true);
    let groups = chunks.groups();
    let tasks = groups.iter().zip(packed.split(chunks)).map(|(group, packed)| {
        (group, packed, cpu.shelves.rows::<E>(group.len(), outputs), cpu.shelves.f32.zeros(outputs))
    });
    let done = cpu.threads.map(tasks.collect(), |(group, mut packed, mut stored, mut sums)| {
        let row = padded::<E>(outputs);
        for (chunk, rows) in chunks.of(group.clone()).enumerate() {
            let d_y = &d_y[rows.start * outputs..rows.end * outputs];
            add_column_sums(d_y, &mut sums);
            let stored = &mut stored[(rows.start - group.start) * row..][..rows.len() * row];
            narrow_rows(d_y, outputs, stored, row);
            packed.pack(chunk, Matrix::new(stored, rows.len(), outputs));
        }
        (stored, sums)
    });
    let (stored, sums): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    sums.iter().for_each(|sums| add_bias_gradient(cpu, linear, sums));
    with_stored(&stored);
    packed
}

impl<E: Stored> Backward for Project<E> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { inputs, outputs, chunks, linear, .. } = *self;
        let groups = chunks.groups();
        let rows = d_output.len() / outputs;
        let mut d_x = cpu.shelves.f32.take(rows * inputs);
        let packed = cpu.backward_weight::<E>(linear.weight);
        let (weight, tile) = (packed.get(), cpu.tile);
        let d_y = pack_output_gradient::<E>(cpu, &linear, &chunks, &d_output, |stored| {
            let tasks = groups.iter().zip(split_mut(&mut d_x, &groups, inputs)).zip(stored).collect();
            cpu.threads.map(tasks, |((group, d_x), stored): ((&std::ops::Range<usize>, &mut [f32]), &Buffer<E>)| {
                product(tile, Matrix::new(stored, group.len(), outputs), weight, d_x, inputs, Start::Zero);
            });
        });
        add_weight_gradients::<E>(cpu, &[(linear.weight, &d_y, &self.x)]);
        gradients.add(self.input, d_x);
    }
}
