//! What both directions need.

use super::super::blocks::Blocks;
use super::super::frame::{FrameKept, FrameSpec};
use crate::backend::MlpBranch;
use crate::cpu::buffers::Buffer;
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Shelves, Stack, Stored};
use crate::cpu::tape::NodeId;
use std::rc::Rc;

/// What the backward pass needs.
pub(super) struct Mlp<E> {
    pub(super) branch: MlpBranch,
    pub(super) input: NodeId,
    pub(super) keep: Vec<f32>,
    pub(super) tokens: usize,
    pub(super) x: Rc<Buffer<f32>>,
    pub(super) chunks: Chunks,
    pub(super) frame: FrameKept<E>,
    /// Input of the first layer, `[rows, D]`, unless it is computed again.
    pub(super) a: Stack,
    /// Slope of the GELU, or its input if it is computed again, `[rows, hidden]`, block by block of each chunk.
    pub(super) gelu: Buffer<E>,
    /// Input of the second layer, `[rows, hidden]`, unless it is computed again.
    pub(super) hidden: Stack,
}

pub(super) fn frame_spec(branch: &MlpBranch) -> FrameSpec {
    FrameSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}

/// Room for a chunk.
pub(super) struct Scratch<E> {
    /// `[2, R, D]`
    pub(super) rows: Buffer<f32>,
    /// `[R, D]`
    pub(super) f: Buffer<f32>,
    /// `[R, columns of a block]`
    pub(super) block: Buffer<f32>,
    /// `[R, D]`
    pub(super) a: Buffer<E>,
    /// `[R, hidden]`
    pub(super) hidden: Buffer<E>,
}

impl<E: Stored> Scratch<E> {
    pub(super) fn new(shelves: &Shelves, rows: usize, width: usize, inner: usize, blocks: &Blocks) -> Self {
        Self {
            rows: shelves.f32.take(2 * rows * width),
            f: shelves.f32.take(rows * width),
            block: shelves.f32.take(rows * blocks.columns()),
            a: shelves.rows(rows, width),
            hidden: shelves.rows(rows, inner),
        }
    }
}
