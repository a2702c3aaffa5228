//! The cross-entropy of soft labels, by a softmax or by sigmoids.

use super::loss::loss_output;
use crate::{Cpu, CpuTensor};
use simmim_engine::{Labels, SoftLabels};
use simmim_kernels::elementwise::multiply;
use simmim_kernels::loss::{binary_cross_entropy, cross_entropy};

pub(crate) fn forward(cpu: &Cpu, logits: &CpuTensor, loss: &SoftLabels) -> CpuTensor {
    let mut d_logits = cpu.pools.f32.copy(&logits.data);
    // there is only one row per image, which is not worth starting tasks
    let sum = match loss.labels {
        Labels::One => {
            let mut mass = loss.target.to_vec();
            multiply(&mut mass, loss.weight);
            cross_entropy(&mut d_logits, &mass, &vec![1.0; logits.rows()], logits.width())
        }
        Labels::Many => binary_cross_entropy(&mut d_logits, loss.target, loss.weight),
    };
    loss_output(cpu, "soft labels", logits, sum, d_logits)
}
