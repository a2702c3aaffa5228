//! The regression loss.

use super::loss::loss_output;
use crate::{Cpu, CpuTensor};
use simmim_engine::{Distance, Regression};
use simmim_kernels::loss::{self as kernel, regression};

pub(crate) fn forward(cpu: &Cpu, prediction: &CpuTensor, loss: &Regression) -> CpuTensor {
    let per_channel = prediction.width() / loss.channels;
    let mut d_prediction = cpu.pools.f32.take(prediction.data.len());
    let sum = regression(
        kernel_distance(loss.distance),
        &prediction.data,
        loss.target,
        loss.weight,
        loss.channels,
        per_channel,
        &mut d_prediction,
    );
    loss_output(cpu, "regression", prediction, sum, d_prediction)
}

fn kernel_distance(distance: Distance) -> kernel::Distance {
    match distance {
        Distance::L1 => kernel::Distance::L1,
        Distance::L2 => kernel::Distance::L2,
        Distance::SmoothL1 { beta } => kernel::Distance::SmoothL1 { beta },
    }
}
