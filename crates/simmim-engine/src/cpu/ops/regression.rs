//! A regression loss; its gradient is computed with it, in one pass over the predictions.

use crate::backend::Regression;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::elementwise::add_scaled;
use simmim_kernels::loss::regression;

struct Loss {
    prediction: NodeId,
    d_prediction: Buffer<f32>,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, prediction: &CpuTensor, loss: &Regression) -> CpuTensor {
    let per_channel = prediction.width() / loss.channels;
    let mut d_prediction = cpu.shelves.f32.take(prediction.data.len());
    let scale = (1.0 / loss.denominator) as f32;
    let sum = regression(
        loss.distance,
        &prediction.data,
        loss.target,
        loss.weight,
        loss.channels,
        per_channel,
        scale,
        &mut d_prediction,
    );
    let value = cpu.shelves.f32.copy(&[(sum / loss.denominator) as f32]);
    cpu.output(&[1], value, || Loss { prediction: prediction.node, d_prediction })
}

impl Backward for Loss {
    fn name(&self) -> &'static str {
        "regression"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d = cpu.shelves.f32.zeros(self.d_prediction.len());
        add_scaled(&mut d, d_output[0], &self.d_prediction);
        gradients.add(self.prediction, d);
    }
}
