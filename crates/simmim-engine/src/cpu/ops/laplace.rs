//! The Laplace likelihood of values; its gradient is computed with it, in one pass.

use crate::backend::Laplace;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::discrete_vae::laplace;
use simmim_kernels::elementwise::add_scaled;

struct Loss {
    prediction: NodeId,
    d_prediction: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, prediction: &CpuTensor, loss: &Laplace) -> CpuTensor {
    let (rows, width) = (prediction.rows(), prediction.width());
    let channels = width / 2;
    assert_eq!(loss.target.len(), rows * channels, "one true value per pair of predicted ones");
    let mut d_prediction = cpu.shelves.f32.take(prediction.data.len());
    let scale = (1.0 / loss.denominator) as f32;
    let sums = {
        let data: &[f32] = &prediction.data;
        let groups = parts(rows);
        let tasks = groups.iter().zip(split_mut(&mut d_prediction, &groups, width)).collect();
        cpu.threads.map(tasks, |(group, d)| {
            let target = &loss.target[group.start * channels..group.end * channels];
            laplace(&data[group.start * width..group.end * width], target, channels, scale, d)
        })
    };
    let value = cpu.shelves.f32.copy(&[(sums.iter().sum::<f64>() / loss.denominator) as f32]);
    cpu.output(&[1], value, || Loss { prediction: prediction.node, d_prediction })
}

impl Backward for Loss {
    fn name(&self) -> &'static str {
        "laplace"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d = cpu.shelves.f32.zeros(self.d_prediction.len());
        add_scaled(&mut d, d_output[0], &self.d_prediction);
        gradients.add(self.prediction, d);
    }
}
