//! The forward pass.

use super::super::column_blocks::ColumnBlocks;
use super::super::residual::SavedResidualChunk;
use super::gated;
use super::saved::{MlpBackward, residual_spec};
use super::scratch::MlpScratch;
use crate::packed_activations::{PackedActivations, PackedActivationsChunk, Side, split_saved};
use crate::pools::ActivationDtype;
use crate::threads::split_mut;
use crate::{Cpu, CpuTensor};
use simmim_engine::{Activation, MlpBranch, Precision};
use simmim_kernels::dtype::{Bf16, padded};
use simmim_kernels::epilogue::{gelu_rows, narrow_rows};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Accumulator, product};
use std::ops::Range;
use std::rc::Rc;

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> CpuTensor {
    match branch.activation {
        Activation::Gelu => {}
        Activation::SwiGlu => return gated::forward(cpu, x, branch, drop_path_scale),
    }
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, branch, drop_path_scale),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, branch, drop_path_scale),
    }
}

/// A chunk: its rows of the output and of what is saved.
struct ForwardTask<'a, T> {
    rows: Range<usize>,
    out: &'a mut [f32],
    residual: SavedResidualChunk<'a, T>,
    a: PackedActivationsChunk<'a>,
    gelu: &'a mut [T],
    hidden: PackedActivationsChunk<'a>,
}

fn forward_in<T: ActivationDtype>(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &MlpBranch,
    drop_path_scale: Option<&[f32]>,
) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    let rows = images * tokens;
    let hidden_width = cpu.table.get(branch.fc1.weight).shape[0];
    let drop_path_scale = drop_path_scale.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let (tile, is_recording) = (cpu.tile, cpu.is_recording());
    let chunks = cpu.chunks::<T>(rows, width.max(hidden_width));
    let (ranges, blocks, pools) = (chunks.ranges(), ColumnBlocks::new::<T>(cpu), &cpu.pools);

    let mut out = cpu.pools.f32.take(x.data.len());
    let mut saved_residual = residual_spec(branch).allocate_saved::<T>(cpu, rows);
    let packed = |columns, is_recomputed: bool| {
        PackedActivations::saved::<T>(cpu, &chunks, columns, Side::Right, is_recording && !is_recomputed)
    };
    let mut saved_a = packed(width, residual_spec(branch).recomputes_branch_input::<T>());
    let mut saved_hidden = packed(hidden_width, T::RECOMPUTES);
    let mut saved_gelu = T::pool(&cpu.pools).take(if is_recording { rows * hidden_width } else { 0 });
    let (w1, w2) = (cpu.forward_weight::<T>(branch.fc1.weight), cpu.forward_weight::<T>(branch.fc2.weight));
    {
        let store = cpu.store.borrow();
        let residual = residual_spec(branch).read(&store, &drop_path_scale, tokens);
        let accumulator = |bias: Option<_>| bias.map_or(Accumulator::Zero, |bias| Accumulator::Bias(store.value(bias)));
        let (b1, b2) = (accumulator(branch.fc1.bias), accumulator(branch.fc2.bias));
        let (w1, w2, data): (_, _, &[f32]) = (w1.get(), w2.get(), &x.data);
        let parts = split_mut(&mut out, &ranges, width)
            .into_iter()
            .zip(saved_residual.split(&ranges, width))
            .zip(saved_a.split(&chunks))
            .zip(split_saved(&mut saved_gelu, &ranges, hidden_width))
            .zip(saved_hidden.split(&chunks));
        let tasks = ranges.into_iter().zip(parts).map(|(rows, ((((out, residual), a), gelu), hidden))| ForwardTask {
            rows,
            out,
            residual,
            a,
            gelu,
            hidden,
        });
        cpu.threads.map(tasks.collect(), |mut saved| {
            let mut scratch = MlpScratch::<T>::new(pools, chunks.chunk_rows(), width, hidden_width, &blocks);
            let (count, rows) = (saved.rows.len(), saved.rows);
            let x = &data[rows.start * width..rows.end * width];
            let a = residual.branch_input(x, &mut saved.residual, &mut scratch.residual); // [R, D]
            narrow_rows(a, width, &mut scratch.a, padded::<T>(width));
            let a = Matrix::new(&scratch.a[..count * padded::<T>(width)], count, width);
            saved.a.pack(a);
            let hidden = &mut scratch.hidden;
            blocks.product(a, w1, b1, &mut scratch.block, |block, rows, columns| {
                let saved_gelu = match saved.gelu.is_empty() {
                    true => &mut [],
                    false => &mut saved.gelu[count * columns.left + rows.start * columns.len()..][..block.len()],
                };
                let slope = match T::RECOMPUTES && !saved_gelu.is_empty() {
                    true => {
                        T::narrow(block, saved_gelu);
                        &mut []
                    }
                    false => saved_gelu,
                };
                let stride = padded::<T>(hidden_width);
                gelu_rows(block, columns.len(), &mut hidden[rows.start * stride + columns.left..], stride, slope);
            });
            let hidden = &scratch.hidden[..count * padded::<T>(hidden_width)];
            let hidden = Matrix::new(hidden, count, hidden_width); // [R, hidden]
            saved.hidden.pack(hidden);
            let f = &mut scratch.f[..count * width];
            product(tile, hidden, w2, f, width, b2); // [R, D]
            residual.add_branch(x, f, &rows, &mut saved.residual, &mut scratch.residual, saved.out);
        });
    }
    cpu.output_with_parameters(branch.parameters(), &x.shape, out, || MlpBackward {
        branch: *branch,
        input: x.node,
        drop_path_scale,
        tokens,
        x: T::RECOMPUTES.then(|| Rc::clone(&x.data)),
        chunks,
        residual: saved_residual,
        a: saved_a,
        gelu: saved_gelu,
        hidden: saved_hidden,
    })
}
