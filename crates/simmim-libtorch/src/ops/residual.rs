//! What comes after the last layer of a residual branch: norm, layer scale, drop path and the sum.

use super::linear::layer_norm;
use crate::Libtorch;
use simmim_engine::{LayerNorm, NormOrder, ParameterId};
use tch::{Kind, Tensor};

/// `x + drop_path_scale·layer_scale·y`, with the norm on `y` if it stands behind the branch.
pub(crate) fn add(
    b: &Libtorch,
    x: &Tensor,
    y: &Tensor,
    (norm, order): (&LayerNorm, NormOrder),
    layer_scale: Option<ParameterId>,
    drop_path_scale: Option<&Tensor>,
) -> Tensor {
    let y = match order {
        NormOrder::Pre => y.shallow_clone(),
        NormOrder::Post => layer_norm(b, &y.to_kind(Kind::Float), norm),
    };
    // not in place: a product of bf16 and f32 is f32
    let y = match layer_scale {
        Some(scale) => y * b.leaf(scale),
        None => y,
    };
    let y = match drop_path_scale {
        Some(scale) => y * scale,
        None => y,
    };
    x + y
}

/// The branch's input: `x` or its norm.
pub(crate) fn input(b: &Libtorch, x: &Tensor, norm: &LayerNorm, order: NormOrder) -> Tensor {
    b.to_operand(&match order {
        NormOrder::Pre => layer_norm(b, x, norm),
        NormOrder::Post => x.shallow_clone(),
    })
}
