//! The attention half of a block. Windows are more images of a batch.

use super::linear::linear;
use super::{position_bias, residual};
use crate::Libtorch;
use simmim_engine::{AttentionBranch, QkvBias, Similarity};
use tch::{Kind, Tensor};

/// Largest logit scale (SwinV2, arXiv:2111.09883, section 3.3).
const MAX_LOGIT_SCALE: f64 = 100.0;

/// Least norm that a query or key is divided by, as of PyTorch's `normalize`: the key of padding may be zero.
const MIN_NORM: f64 = 1e-12;

pub(crate) fn forward(
    b: &Libtorch,
    x: &Tensor,
    branch: &AttentionBranch,
    table: Option<&Tensor>,
    drop_path_scale: Option<&Tensor>,
) -> Tensor {
    let [images, tokens, width] = x.size()[..] else { panic!("expected [B, N, D], got {:?}", x.size()) };
    let heads = branch.heads as i64;
    let (windows, slots) = (branch.windows.count() as i64, branch.windows.tokens as i64);
    let a = residual::input(b, x, &branch.norm, branch.order);
    let rows = b.window_rows(&branch.windows, images as usize, tokens as usize);
    let a = match &rows {
        Some(rows) => rows.apply(&a.view([-1, width])),
        None => a,
    };
    let a = a.view([images * windows, slots, width]);
    let qkv = a.linear(&b.operand(branch.qkv), qkv_bias(b, branch).as_ref()); // [B·windows, M, 3D]
    let qkv = qkv.view([images * windows, slots, 3, heads, width / heads]).permute([2, 0, 3, 1, 4]);
    // their gradients are put together once, where those of three selections would be added to zeros
    let [q, k, v] = &qkv.unbind(0)[..] else { unreachable!("there are three parts") }; // [B·windows, A, M, E]
    let turned = branch.rotary.as_ref().map(|rotary| {
        let angles = b.angles(rotary, tokens);
        [q, k].map(|part| rotated(b, part, &angles))
    });
    let [q, k] = turned.as_ref().map_or([q, k], |[q, k]| [q, k]);
    let bias = bias(b, branch, table); // [windows or 1, A, M, M]
    let o = match branch.similarity {
        Similarity::ScaledDot => {
            attend(b, [q, k, v], bias.as_ref(), &Scale::Number(((width / heads) as f64).powf(-0.5)))
        }
        Similarity::Cosine { logit_scale } => {
            let scale = b.leaf(logit_scale).clamp_max(MAX_LOGIT_SCALE.ln()).exp(); // [A, 1, 1]
            attend(b, [&unit(q), &unit(k), v], bias.as_ref(), &Scale::OfHead(scale))
        }
    };
    let o = o.transpose(1, 2).reshape([-1, width]); // [B·windows·M, D]
    let o = match &rows {
        Some(rows) => rows.undo(&o),
        None => o,
    };
    let y = linear(b, &o.view([images, tokens, width]), &branch.projection);
    residual::add(b, x, &y, (&branch.norm, branch.order), branch.layer_scale, drop_path_scale)
}

/// The joint bias of queries, keys and values, `[3D]`.
fn qkv_bias(b: &Libtorch, branch: &AttentionBranch) -> Option<Tensor> {
    match branch.qkv_bias {
        QkvBias::None => None,
        QkvBias::Full(bias) => Some(b.operand(bias)),
        QkvBias::QueryValue { query, value } => {
            let (query, value) = (b.leaf(query), b.leaf(value));
            Some(b.to_operand(&Tensor::cat(&[&query, &value.zeros_like(), &value], 0)))
        }
    }
}

/// What is added to the scores, `[windows or 1, A, M, M]`: the position bias, and the masks of windows.
fn bias(b: &Libtorch, branch: &AttentionBranch, table: Option<&Tensor>) -> Option<Tensor> {
    let positions = table.map(|table| position_bias::expand(b, table, branch).unsqueeze(0));
    match (positions, b.score_masks(branch)) {
        (Some(positions), Some(masks)) => Some(positions + &*masks),
        (Some(positions), None) => Some(positions),
        (None, Some(masks)) => Some(masks.shallow_clone()),
        (None, None) => None,
    }
}

/// Queries or keys `[B, A, N, E]`, turned by the angles of their tokens, `[2, N, E/2]`: cosines and sines.
fn rotated(b: &Libtorch, x: &Tensor, angles: &Tensor) -> Tensor {
    let (halves, [cosines, sines]) = (x.chunk(2, -1), [angles.get(0), angles.get(1)]);
    let real = &halves[0] * &cosines - &halves[1] * &sines;
    let imaginary = &halves[1] * &cosines + &halves[0] * &sines;
    b.to_operand(&Tensor::cat(&[real, imaginary], -1))
}

/// Rows of unit length, f32.
fn unit(x: &Tensor) -> Tensor {
    let norm = x.norm_scalaropt_dim_dtype(2, [-1], true, Kind::Float).clamp_min(MIN_NORM); // [B·windows, A, M, 1]
    x / norm
}

/// What products of queries and keys are multiplied by.
enum Scale {
    Number(f64),
    /// `[A, 1, 1]`, f32.
    OfHead(Tensor),
}

/// `softmax(scale·q·kᵀ + bias)·v` of `[B·windows, A, M, E]`; the bias `[windows or 1, A, M, M]` is the same for all images.
fn attend(b: &Libtorch, [q, k, v]: [&Tensor; 3], bias: Option<&Tensor>, scale: &Scale) -> Tensor {
    match b.state.device {
        // on the CPU, libtorch has no fused attention whose bias is learned
        tch::Device::Cpu if bias.is_some_and(Tensor::requires_grad) => attend_in_parts(b, [q, k, v], bias, scale),
        tch::Device::Cpu | tch::Device::Cuda(_) | tch::Device::Mps | tch::Device::Vulkan => {
            attend_fused(b, [q, k, v], bias, scale)
        }
    }
}

fn attend_fused(b: &Libtorch, [q, k, v]: [&Tensor; 3], bias: Option<&Tensor>, scale: &Scale) -> Tensor {
    let [batch, heads, slots, _] = q.size()[..] else { unreachable!("the caller made four axes") };
    let mask = bias.map(|bias| {
        let windows = bias.size()[0];
        let bias = b.to_operand(bias).unsqueeze(0);
        bias.expand([batch / windows, windows, heads, slots, slots], false).reshape([batch, heads, slots, slots])
    });
    let (q, scale) = match scale {
        Scale::Number(scale) => (q.shallow_clone(), *scale),
        Scale::OfHead(scale) => (q * scale, 1.0),
    };
    let [q, k] = [b.to_operand(&q), b.to_operand(k)];
    Tensor::scaled_dot_product_attention(&q, &k, v, mask.as_ref(), 0.0, false, scale, false)
}

fn attend_in_parts(b: &Libtorch, [q, k, v]: [&Tensor; 3], bias: Option<&Tensor>, scale: &Scale) -> Tensor {
    let [batch, heads, slots, _] = q.size()[..] else { unreachable!("the caller made four axes") };
    let q = match scale {
        Scale::Number(scale) => q * *scale,
        Scale::OfHead(_) => q.shallow_clone(),
    };
    let products = b.to_operand(&q).matmul(&b.to_operand(k).transpose(-2, -1)); // [B·windows, A, M, M]
    let scores = match scale {
        Scale::Number(_) => products,
        Scale::OfHead(scale) => products * scale,
    };
    let scores = match bias {
        Some(bias) => {
            let windows = bias.size()[0];
            let of_windows = scores.view([batch / windows, windows, heads, slots, slots]) + bias.unsqueeze(0);
            of_windows.view([batch, heads, slots, slots])
        }
        None => scores,
    };
    b.to_operand(&scores.softmax(-1, None::<Kind>)).matmul(v)
}
