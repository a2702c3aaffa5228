//! Tokens that are replaced, put in front, or picked.

use crate::Libtorch;
use simmim_engine::ParameterId;
use tch::Tensor;

/// `[B, N, D]`, with the mask token where a token is hidden.
pub(crate) fn mask(b: &Libtorch, x: &Tensor, hidden: &[bool], mask_token: ParameterId) -> Tensor {
    let size = x.size();
    let hidden = b.upload(&[size[0], size[1], 1], hidden);
    b.leaf(mask_token).where_self(&hidden, x)
}

/// `[B, N, D]`, tokens `[1, T, D]` → `[B, T + N, D]`.
pub(crate) fn prepend(b: &Libtorch, x: &Tensor, tokens: ParameterId) -> Tensor {
    let size = x.size();
    let tokens = b.leaf(tokens).expand([size[0], -1, size[2]], false);
    Tensor::cat(&[&tokens, x], 1)
}

/// `[.., D]` → `[R, D]`.
pub(crate) fn gather_rows(b: &Libtorch, x: &Tensor, rows: &[u32]) -> Tensor {
    let x = x.flatten(0, -2);
    let rows: Vec<Option<usize>> = rows.iter().map(|row| Some(*row as usize)).collect();
    b.permutation(&rows, x.size()[0] as usize).apply(&x)
}
