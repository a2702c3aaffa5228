//! From the input to the output, phase by phase.

use super::super::bias::expand_bias;
use super::super::blocks::Blocks;
use super::super::frame::FrameKept;
use super::shared::{Attention, HeadRows, RowsScratch, Sizes, Weights, collect_rows, frame_spec};
use crate::backend::{AttentionBranch, Precision};
use crate::cpu::buffers::Buffer;
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Stack, Stored, split_kept};
use crate::cpu::threads::{divide, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use crate::parameters::ParameterId;
use simmim_kernels::attention::attend;
use simmim_kernels::element::{Bf16, padded};
use simmim_kernels::heads::{gather, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Start, product};
use simmim_kernels::stored::narrow_rows;
use std::rc::Rc;

pub(in crate::cpu) fn forward(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    keep: Option<&[f32]>,
) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, branch, bias_table, keep),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, branch, bias_table, keep),
    }
}

fn forward_in<E: Stored>(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    keep: Option<&[f32]>,
) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    assert_eq!(width % branch.heads, 0, "{} heads do not divide width {width}", branch.heads);
    let windows = &branch.windows;
    let sizes =
        Sizes { images, tokens, width, heads: branch.heads, windows: windows.count(), window_tokens: windows.tokens };
    let keep = keep.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let is_recording = cpu.is_recording();
    let chunks = cpu.chunks::<E>(sizes.rows(), width);

    let mut frame_kept = frame_spec(branch).keep::<E>(cpu, sizes.rows());
    let stack = |is_kept| Stack::kept::<E>(&cpu.shelves, &chunks, width, cpu.tile.width(), is_kept);
    let (mut a_kept, mut o_kept) = (stack(is_recording && !E::COMPUTES_AGAIN), stack(is_recording));
    let p_len = if is_recording { images * sizes.heads * sizes.p_len::<E>() } else { 0 };
    let mut p_kept = E::shelf(&cpu.shelves).take(p_len);
    let position_bias = bias_table.map(|table| expand_bias(cpu, table, &branch.bias_index, branch.heads));
    let (qkv, out) = {
        let store = cpu.store.borrow();
        let weights = Weights::<E>::read(cpu, &store, branch, position_bias.as_ref(), &keep, sizes);
        let qkv = to_qkv(cpu, &weights, branch.qkv, &chunks, &x.data, &mut frame_kept, &mut a_kept);
        let heads = to_heads(cpu, &weights, &qkv, &mut p_kept);
        let out =
            to_output(cpu, &weights, branch.projection.weight, &chunks, &x.data, &heads, &mut frame_kept, &mut o_kept);
        (qkv, out)
    };
    cpu.output(&x.shape, out, || Attention {
        branch: branch.clone(),
        input: x.node,
        keep,
        x: Rc::clone(&x.data),
        position_bias: bias_table
            .map(|table| (table.node, table.rows()))
            .zip(position_bias)
            .map(|((n, r), b)| (n, r, b)),
        sizes,
        chunks,
        frame: frame_kept,
        a: a_kept,
        qkv,
        p: p_kept,
        o: o_kept,
    })
}

/// First phase: norm and joint projection, `[rows, D]` → `[rows, 3D]`.
fn to_qkv<E: Stored>(
    cpu: &Cpu,
    weights: &Weights<E>,
    weight: ParameterId,
    chunks: &Chunks,
    x: &[f32],
    frame_kept: &mut FrameKept<E>,
    a_kept: &mut Stack,
) -> Buffer<E> {
    let (width, ranges, blocks) = (weights.sizes.width, chunks.ranges(), Blocks::new(cpu));
    let stride = padded::<E>(3 * width);
    let mut qkv = cpu.shelves.rows::<E>(weights.sizes.rows(), 3 * width);
    let packed = cpu.forward_weight::<E>(weight);
    let parts = split_mut(&mut qkv, &ranges, stride)
        .into_iter()
        .zip(frame_kept.split(&ranges, width))
        .zip(a_kept.split(chunks));
    let (weight, tile, shelves) = (packed.get(), cpu.tile, &cpu.shelves);
    cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, ((qkv, mut frame), mut a_kept))| {
        let mut scratch = RowsScratch::<E>::new(shelves, chunks, width, &blocks);
        let count = rows.len();
        let x = &x[rows.start * width..rows.end * width];
        let entered = weights.frame.enter(x, &mut frame, &mut scratch.rows); // [R, D]
        narrow_rows(entered, width, &mut scratch.stored, padded::<E>(width));
        let a = Matrix::new(&scratch.stored[..count * padded::<E>(width)], count, width);
        a_kept.pack(a);
        for columns in blocks.of(weight) {
            let block = &mut scratch.block[..count * columns.len()];
            let start = columns.start(Start::Bias(&weights.qkv_bias));
            product(tile, a, columns.weight, block, columns.len(), start);
            let queries = width.saturating_sub(columns.left).min(columns.len());
            if queries > 0 && weights.query_factor != 1.0 {
                let rows = block.chunks_exact_mut(columns.len());
                rows.for_each(|row| row[..queries].iter_mut().for_each(|q| *q *= weights.query_factor));
            }
            narrow_rows(block, columns.len(), &mut qkv[columns.left..], stride);
        }
    });
    qkv
}

/// Tasks that the heads of all images are divided into, at most: they have no sums, so many cost nothing.
const HEAD_TASKS: usize = 64;

/// Second phase: attention, rows `[B·N, 3D]` → heads `[B, A, N, E]`; keeps the weights if `p_kept` has room.
fn to_heads<E: Stored>(cpu: &Cpu, weights: &Weights<E>, qkv: &[E], p_kept: &mut [E]) -> Buffer<E> {
    let (sizes, tile) = (weights.sizes, cpu.tile);
    let mut heads = E::shelf(&cpu.shelves).temporary(sizes.rows() * sizes.width);
    let groups = divide(sizes.images * sizes.heads, HEAD_TASKS);
    let tasks = groups.iter().zip(split_mut(&mut heads, &groups, sizes.head_len())).zip(split_kept(
        p_kept,
        &groups,
        sizes.p_len::<E>(),
    ));
    let shelves = &cpu.shelves;
    cpu.threads.map(tasks.collect(), |((group, heads), p_kept)| {
        let mut rows = HeadRows::new(shelves, sizes.head());
        let mut p_scratch = shelves.rows::<E>(sizes.window_tokens, sizes.window_tokens);
        let scores_len = sizes.head().scores_len::<E>();
        for (i, item) in group.clone().enumerate() {
            let (image, head) = (item / sizes.heads, item % sizes.heads);
            let scales = weights.scales(head);
            for window in 0..sizes.windows {
                for (part, scale) in scales.into_iter().enumerate() {
                    let columns = weights.columns(qkv, image, part, head);
                    gather(columns, weights.slots(window), scale, &mut rows.stored[part]);
                }
                let p = match p_kept.is_empty() {
                    true => &mut p_scratch[..],
                    false => &mut p_kept[i * sizes.p_len::<E>() + window * scores_len..][..scores_len],
                };
                let [q, k, v, _] = &rows.stored;
                let mut room = [&[][..]; 2];
                let biases = weights.biases(window, head, &mut room);
                let o = &mut rows.dense[0];
                attend(tile, sizes.head(), q, k, v, biases, p, o, &mut rows.products);
                let out = &mut heads[i * sizes.head_len()..][..sizes.head_len()];
                scatter(o, sizes.head_width(), weights.slots(window), out, &mut []);
            }
        }
    });
    heads
}

/// Third phase: output projection, layer scale and residual, heads → `[rows, D]`.
fn to_output<E: Stored>(
    cpu: &Cpu,
    weights: &Weights<E>,
    weight: ParameterId,
    chunks: &Chunks,
    x: &[f32],
    heads: &[E],
    frame_kept: &mut FrameKept<E>,
    o_kept: &mut Stack,
) -> Buffer<f32> {
    let (sizes, ranges, blocks) = (weights.sizes, chunks.ranges(), Blocks::new(cpu));
    let width = sizes.width;
    let mut out = cpu.shelves.f32.take(x.len());
    let packed = cpu.forward_weight::<E>(weight);
    let (weight, tile, shelves) = (packed.get(), cpu.tile, &cpu.shelves);
    let parts =
        split_mut(&mut out, &ranges, width).into_iter().zip(frame_kept.split(&ranges, width)).zip(o_kept.split(chunks));
    cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, ((out, mut frame), mut o_kept))| {
        let mut scratch = RowsScratch::<E>::new(shelves, chunks, width, &blocks);
        let count = rows.len();
        let o = &mut scratch.stored[..count * padded::<E>(width)];
        collect_rows(&sizes, heads, 1, rows, o);
        let o = Matrix::new(o, count, width);
        o_kept.pack(o);
        let f = &mut scratch.f[..count * width];
        product(tile, o, weight, f, width, weights.projection); // [R, D]
        let x = &x[rows.start * width..rows.end * width];
        weights.frame.leave(x, f, rows, &mut frame, &mut scratch.rows, out);
    });
    out
}
