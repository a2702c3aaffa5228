//! The attention half of a block, in three phases: rows from the norm to queries, keys and values; then
//! each head of each image, window by window; then rows from the heads' outputs to the residual. The
//! backward pass goes through the same phases in reverse.
//!
//! What one phase writes, the next one reads in another order: rows `[B·N, 3D]` become heads
//! `[B, A, N, E]`, so that each worker writes a contiguous share of its own.

use super::bias::{expand_bias, reduce_bias};
use super::blocks::Blocks;
use super::frame::{Frame, FrameKept, FrameSpec, FrameSums};
use super::{add_bias_gradient, add_gradient, add_weight_gradients};
use crate::backend::{AttentionBranch, Precision, QkvBias, Similarity};
use crate::cpu::buffers::{Buffer, Pooled};
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Stack, Stored, split_kept};
use crate::cpu::store::Store;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use crate::parameters::ParameterId;
use simmim_kernels::attention::{HeadShape, Scratch, attend, attend_backward};
use simmim_kernels::element::{Bf16, padded};
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::heads::{HeadColumns, RowScale, gather, scale_backward, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Start, product};
use simmim_kernels::stored::{add_column_sums_of, copy_rows, narrow_rows};
use std::ops::Range;
use std::rc::Rc;

/// The logit scale's upper bound, ln 100 (SwinV2, arXiv:2111.09883, section 3.3).
const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

struct Attention<E> {
    branch: AttentionBranch,
    input: NodeId,
    keep: Vec<f32>,
    x: Rc<Buffer<f32>>,
    /// Node and rows of the bias table, and what it adds to each head's scores, `[A, M, M]`.
    position_bias: Option<(NodeId, usize, Rc<Buffer<f32>>)>,
    sizes: Sizes,
    chunks: Chunks,
    frame: FrameKept<E>,
    /// Input of the joint projection, `[rows, D]`.
    a: Stack,
    /// Its output with bias, `[rows, 3D]`.
    qkv: Buffer<E>,
    /// Attention weights, `[B, A, windows, M, M]`.
    p: Buffer<E>,
    /// Input of the output projection, `[rows, D]`.
    o: Stack,
}

#[derive(Clone, Copy)]
struct Sizes {
    images: usize,
    tokens: usize,
    width: usize,
    heads: usize,
    windows: usize,
    window_tokens: usize,
}

impl Sizes {
    fn rows(&self) -> usize {
        self.images * self.tokens
    }

    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn head(&self) -> HeadShape {
        HeadShape { tokens: self.window_tokens, width: self.head_width() }
    }

    /// Scores of one window.
    fn scores_len(&self) -> usize {
        self.window_tokens * self.window_tokens
    }

    /// Values of one head of one image, `N·E`.
    fn head_len(&self) -> usize {
        self.tokens * self.head_width()
    }

    /// Stored attention weights of one head of one image.
    fn p_len<E: Stored>(&self) -> usize {
        self.windows * self.head().scores_len::<E>()
    }
}

/// Parameter values that both directions read.
struct Weights<'a, E> {
    frame: Frame<'a>,
    sizes: Sizes,
    /// Token of each slot of each window, `[windows, M]`.
    slots: &'a [u32],
    masks: &'a [Vec<f32>],
    mask_of: &'a [Option<u32>],
    /// Bias of the joint projection, zeros where the layer has none, `[3D]`.
    qkv_bias: Vec<f32>,
    /// The same as an operand: the projection of padding.
    padding: Vec<E>,
    projection: Start<'a>,
    /// Position bias of each head, `[A, M, M]`; empty without a table.
    position_bias: &'a [f32],
    logit_scale: Option<&'a [f32]>,
}

impl<'a, E: Stored> Weights<'a, E> {
    fn read(
        cpu: &Cpu,
        store: &'a Store,
        branch: &'a AttentionBranch,
        position_bias: Option<&'a Rc<Buffer<f32>>>,
        keep: &'a [f32],
        sizes: Sizes,
    ) -> Self {
        let width = cpu.table.get(branch.norm.weight).range.len();
        let zeros = || vec![0.0; width];
        let qkv_bias = match branch.qkv_bias {
            QkvBias::None => vec![0.0; 3 * width],
            QkvBias::Full(id) => store.value(id).to_vec(),
            QkvBias::QueryValue { query, value } => [store.value(query), &zeros(), store.value(value)].concat(),
        };
        let mut padding = vec![E::default(); 3 * width];
        E::narrow(&qkv_bias, &mut padding);
        Self {
            frame: frame_spec(branch).frame(store, keep, sizes.tokens),
            sizes,
            slots: &branch.windows.slots,
            masks: &branch.windows.masks,
            mask_of: &branch.windows.mask_of,
            qkv_bias,
            padding,
            projection: branch.projection.bias.map_or(Start::Zero, |b| Start::Bias(store.value(b))),
            position_bias: position_bias.map_or(&[], |bias| bias),
            logit_scale: match branch.similarity {
                Similarity::ScaledDot => None,
                Similarity::Cosine { logit_scale } => Some(store.value(logit_scale)),
            },
        }
    }

    /// What is added to the scores of a head in a window: position bias, mask, both or none.
    fn biases<'b>(&'b self, window: usize, head: usize, room: &'b mut [&'b [f32]; 2]) -> &'b [&'b [f32]] {
        let position = self.position_bias.chunks_exact(self.sizes.scores_len()).nth(head);
        let mask = self.mask_of[window].map(|m| self.masks[m as usize].as_slice());
        let mut count = 0;
        for bias in position.into_iter().chain(mask) {
            room[count] = bias;
            count += 1;
        }
        &room[..count]
    }

    fn slots(&self, window: usize) -> &[u32] {
        &self.slots[window * self.sizes.window_tokens..][..self.sizes.window_tokens]
    }

    /// The columns of one of q, k, v (`part` 0, 1, 2) of a head in the rows of an image.
    fn columns<'b>(&'b self, qkv: &'b [E], image: usize, part: usize, head: usize) -> HeadColumns<'b, E> {
        let (tokens, stride) = (self.sizes.tokens, padded::<E>(3 * self.sizes.width));
        let first = part * self.sizes.width + head * self.sizes.head_width();
        HeadColumns {
            rows: &qkv[image * tokens * stride + first..],
            stride,
            width: self.sizes.head_width(),
            tokens,
            padding: &self.padding[first..],
        }
    }

    /// How q and k of a head are scaled; v is not.
    fn scales(&self, head: usize) -> [RowScale; 3] {
        let one = RowScale::By(1.0);
        match self.logit_scale {
            None => [RowScale::By((self.sizes.head_width() as f32).powf(-0.5)), one, one],
            Some(logits) => [RowScale::ToLength(logits[head].min(MAX_LOGIT_SCALE).exp()), RowScale::ToLength(1.0), one],
        }
    }
}

fn frame_spec(branch: &AttentionBranch) -> FrameSpec {
    FrameSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}

/// One worker's room for a head in a window, each `[M, E]`.
struct HeadRows<E: Stored> {
    stored: [Buffer<E>; 4],
    dense: [Buffer<f32>; 3],
    products: Pooled<Scratch<E>>,
}

impl<E: Stored> HeadRows<E> {
    fn new(cpu: &Cpu, shape: HeadShape) -> Self {
        Self {
            stored: [(); 4].map(|_| cpu.shelves.rows(shape.tokens, shape.width)),
            dense: [(); 3].map(|_| cpu.shelves.f32.take(shape.tokens * shape.width)),
            products: E::attention(&cpu.shelves).take(),
        }
    }
}

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
    let stack = || Stack::new::<E>(&cpu.shelves, &chunks, width, cpu.tile.width(), is_recording);
    let (mut a_kept, mut o_kept) = (stack(), stack());
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
    let (width, groups, blocks) = (weights.sizes.width, chunks.groups(), Blocks::new(cpu));
    let stride = padded::<E>(3 * width);
    let mut qkv = cpu.shelves.rows::<E>(weights.sizes.rows(), 3 * width);
    let packed = cpu.forward_weight::<E>(weight);
    let parts = split_mut(&mut qkv, &groups, stride)
        .into_iter()
        .zip(frame_kept.split(&groups, width))
        .zip(a_kept.split(chunks))
        .map(|part| (part, RowsScratch::<E>::new(cpu, chunks, width, &blocks)));
    let (weight, tile) = (packed.get(), cpu.tile);
    cpu.threads.map(groups.iter().zip(parts).collect(), |(group, (((qkv, mut frame), mut a_kept), mut scratch))| {
        for (chunk, rows) in chunks.of(group.clone()).enumerate() {
            let count = rows.len();
            let x = &x[rows.start * width..rows.end * width];
            let entered = weights.frame.enter(x, &rows, &mut frame, &mut scratch.rows); // [R, D]
            narrow_rows(entered, width, &mut scratch.stored, padded::<E>(width));
            let a = Matrix::new(&scratch.stored[..count * padded::<E>(width)], count, width);
            a_kept.pack(chunk, a);
            let qkv = &mut qkv[(rows.start - group.start) * stride..][..count * stride];
            for columns in blocks.of(weight) {
                let block = &mut scratch.block[..count * columns.len()];
                let start = columns.start(Start::Bias(&weights.qkv_bias));
                product(tile, a, columns.weight, block, columns.len(), start);
                if count > 0 {
                    narrow_rows(block, columns.len(), &mut qkv[columns.left..], stride);
                }
            }
        }
    });
    qkv
}

/// One worker's room for a chunk of rows.
struct RowsScratch<E> {
    /// `[R, D]`
    rows: Buffer<f32>,
    /// `[R, D]`
    f: Buffer<f32>,
    /// `[R, columns of a block]`
    block: Buffer<f32>,
    /// `[R, D]`
    stored: Buffer<E>,
}

impl<E: Stored> RowsScratch<E> {
    fn new(cpu: &Cpu, chunks: &Chunks, width: usize, blocks: &Blocks) -> Self {
        let rows = chunks.chunk_rows();
        Self {
            rows: cpu.shelves.f32.take(rows * width),
            f: cpu.shelves.f32.take(rows * width),
            block: cpu.shelves.f32.take(rows * blocks.columns()),
            stored: cpu.shelves.rows::<E>(rows, width),
        }
    }
}

/// Second phase: attention, rows `[B·N, 3D]` → heads `[B, A, N, E]`; keeps the weights if `p_kept` has room.
fn to_heads<E: Stored>(cpu: &Cpu, weights: &Weights<E>, qkv: &[E], p_kept: &mut [E]) -> Buffer<E> {
    let (sizes, tile) = (weights.sizes, cpu.tile);
    let mut heads = E::shelf(&cpu.shelves).take(sizes.rows() * sizes.width);
    let groups = cpu.threads.groups(sizes.images * sizes.heads);
    let parts = split_mut(&mut heads, &groups, sizes.head_len())
        .into_iter()
        .zip(split_kept(p_kept, &groups, sizes.p_len::<E>()))
        .map(|part| {
            (part, HeadRows::new(cpu, sizes.head()), cpu.shelves.rows::<E>(sizes.window_tokens, sizes.window_tokens))
        });
    cpu.threads.map(groups.iter().zip(parts).collect(), |(group, ((heads, p_kept), mut rows, mut p_scratch))| {
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

/// Collects rows `[R, parts·D]` of a chunk from heads `[B, A, parts, N, E]`.
fn collect_rows<E: Stored>(sizes: &Sizes, heads: &[E], parts: usize, rows: &Range<usize>, out: &mut [E]) {
    let (width, stride) = (sizes.head_width(), padded::<E>(parts * sizes.width));
    // head by head: what is read lies together, what is written stays in cache
    for image in rows.start / sizes.tokens..rows.end.div_ceil(sizes.tokens) {
        let tokens = (image * sizes.tokens).max(rows.start)..((image + 1) * sizes.tokens).min(rows.end);
        for head in 0..sizes.heads {
            for part in 0..parts {
                let item = ((image * sizes.heads + head) * parts + part) * sizes.head_len();
                let from = &heads[item + (tokens.start - image * sizes.tokens) * width..][..tokens.len() * width];
                let out = &mut out[(tokens.start - rows.start) * stride + part * sizes.width + head * width..];
                copy_rows(from, width, out, stride);
            }
        }
    }
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
    let (sizes, groups, blocks) = (weights.sizes, chunks.groups(), Blocks::new(cpu));
    let width = sizes.width;
    let mut out = cpu.shelves.f32.take(x.len());
    let packed = cpu.forward_weight::<E>(weight);
    let (weight, tile) = (packed.get(), cpu.tile);
    let parts = split_mut(&mut out, &groups, width)
        .into_iter()
        .zip(frame_kept.split(&groups, width))
        .zip(o_kept.split(chunks))
        .map(|part| (part, RowsScratch::<E>::new(cpu, chunks, width, &blocks)));
    cpu.threads.map(groups.iter().zip(parts).collect(), |(group, (((out, mut frame), mut o_kept), mut scratch))| {
        for (chunk, rows) in chunks.of(group.clone()).enumerate() {
            let count = rows.len();
            let o = &mut scratch.stored[..count * padded::<E>(width)];
            collect_rows(&sizes, heads, 1, &rows, o);
            let o = Matrix::new(o, count, width);
            o_kept.pack(chunk, o);
            let f = &mut scratch.f[..count * width];
            product(tile, o, weight, f, width, weights.projection); // [R, D]
            let x = &x[rows.start * width..rows.end * width];
            let out = &mut out[(rows.start - group.start) * width..][..count * width];
            weights.frame.leave(x, f, &rows, &mut frame, &mut scratch.rows, out);
        }
    });
    out
}

/// One worker's gradients of parameters.
struct Sums {
    frame: FrameSums,
    /// `[D]`
    d_projection_bias: Vec<f32>,
    /// `[3D]`
    d_qkv_bias: Vec<f32>,
}

/// One worker's gradients of what the heads read beside their rows.
struct HeadSums {
    /// From padding tokens, whose projection is the bias alone, `[3D]`.
    d_padding: Vec<f32>,
    /// `[A, M, M]`
    d_position_bias: Buffer<f32>,
    /// `[A]`
    d_logit_scale: Vec<f32>,
}

impl<E: Stored> Backward for Attention<E> {
    fn name(&self) -> &'static str {
        "attention branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, sizes, chunks) = (&self.branch, self.sizes, self.chunks);
        let block_height = cpu.tile.height();
        let mut d_f = Stack::new::<E>(&cpu.shelves, &chunks, sizes.width, block_height, true);
        let mut d_qkv = Stack::new::<E>(&cpu.shelves, &chunks, 3 * sizes.width, block_height, true);
        let (of_leaving, of_heads, of_entering) = {
            let store = cpu.store.borrow();
            let position_bias = self.position_bias.as_ref().map(|(_, _, bias)| bias);
            let weights = Weights::<E>::read(cpu, &store, branch, position_bias, &self.keep, sizes);
            let (d_o, of_leaving) = self.to_d_o(cpu, &weights, &d_output, &mut d_f);
            let (d_heads, of_heads) = self.to_d_heads(cpu, &weights, &d_o);
            let of_entering = self.to_d_x(cpu, &weights, &d_heads, &mut d_qkv, &mut d_output);
            (of_leaving, of_heads, of_entering)
        };
        let mut d_qkv_bias = vec![0.0; 3 * sizes.width];
        for sums in of_leaving.iter().chain(&of_entering) {
            frame_spec(branch).add_gradients(cpu, &sums.frame);
            add_scaled(&mut d_qkv_bias, 1.0, &sums.d_qkv_bias);
            add_bias_gradient(cpu, &branch.projection, &sums.d_projection_bias);
        }
        for sums in &of_heads {
            add_scaled(&mut d_qkv_bias, 1.0, &sums.d_padding);
            if let Similarity::Cosine { logit_scale } = branch.similarity {
                add_gradient(cpu, logit_scale, &sums.d_logit_scale);
            }
        }
        match branch.qkv_bias {
            QkvBias::None => {}
            QkvBias::Full(id) => add_gradient(cpu, id, &d_qkv_bias),
            QkvBias::QueryValue { query, value } => {
                add_gradient(cpu, query, &d_qkv_bias[..sizes.width]);
                add_gradient(cpu, value, &d_qkv_bias[2 * sizes.width..]);
            }
        }
        if let Some((table, rows, _)) = &self.position_bias {
            let d_bias: Vec<&[f32]> = of_heads.iter().map(|sums| &*sums.d_position_bias).collect();
            gradients.add(*table, reduce_bias(cpu, &d_bias, &branch.bias_index, sizes.heads, *rows));
        }
        let of_projection = (branch.projection.weight, &d_f, &self.o);
        add_weight_gradients::<E>(cpu, &[of_projection, (branch.qkv, &d_qkv, &self.a)]);
        gradients.add(self.input, d_output);
    }
}

impl<E: Stored> Attention<E> {
    fn sums(&self, weights: &Weights<E>) -> Sums {
        Sums {
            frame: weights.frame.sums(),
            d_projection_bias: vec![0.0; self.sizes.width],
            d_qkv_bias: vec![0.0; 3 * self.sizes.width],
        }
    }

    /// Third phase: the gradient of the output → that of the heads' outputs, `[rows, D]`.
    fn to_d_o(&self, cpu: &Cpu, weights: &Weights<E>, d_out: &[f32], d_f: &mut Stack) -> (Buffer<E>, Vec<Sums>) {
        let (width, chunks, blocks) = (self.sizes.width, self.chunks, Blocks::new(cpu));
        let (groups, row) = (chunks.groups(), padded::<E>(width));
        let mut d_o = cpu.shelves.rows::<E>(self.sizes.rows(), width);
        let packed = cpu.backward_weight::<E>(self.branch.projection.weight);
        let (weight, tile, kept) = (packed.get(), cpu.tile, &self.frame);
        let parts = split_mut(&mut d_o, &groups, row)
            .into_iter()
            .zip(d_f.split(&chunks))
            .map(|part| (part, RowsScratch::<E>::new(cpu, &chunks, width, &blocks), self.sums(weights)));
        let sums = cpu.threads.map(
            groups.iter().zip(parts).collect(),
            |(group, ((d_o, mut packed), mut scratch, mut sums))| {
                for (chunk, rows) in chunks.of(group.clone()).enumerate() {
                    let count = rows.len();
                    let d_out = &d_out[rows.start * width..rows.end * width];
                    let d_f = &mut scratch.f[..count * width];
                    weights.frame.leave_backward(d_out, &rows, kept, &mut sums.frame, d_f, &mut scratch.rows);
                    add_column_sums(d_f, &mut sums.d_projection_bias);
                    narrow_rows(d_f, width, &mut scratch.stored, row);
                    let d_f = Matrix::new(&scratch.stored[..count * row], count, width);
                    packed.pack(chunk, d_f);
                    let d_o = &mut d_o[(rows.start - group.start) * row..][..count * row];
                    for columns in blocks.of(weight) {
                        let block = &mut scratch.block[..count * columns.len()];
                        product(tile, d_f, columns.weight, block, columns.len(), Start::Zero);
                        if count > 0 {
                            narrow_rows(block, columns.len(), &mut d_o[columns.left..], row);
                        }
                    }
                }
                sums
            },
        );
        (d_o, sums)
    }

    /// Second phase: gradients of the heads' outputs, `[rows, D]` → of q, k and v, `[B, A, 3, N, E]`.
    fn to_d_heads(&self, cpu: &Cpu, weights: &Weights<E>, d_o: &[E]) -> (Buffer<E>, Vec<HeadSums>) {
        let (sizes, tile) = (self.sizes, cpu.tile);
        let has_position_bias = self.position_bias.is_some();
        let item_len = 3 * sizes.head_len();
        let mut d_heads = E::shelf(&cpu.shelves).take(sizes.images * sizes.heads * item_len);
        let groups = cpu.threads.groups(sizes.images * sizes.heads);
        let parts = split_mut(&mut d_heads, &groups, item_len).into_iter().map(|part| {
            let position = if has_position_bias { sizes.heads * sizes.scores_len() } else { 0 };
            let sums = HeadSums {
                d_padding: vec![0.0; 3 * sizes.width],
                d_position_bias: cpu.shelves.f32.zeros(position),
                d_logit_scale: vec![0.0; sizes.heads],
            };
            (part, HeadRows::<E>::new(cpu, sizes.head()), sums)
        });
        let (qkv, p): (&[E], &[E]) = (&self.qkv, &self.p);
        let no_padding = vec![E::default(); sizes.head_width()]; // nothing reads the output of padding
        let sums = cpu.threads.map(groups.iter().zip(parts).collect(), |(group, (d_heads, mut rows, mut sums))| {
            let scores_len = sizes.head().scores_len::<E>();
            for (i, item) in group.clone().enumerate() {
                let (image, head) = (item / sizes.heads, item % sizes.heads);
                let scales = weights.scales(head);
                let row = padded::<E>(sizes.width);
                let d_o = HeadColumns {
                    rows: &d_o[image * sizes.tokens * row + head * sizes.head_width()..],
                    stride: row,
                    width: sizes.head_width(),
                    tokens: sizes.tokens,
                    padding: &no_padding,
                };
                for window in 0..sizes.windows {
                    let slots = weights.slots(window);
                    for (part, scale) in scales.into_iter().enumerate() {
                        gather(weights.columns(qkv, image, part, head), slots, scale, &mut rows.stored[part]);
                    }
                    gather(d_o, slots, RowScale::By(1.0), &mut rows.stored[3]);
                    let p = &p[item * sizes.p_len::<E>() + window * scores_len..][..scores_len];
                    let d_position = has_position_bias
                        .then(|| &mut sums.d_position_bias[head * sizes.scores_len()..][..sizes.scores_len()]);
                    let ([q, k, v, d_o], [d_q, d_k, d_v]) = (&rows.stored, &mut rows.dense);
                    let products = &mut rows.products;
                    attend_backward(tile, sizes.head(), q, k, v, p, d_o, d_q, d_k, d_v, d_position, products);
                    for (part, (d, scale)) in rows.dense.iter_mut().zip(scales).enumerate() {
                        let d_log = scale_backward(weights.columns(qkv, image, part, head), slots, scale, d);
                        let is_below_bound = weights.logit_scale.is_some_and(|logits| logits[head] < MAX_LOGIT_SCALE);
                        if part == 0 && is_below_bound {
                            sums.d_logit_scale[head] += d_log;
                        }
                        let out = &mut d_heads[i * item_len + part * sizes.head_len()..][..sizes.head_len()];
                        let padding = &mut sums.d_padding[part * sizes.width + head * sizes.head_width()..];
                        scatter(d, sizes.head_width(), slots, out, &mut padding[..sizes.head_width()]);
                    }
                }
            }
            sums
        });
        (d_heads, sums)
    }

    /// First phase: gradients of q, k and v → of the input, which is added to `d_x`.
    fn to_d_x(&self, cpu: &Cpu, weights: &Weights<E>, d_heads: &[E], d_qkv: &mut Stack, d_x: &mut [f32]) -> Vec<Sums> {
        let (sizes, chunks, blocks) = (self.sizes, self.chunks, Blocks::new(cpu));
        let (width, groups, row) = (sizes.width, chunks.groups(), padded::<E>(3 * sizes.width));
        let packed = cpu.backward_weight::<E>(self.branch.qkv);
        let (weight, tile, kept, x): (_, _, _, &[f32]) = (packed.get(), cpu.tile, &self.frame, &self.x);
        let parts = split_mut(d_x, &groups, width).into_iter().zip(d_qkv.split(&chunks)).map(|part| {
            let rows = cpu.shelves.rows::<E>(chunks.chunk_rows(), 3 * width);
            (part, RowsScratch::<E>::new(cpu, &chunks, width, &blocks), rows, self.sums(weights))
        });
        cpu.threads.map(
            groups.iter().zip(parts).collect(),
            |(group, ((d_x, mut packed), mut scratch, mut stored, mut sums))| {
                for (chunk, rows) in chunks.of(group.clone()).enumerate() {
                    let count = rows.len();
                    let stored = &mut stored[..count * row];
                    collect_rows(&sizes, d_heads, 3, &rows, stored);
                    add_column_sums_of(stored, row, &mut sums.d_qkv_bias);
                    let d_qkv = Matrix::new(stored, count, 3 * width);
                    packed.pack(chunk, d_qkv);
                    let d_a = &mut scratch.f[..count * width];
                    product(tile, d_qkv, weight, d_a, width, Start::Zero); // [R, D]
                    let x = &x[rows.start * width..rows.end * width];
                    let d_x = &mut d_x[(rows.start - group.start) * width..][..count * width];
                    weights.frame.enter_backward(x, d_a, &rows, kept, &mut sums.frame, d_x);
                }
                sums
            },
        )
    }
}
