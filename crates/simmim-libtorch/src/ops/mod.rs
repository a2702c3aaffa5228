//! The operations, on libtorch's tensors.

pub(crate) mod attention_branch;
pub(crate) mod images;
pub(crate) mod linear;
pub(crate) mod losses;
pub(crate) mod mlp_branch;
pub(crate) mod patch_embed;
pub(crate) mod position_bias;
pub(crate) mod recompute;
pub(crate) mod residual;
pub(crate) mod tokens;
