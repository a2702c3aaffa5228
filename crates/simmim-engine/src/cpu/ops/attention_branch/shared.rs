//! What both directions read and need room for.

use super::super::blocks::Blocks;
use super::super::frame::{Frame, FrameKept, FrameSpec};
use crate::backend::{AttentionBranch, QkvBias, Similarity};
use crate::cpu::Cpu;
use crate::cpu::buffers::{Buffer, Pooled};
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Shelves, Stack, Stored};
use crate::cpu::store::Store;
use crate::cpu::tape::NodeId;
use simmim_kernels::attention::{HeadShape, Scratch};
use simmim_kernels::element::padded;
use simmim_kernels::heads::{HeadColumns, RowScale};
use simmim_kernels::product::Start;
use simmim_kernels::stored::copy_rows;
use std::ops::Range;
use std::rc::Rc;

/// The logit scale's upper bound, ln 100 (SwinV2, arXiv:2111.09883, section 3.3).
pub(super) const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

/// What the backward pass needs.
pub(super) struct Attention<E> {
    pub(super) branch: AttentionBranch,
    pub(super) input: NodeId,
    pub(super) keep: Vec<f32>,
    pub(super) x: Rc<Buffer<f32>>,
    /// Node and rows of the bias table, and what it adds to each head's scores, `[A, M, M]`.
    pub(super) position_bias: Option<(NodeId, usize, Rc<Buffer<f32>>)>,
    pub(super) sizes: Sizes,
    pub(super) chunks: Chunks,
    pub(super) frame: FrameKept<E>,
    /// Input of the joint projection, `[rows, D]`, unless it is computed again.
    pub(super) a: Stack,
    /// Its output with bias, queries multiplied, `[rows, 3D]`.
    pub(super) qkv: Buffer<E>,
    /// Attention weights, `[B, A, windows, M, M]`.
    pub(super) p: Buffer<E>,
    /// Input of the output projection, `[rows, D]`.
    pub(super) o: Stack,
}

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) tokens: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) windows: usize,
    pub(super) window_tokens: usize,
}

impl Sizes {
    pub(super) fn rows(&self) -> usize {
        self.images * self.tokens
    }

    pub(super) fn head_width(&self) -> usize {
        self.width / self.heads
    }

    pub(super) fn head(&self) -> HeadShape {
        HeadShape { tokens: self.window_tokens, width: self.head_width() }
    }

    /// Scores of one window.
    pub(super) fn scores_len(&self) -> usize {
        self.window_tokens * self.window_tokens
    }

    /// Values of one head of one image, `N·E`.
    pub(super) fn head_len(&self) -> usize {
        self.tokens * self.head_width()
    }

    /// Stored attention weights of one head of one image.
    pub(super) fn p_len<E: Stored>(&self) -> usize {
        self.windows * self.head().scores_len::<E>()
    }
}

/// Parameter values that both directions read.
pub(super) struct Weights<'a, E> {
    pub(super) frame: Frame<'a>,
    pub(super) sizes: Sizes,
    /// Token of each slot of each window, `[windows, M]`.
    pub(super) slots: &'a [u32],
    pub(super) masks: &'a [Vec<f32>],
    pub(super) mask_of: &'a [Option<u32>],
    /// Bias of the joint projection, zeros where the layer has none, `[3D]`.
    pub(super) qkv_bias: Vec<f32>,
    /// What queries are multiplied by before they are stored: 1 for cosines, whose lengths are set later.
    pub(super) query_factor: f32,
    /// The projection of padding: the bias, with queries multiplied.
    pub(super) padding: Vec<E>,
    pub(super) projection: Start<'a>,
    /// Position bias of each head, `[A, M, M]`; empty without a table.
    pub(super) position_bias: &'a [f32],
    pub(super) logit_scale: Option<&'a [f32]>,
}

impl<'a, E: Stored> Weights<'a, E> {
    pub(super) fn read(
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
        let query_factor = match branch.similarity {
            Similarity::ScaledDot => (sizes.head_width() as f32).powf(-0.5),
            Similarity::Cosine { .. } => 1.0,
        };
        let mut of_padding = qkv_bias.clone();
        of_padding[..width].iter_mut().for_each(|q| *q *= query_factor);
        let mut padding = vec![E::default(); 3 * width];
        E::narrow(&of_padding, &mut padding);
        Self {
            frame: frame_spec(branch).frame(store, keep, sizes.tokens),
            sizes,
            slots: &branch.windows.slots,
            masks: &branch.windows.masks,
            mask_of: &branch.windows.mask_of,
            qkv_bias,
            query_factor,
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
    pub(super) fn biases<'b>(&'b self, window: usize, head: usize, room: &'b mut [&'b [f32]; 2]) -> &'b [&'b [f32]] {
        let position = self.position_bias.chunks_exact(self.sizes.scores_len()).nth(head);
        let mask = self.mask_of[window].map(|m| self.masks[m as usize].as_slice());
        let mut count = 0;
        for bias in position.into_iter().chain(mask) {
            room[count] = bias;
            count += 1;
        }
        &room[..count]
    }

    pub(super) fn slots(&self, window: usize) -> &[u32] {
        &self.slots[window * self.sizes.window_tokens..][..self.sizes.window_tokens]
    }

    /// The columns of one of q, k, v (`part` 0, 1, 2) of a head in the rows of an image.
    pub(super) fn columns<'b>(&'b self, qkv: &'b [E], image: usize, part: usize, head: usize) -> HeadColumns<'b, E> {
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

    /// How stored q and k of a head are scaled when they are gathered; v is not.
    pub(super) fn scales(&self, head: usize) -> [RowScale; 3] {
        let one = RowScale::By(1.0);
        match self.logit_scale {
            None => [one; 3],
            Some(logits) => [RowScale::ToLength(logits[head].min(MAX_LOGIT_SCALE).exp()), RowScale::ToLength(1.0), one],
        }
    }

    /// How gradients of gathered q, k and v become those of the projection's output.
    pub(super) fn gradient_scales(&self, head: usize) -> [RowScale; 3] {
        match self.logit_scale {
            None => [RowScale::By(self.query_factor), RowScale::By(1.0), RowScale::By(1.0)],
            Some(_) => self.scales(head),
        }
    }
}

pub(super) fn frame_spec(branch: &AttentionBranch) -> FrameSpec {
    FrameSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}

/// Room for a head in a window, each `[M, E]`.
pub(super) struct HeadRows<E: Stored> {
    pub(super) stored: [Buffer<E>; 4],
    pub(super) dense: [Buffer<f32>; 3],
    pub(super) products: Pooled<Scratch<E>>,
}

impl<E: Stored> HeadRows<E> {
    pub(super) fn new(shelves: &Shelves, shape: HeadShape) -> Self {
        Self {
            stored: [(); 4].map(|_| shelves.rows(shape.tokens, shape.width)),
            dense: [(); 3].map(|_| shelves.f32.take(shape.tokens * shape.width)),
            products: E::attention(shelves).take(),
        }
    }
}

/// Room for a chunk of rows.
pub(super) struct RowsScratch<E> {
    /// `[2, R, D]`
    pub(super) rows: Buffer<f32>,
    /// `[R, D]`
    pub(super) f: Buffer<f32>,
    /// `[R, columns of a block]`
    pub(super) block: Buffer<f32>,
    /// `[R, D]`
    pub(super) stored: Buffer<E>,
}

impl<E: Stored> RowsScratch<E> {
    pub(super) fn new(shelves: &Shelves, chunks: &Chunks, width: usize, blocks: &Blocks) -> Self {
        let rows = chunks.chunk_rows();
        Self {
            rows: shelves.f32.take(2 * rows * width),
            f: shelves.f32.take(rows * width),
            block: shelves.f32.take(rows * blocks.columns()),
            stored: shelves.rows::<E>(rows, width),
        }
    }
}

/// Collects rows `[R, parts·D]` of a chunk from heads `[B, A, parts, N, E]`.
pub(super) fn collect_rows<E: Stored>(sizes: &Sizes, heads: &[E], parts: usize, rows: &Range<usize>, out: &mut [E]) {
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
