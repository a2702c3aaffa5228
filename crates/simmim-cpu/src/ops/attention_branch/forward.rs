//! The forward pass, phase by phase.

use super::super::bias_table::expand_bias;
use super::super::column_blocks::ColumnBlocks;
use super::super::residual::SavedResidual;
use super::layout::{AttentionSizes, collect_rows};
use super::parameters::AttentionParameters;
use super::saved::{AttentionBackward, SavedBias, residual_spec};
use super::scratch::{HeadScratch, RowsScratch};
use crate::buffer_pool::Buffer;
use crate::chunks::Chunks;
use crate::packed_activations::{PackedActivations, Side, split_saved};
use crate::pools::ActivationDtype;
use crate::threads::{divide, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::{AttentionBranch, ParameterId, Precision};
use simmim_kernels::attention::attend;
use simmim_kernels::dtype::{Bf16, padded};
use simmim_kernels::epilogue::narrow_rows;
use simmim_kernels::heads::{gather, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Accumulator, product};
use simmim_kernels::rotary::Turn;
use std::rc::Rc;

pub(crate) fn forward(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    drop_path_scale: Option<&[f32]>,
) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, branch, bias_table, drop_path_scale),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, branch, bias_table, drop_path_scale),
    }
}

fn forward_in<T: ActivationDtype>(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    drop_path_scale: Option<&[f32]>,
) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    assert_eq!(width % branch.heads, 0, "{} heads do not divide width {width}", branch.heads);
    let (windows, window_tokens) = (branch.windows.count(), branch.windows.tokens);
    let sizes = AttentionSizes { images, tokens, width, heads: branch.heads, windows, window_tokens };
    let drop_path_scale = drop_path_scale.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let is_recording = cpu.is_recording();
    let chunks = cpu.chunks::<T>(sizes.rows(), width);

    let mut saved_residual = residual_spec(branch).allocate_saved::<T>(cpu, sizes.rows());
    let packed = |is_saved| PackedActivations::saved::<T>(cpu, &chunks, width, Side::Right, is_saved);
    let (mut saved_a, mut saved_o) = (packed(is_recording && !T::RECOMPUTES), packed(is_recording));
    let p_len = if is_recording { images * sizes.heads * sizes.p_len::<T>() } else { 0 };
    let mut saved_p = T::pool(&cpu.pools).take(p_len);
    let bias_table = bias_table.map(|table| SavedBias {
        table: table.node,
        rows: table.rows(),
        expanded: expand_bias(cpu, table, &branch.bias_index, branch.heads),
    });
    let (qkv, out) = {
        let store = cpu.store.borrow();
        let position_bias: &[f32] = bias_table.as_ref().map_or(&[], |bias| &bias.expanded);
        let parameters = AttentionParameters::read(cpu, &store, branch, position_bias, &drop_path_scale, sizes);
        let qkv = rows_to_qkv(cpu, &parameters, branch.qkv, &chunks, &x.data, &mut saved_residual, &mut saved_a);
        let heads = qkv_to_heads(cpu, &parameters, &qkv, &mut saved_p);
        let weight = branch.projection.weight;
        let out =
            heads_to_output(cpu, &parameters, weight, &chunks, &x.data, &heads, &mut saved_residual, &mut saved_o);
        (qkv, out)
    };
    cpu.output_with_parameters(branch.parameters(), &x.shape, out, || AttentionBackward {
        branch: branch.clone(),
        input: x.node,
        drop_path_scale,
        x: Rc::clone(&x.data),
        bias_table,
        sizes,
        chunks,
        residual: saved_residual,
        a: saved_a,
        qkv,
        p: saved_p,
        o: saved_o,
    })
}

/// First phase: the norm and the joint projection, `[rows, D]` → `[rows, 3D]`.
fn rows_to_qkv<T: ActivationDtype>(
    cpu: &Cpu,
    parameters: &AttentionParameters<T>,
    weight: ParameterId,
    chunks: &Chunks,
    x: &[f32],
    saved_residual: &mut SavedResidual<T>,
    saved_a: &mut PackedActivations,
) -> Buffer<T> {
    let (width, ranges, blocks) = (parameters.sizes.width, chunks.ranges(), ColumnBlocks::new::<T>(cpu));
    let stride = padded::<T>(3 * width);
    let mut qkv = cpu.pools.rows::<T>(parameters.sizes.rows(), 3 * width);
    let packed = cpu.forward_weight::<T>(weight);
    let parts = split_mut(&mut qkv, &ranges, stride)
        .into_iter()
        .zip(saved_residual.split(&ranges, width))
        .zip(saved_a.split(chunks));
    let (weight, pools) = (packed.get(), &cpu.pools);
    cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, ((qkv, mut saved_residual), mut saved_a))| {
        let mut scratch = RowsScratch::<T>::new(pools, chunks, width, &blocks);
        let count = rows.len();
        let x = &x[rows.start * width..rows.end * width];
        let a = parameters.residual.branch_input(x, &mut saved_residual, &mut scratch.residual); // [R, D]
        narrow_rows(a, width, &mut scratch.stored, padded::<T>(width));
        let a = Matrix::new(&scratch.stored[..count * padded::<T>(width)], count, width);
        saved_a.pack(a);
        let accumulator = Accumulator::Bias(&parameters.qkv_bias);
        blocks.product(a, weight, accumulator, &mut scratch.block, |block, rows, columns| {
            let queries = width.saturating_sub(columns.left).min(columns.len());
            if queries > 0 && parameters.query_factor != 1.0 {
                let rows = block.chunks_exact_mut(columns.len());
                rows.for_each(|row| row[..queries].iter_mut().for_each(|q| *q *= parameters.query_factor));
            }
            narrow_rows(block, columns.len(), &mut qkv[rows.start * stride + columns.left..], stride);
        });
    });
    qkv
}

/// The most tasks that the heads of all images are divided into. The tasks have no sums, so many of them cost nothing.
const MOST_HEAD_TASKS: usize = 64;

/// Second phase: attention, rows `[B·N, 3D]` → heads `[B, A, N, E]`. The attention weights are saved if `saved_p` has
/// memory.
fn qkv_to_heads<T: ActivationDtype>(
    cpu: &Cpu,
    parameters: &AttentionParameters<T>,
    qkv: &[T],
    saved_p: &mut [T],
) -> Buffer<T> {
    let (sizes, tile) = (parameters.sizes, cpu.tile);
    let mut heads = T::pool(&cpu.pools).temporary(sizes.rows() * sizes.width);
    let groups = divide(sizes.images * sizes.heads, MOST_HEAD_TASKS);
    let tasks = groups.iter().zip(split_mut(&mut heads, &groups, sizes.head_len())).zip(split_saved(
        saved_p,
        &groups,
        sizes.p_len::<T>(),
    ));
    let pools = &cpu.pools;
    cpu.threads.map(tasks.collect(), |((group, heads), saved_p)| {
        let mut scratch = HeadScratch::new(pools, sizes.head());
        let scores_len = sizes.head().scores_len::<T>();
        for (i, item) in group.clone().enumerate() {
            let (image, head) = (item / sizes.heads, item % sizes.heads);
            let scales = parameters.scales(head);
            for window in 0..sizes.windows {
                for (part, scale) in scales.into_iter().enumerate() {
                    let columns = parameters.columns(qkv, image, part, head);
                    gather(columns, parameters.slots(window), scale, &mut scratch.stored[part]);
                }
                let row = padded::<T>(sizes.head_width());
                scratch.stored[..2].iter_mut().for_each(|rows| parameters.rotate(rows, row, window, Turn::Forth));
                let p = match saved_p.is_empty() {
                    true => &mut [][..],
                    false => &mut saved_p[i * sizes.p_len::<T>() + window * scores_len..][..scores_len],
                };
                let [q, k, v, _] = &scratch.stored;
                let mut both = [&[][..]; 2];
                let biases = parameters.biases(window, head, &mut both);
                let o = &mut scratch.dense[0];
                attend(tile, sizes.head(), q, k, v, biases, p, o, &mut scratch.attention);
                let out = &mut heads[i * sizes.head_len()..][..sizes.head_len()];
                scatter(o, sizes.head_width(), parameters.slots(window), out, &mut []);
            }
        }
    });
    heads
}

/// Third phase: the output projection and the residual, heads → `[rows, D]`.
fn heads_to_output<T: ActivationDtype>(
    cpu: &Cpu,
    parameters: &AttentionParameters<T>,
    weight: ParameterId,
    chunks: &Chunks,
    x: &[f32],
    heads: &[T],
    saved_residual: &mut SavedResidual<T>,
    saved_o: &mut PackedActivations,
) -> Buffer<f32> {
    let (sizes, ranges, blocks) = (parameters.sizes, chunks.ranges(), ColumnBlocks::new::<T>(cpu));
    let width = sizes.width;
    let mut out = cpu.pools.f32.take(x.len());
    let packed = cpu.forward_weight::<T>(weight);
    let (weight, tile, pools) = (packed.get(), cpu.tile, &cpu.pools);
    let parts = split_mut(&mut out, &ranges, width)
        .into_iter()
        .zip(saved_residual.split(&ranges, width))
        .zip(saved_o.split(chunks));
    cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, ((out, mut saved_residual), mut saved_o))| {
        let mut scratch = RowsScratch::<T>::new(pools, chunks, width, &blocks);
        let count = rows.len();
        let o = &mut scratch.stored[..count * padded::<T>(width)];
        collect_rows(&sizes, heads, 1, rows, o);
        let o = Matrix::new(o, count, width);
        saved_o.pack(o);
        let f = &mut scratch.f[..count * width];
        product(tile, o, weight, f, width, parameters.projection_accumulator); // [R, D]
        let x = &x[rows.start * width..rows.end * width];
        parameters.residual.add_branch(x, f, rows, &mut saved_residual, &mut scratch.residual, out);
    });
    out
}
