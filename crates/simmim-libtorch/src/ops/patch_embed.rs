//! Patch embedding. As the kernel is as long as its stride, it is a product of the patches' pixels with the weight.

use crate::Libtorch;
use simmim_engine::Linear;
use tch::{Kind, Tensor};

/// Pixels `[B, C, H, W]` → `[B, N, D]`.
pub(crate) fn forward(b: &Libtorch, pixels: &Tensor, (p_h, p_w): (usize, usize), linear: &Linear) -> Tensor {
    let [images, channels, height, width] = pixels.size()[..] else { panic!("expected [B, C, H, W]") };
    let [p_h, p_w] = [p_h, p_w].map(|n| n as i64);
    let (h, w) = (height / p_h, width / p_w);
    let pixels = b.to_operand(pixels);
    // pixels beyond the last whole patch belong to none
    let pixels = pixels.narrow(2, 0, h * p_h).narrow(3, 0, w * p_w);
    let patches = pixels.reshape([images, channels, h, p_h, w, p_w]).permute([0, 2, 4, 1, 3, 5]);
    let patches = patches.reshape([images, h * w, channels * p_h * p_w]); // [B, N, C·p_h·p_w]
    let weight = b.operand(linear.weight).flatten(1, -1); // [D, C·p_h·p_w]
    let bias = linear.bias.map(|bias| b.operand(bias));
    patches.linear(&weight, bias.as_ref()).to_kind(Kind::Float) // [B, N, D]
}
