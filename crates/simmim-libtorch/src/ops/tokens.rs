//! Tokens that are replaced or put in front.

use crate::Libtorch;
use simmim_engine::ParameterId;
use tch::Tensor;

/// `[B, N, D]`, with the mask token where a token is hidden, `[B, N, 1]`.
pub(crate) fn mask(b: &Libtorch, x: &Tensor, hidden: &Tensor, mask_token: ParameterId) -> Tensor {
    b.leaf(mask_token).where_self(hidden, x)
}

/// `[B, N, D]`, tokens `[1, T, D]` → `[B, T + N, D]`.
pub(crate) fn prepend(b: &Libtorch, x: &Tensor, tokens: ParameterId) -> Tensor {
    let size = x.size();
    let tokens = b.leaf(tokens).expand([size[0], -1, size[2]], false);
    Tensor::cat(&[&tokens, x], 1)
}
