//! Operations on images, which are channels last: libtorch sees them as `[B, C, H, W]` in that order of memory.

use crate::Libtorch;
use simmim_engine::Linear;
use tch::{Kind, Tensor};

fn channels_first(x: &Tensor) -> Tensor {
    x.permute([0, 3, 1, 2])
}

fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous()
}

/// `[B, H, W, C]`, weight `[O, C, k, k]` → `[B, H, W, O]`.
pub(crate) fn convolution(b: &Libtorch, x: &Tensor, linear: &Linear) -> Tensor {
    let weight = b.operand(linear.weight);
    let bias = linear.bias.map(|bias| b.operand(bias));
    let side = weight.size()[2];
    let x = channels_first(&b.to_operand(x));
    let y = x.conv2d(&weight, bias.as_ref(), [1, 1], [side / 2, side / 2], [1, 1], 1);
    channels_last(&y).to_kind(Kind::Float)
}

/// `[B, H, W, C]` → `[B, H/2, W/2, C]`.
pub(crate) fn max_pool(x: &Tensor) -> Tensor {
    channels_last(&channels_first(x).max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false))
}

/// `[B, H, W, C]` → `[B, 2H, 2W, C]`.
pub(crate) fn upsample(x: &Tensor) -> Tensor {
    let [images, height, width, channels] = x.size()[..] else { panic!("expected [B, H, W, C], got {:?}", x.size()) };
    let pixels = x.view([images, height, 1, width, 1, channels]);
    let four = pixels.expand([images, height, 2, width, 2, channels], false);
    four.reshape([images, 2 * height, 2 * width, channels])
}
