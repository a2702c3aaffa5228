//! Patch embedding. As the kernel is as long as its stride, it is a product of the patches' pixels with the weight.

use crate::Libtorch;
use simmim_engine::{Images, Linear};
use tch::{Kind, Tensor};

pub(crate) fn forward(b: &Libtorch, images: &Images, (p_h, p_w): (usize, usize), linear: &Linear) -> Tensor {
    let (rows, columns) = (images.height / p_h, images.width / p_w);
    let shape = [images.count, images.channels, images.height, images.width].map(|n| n as i64);
    let [p_h, p_w, h, w] = [p_h, p_w, rows, columns].map(|n| n as i64);
    let pixels = b.to_operand(&b.upload(&shape, images.pixels)); // [B, C, H, W]
    // pixels beyond the last whole patch belong to none
    let pixels = pixels.narrow(2, 0, h * p_h).narrow(3, 0, w * p_w);
    let patches = pixels.reshape([shape[0], shape[1], h, p_h, w, p_w]).permute([0, 2, 4, 1, 3, 5]);
    let patches = patches.reshape([shape[0], h * w, shape[1] * p_h * p_w]); // [B, N, C·p_h·p_w]
    let weight = b.operand(linear.weight).flatten(1, -1); // [D, C·p_h·p_w]
    let bias = linear.bias.map(|bias| b.operand(bias));
    patches.linear(&weight, bias.as_ref()).to_kind(Kind::Float) // [B, N, D]
}
