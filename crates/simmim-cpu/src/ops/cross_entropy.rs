//! The cross-entropy of classes.

use super::loss::loss_output;
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::CrossEntropy;
use simmim_kernels::loss::class_cross_entropy;

pub(crate) fn forward(cpu: &Cpu, logits: &CpuTensor, loss: &CrossEntropy) -> CpuTensor {
    let choices = logits.width() / loss.classes;
    let positions = choices / loss.channels;
    let (rows, width) = (logits.rows(), logits.width());
    let mut d_logits = cpu.pools.f32.copy(&logits.data);
    let groups = parts(rows);
    let tasks = groups.iter().zip(split_mut(&mut d_logits, &groups, width)).collect();
    let sums = cpu.threads.map(tasks, |(group, d_logits)| {
        let ids = &loss.ids[group.start * choices..group.end * choices];
        let weight = &loss.weight[group.start * positions..group.end * positions];
        class_cross_entropy(d_logits, ids, weight, loss.channels, positions, loss.classes)
    });
    loss_output(cpu, "cross entropy", logits, sums.iter().sum(), d_logits)
}
