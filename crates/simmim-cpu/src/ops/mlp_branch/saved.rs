//! What the forward pass saves for backward.

use super::super::residual::{ResidualSpec, SavedResidual};
use crate::buffer_pool::Buffer;
use crate::chunks::Chunks;
use crate::packed_activations::PackedActivations;
use crate::tape::NodeId;
use simmim_engine::MlpBranch;
use std::rc::Rc;

pub(super) struct MlpBackward<T> {
    pub(super) branch: MlpBranch,
    pub(super) input: NodeId,
    pub(super) drop_path_scale: Vec<f32>,
    /// Tokens of an image.
    pub(super) tokens: usize,
    /// The input, if something is recomputed from it, `[rows, D]`.
    pub(super) x: Option<Rc<Buffer<f32>>>,
    pub(super) chunks: Chunks,
    pub(super) residual: SavedResidual<T>,
    /// The input of the first layer, `[rows, D]`, unless it is recomputed.
    pub(super) a: PackedActivations,
    /// The slope of the GELU, or the GELU's input if the slope is recomputed, `[rows, hidden]`. Within each chunk, it
    /// is stored column block by column block.
    pub(super) gelu: Buffer<T>,
    /// The input of the second layer, `[rows, hidden]`, unless it is recomputed.
    pub(super) hidden: PackedActivations,
}

pub(super) fn residual_spec(branch: &MlpBranch) -> ResidualSpec {
    ResidualSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}
