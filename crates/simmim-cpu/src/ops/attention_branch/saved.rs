//! What the forward pass saves for backward.

use super::super::residual::{ResidualSpec, SavedResidual};
use super::division::Division;
use super::layout::AttentionSizes;
use super::window_order::WindowOrder;
use crate::buffer_pool::Buffer;
use crate::packed_activations::PackedActivations;
use crate::tape::NodeId;
use simmim_engine::AttentionBranch;
use std::rc::Rc;

pub(super) struct AttentionBackward<T> {
    pub(super) branch: AttentionBranch,
    pub(super) input: NodeId,
    pub(super) drop_path_scale: Vec<f32>,
    /// The input, if something is recomputed from it, `[B, N, D]`.
    pub(super) x: Option<Rc<Buffer<f32>>>,
    pub(super) bias_table: Option<SavedBias>,
    pub(super) sizes: AttentionSizes,
    pub(super) order: WindowOrder,
    pub(super) division: Division,
    pub(super) residual: SavedResidual<T>,
    /// The input of the joint projection, `[R, D]`, unless it is recomputed.
    pub(super) a: PackedActivations,
    /// The output of the joint projection with its bias, queries multiplied by their factor, `[R, 3D]`.
    pub(super) qkv: Buffer<T>,
    /// Attention weights, `[G, A, W/G, M, M]`.
    pub(super) p: Buffer<T>,
    /// The input of the output projection, `[R, D]`.
    pub(super) o: PackedActivations,
}

/// A table of position biases.
pub(super) struct SavedBias {
    pub(super) table: NodeId,
    /// Rows of the table.
    pub(super) rows: usize,
    /// What it adds to the scores of each head, `[A, M, M]`.
    pub(super) expanded: Rc<Buffer<f32>>,
}

pub(super) fn residual_spec(branch: &AttentionBranch) -> ResidualSpec {
    ResidualSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}
