//! The divergence of distributions over classes from the uniform one.

use super::loss::loss_output;
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::discrete_vae::uniform_divergence;

pub(crate) fn forward(cpu: &Cpu, logits: &CpuTensor) -> CpuTensor {
    let classes = logits.width();
    let mut d_logits = cpu.pools.f32.copy(&logits.data);
    let tasks = split_mut(&mut d_logits, &parts(logits.rows()), classes);
    let sums = cpu.threads.map(tasks, |d_logits| uniform_divergence(d_logits, classes));
    loss_output(cpu, "uniform divergence", logits, sums.iter().sum(), d_logits)
}
