//! The negative log-likelihood of values under predicted Laplace distributions.

use super::loss::loss_output;
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::Laplace;
use simmim_kernels::discrete_vae::laplace;

pub(crate) fn forward(cpu: &Cpu, prediction: &CpuTensor, loss: &Laplace) -> CpuTensor {
    let (rows, width) = (prediction.rows(), prediction.width());
    let channels = width / 2;
    assert_eq!(loss.target.len(), rows * channels, "one true value per pair of predicted ones");
    let mut d_prediction = cpu.pools.f32.take(prediction.data.len());
    let sums = {
        let data: &[f32] = &prediction.data;
        let groups = parts(rows);
        let tasks = groups.iter().zip(split_mut(&mut d_prediction, &groups, width)).collect();
        cpu.threads.map(tasks, |(group, d)| {
            let target = &loss.target[group.start * channels..group.end * channels];
            laplace(&data[group.start * width..group.end * width], target, channels, d)
        })
    };
    loss_output(cpu, "laplace", prediction, sums.iter().sum(), d_prediction)
}
