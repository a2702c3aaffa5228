//! The MLP half of a block.

use super::linear::linear;
use super::residual;
use crate::Libtorch;
use simmim_engine::{Activation, MlpBranch};
use tch::Tensor;

pub(crate) fn forward(b: &Libtorch, x: &Tensor, branch: &MlpBranch, drop_path_scale: Option<&Tensor>) -> Tensor {
    let a = residual::input(b, x, &branch.norm, branch.order);
    let first = linear(b, &a, &branch.fc1);
    let hidden = match branch.activation {
        Activation::Gelu => first.gelu("none"),
        Activation::SwiGlu => {
            let parts = first.chunk(2, -1);
            parts[0].silu() * &parts[1]
        }
    };
    let y = linear(b, &hidden, &branch.fc2);
    residual::add(b, x, &y, (&branch.norm, branch.order), branch.layer_scale, drop_path_scale)
}
