//! Linear layers and layer normalization.

use crate::Libtorch;
use simmim_engine::{LayerNorm, Linear};
use tch::Tensor;

/// `[.., in]` → `[.., out]`, in the type of operands.
pub(crate) fn linear(b: &Libtorch, x: &Tensor, linear: &Linear) -> Tensor {
    let weight = b.operand(linear.weight).flatten(1, -1); // [out, in], also of a 1×1 convolution
    let bias = linear.bias.map(|bias| b.operand(bias));
    b.to_operand(x).linear(&weight, bias.as_ref())
}

/// `[.., D]` → `[.., D]`, f32.
pub(crate) fn layer_norm(b: &Libtorch, x: &Tensor, norm: &LayerNorm) -> Tensor {
    let (weight, bias) = (b.leaf(norm.weight), b.leaf(norm.bias));
    x.layer_norm(weight.size(), Some(&weight), Some(&bias), f64::from(norm.eps), true)
}
