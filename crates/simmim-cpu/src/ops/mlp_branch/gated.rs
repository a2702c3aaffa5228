//! The MLP half of a block with SwiGLU, made of single operations: in contrast to the GELU's, a chunk does not go from the norm
//! to the residual in the cache.

use super::super::{layer_norm, linear, scaled_sum, swiglu};
use crate::{Cpu, CpuTensor};
use simmim_engine::{MlpBranch, NormOrder};

pub(super) fn forward(cpu: &Cpu, x: &CpuTensor, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> CpuTensor {
    let a = match branch.order {
        NormOrder::Pre => layer_norm::forward(cpu, x, &branch.norm), // [B, N, D]
        NormOrder::Post => x.clone(),
    };
    let hidden = swiglu::forward(cpu, &linear::forward(cpu, &a, &branch.fc1)); // [B, N, hidden]
    let f = linear::forward(cpu, &hidden, &branch.fc2); // [B, N, D]
    let f = match branch.order {
        NormOrder::Pre => f,
        NormOrder::Post => layer_norm::forward(cpu, &f, &branch.norm),
    };
    scaled_sum::forward(cpu, x, &f, branch.layer_scale, drop_path_scale)
}
