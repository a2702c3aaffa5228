//! The MLP half of a block.

use super::linear::linear;
use super::residual;
use crate::Libtorch;
use simmim_engine::MlpBranch;
use tch::Tensor;

pub(crate) fn forward(b: &Libtorch, x: &Tensor, branch: &MlpBranch, drop_path_scale: Option<&Tensor>) -> Tensor {
    let a = residual::input(b, x, &branch.norm, branch.order);
    let hidden = linear(b, &a, &branch.fc1).gelu("none");
    let y = linear(b, &hidden, &branch.fc2);
    residual::add(b, x, &y, (&branch.norm, branch.order), branch.layer_scale, drop_path_scale)
}
