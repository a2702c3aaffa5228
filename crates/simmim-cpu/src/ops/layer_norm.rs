//! Layer normalization where it is not part of a branch, such as after the last one.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::LayerNorm;
use simmim_kernels::layer_norm::{RowStatistics, layer_norm, layer_norm_backward};
use std::rc::Rc;

struct LayerNormBackward {
    norm: LayerNorm,
    input: NodeId,
    x: Rc<Buffer<f32>>,
    statistics: Vec<RowStatistics>,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, norm: &LayerNorm) -> CpuTensor {
    let width = x.width();
    let mut out = cpu.pools.f32.take(x.data.len());
    let mut statistics = vec![RowStatistics::default(); x.rows()];
    {
        let store = cpu.store.borrow();
        let (weight, bias) = (store.value(norm.weight), store.value(norm.bias));
        let data: &[f32] = &x.data;
        let groups = parts(x.rows());
        let outs = split_mut(&mut out, &groups, width);
        let parts = split_mut(&mut statistics, &groups, 1);
        let tasks = groups.iter().zip(outs).zip(parts).collect();
        cpu.threads.map(tasks, |((group, out), statistics)| {
            layer_norm(&data[group.start * width..group.end * width], weight, bias, norm.eps, out, statistics);
        });
    }
    cpu.output_with_parameters(norm.parameters(), &x.shape, out, || LayerNormBackward {
        norm: *norm,
        input: x.node,
        x: Rc::clone(&x.data),
        statistics,
    })
}

impl Backward for LayerNormBackward {
    fn name(&self) -> &'static str {
        "layer norm"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_x = cpu.pools.f32.zeros(d_output.len());
        let sums = {
            let store = cpu.store.borrow();
            let weight = store.value(self.norm.weight);
            let width = weight.len();
            let (x, d_y, statistics): (&[f32], &[f32], _) = (&self.x, &d_output, &self.statistics);
            let groups = parts(statistics.len());
            let parts = split_mut(&mut d_x, &groups, width);
            let tasks = groups.iter().zip(parts).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                let (mut d_weight, mut d_bias) = (vec![0.0; width], vec![0.0; width]);
                let span = group.start * width..group.end * width;
                let statistics = &statistics[group.clone()];
                layer_norm_backward(&x[span.clone()], weight, statistics, &d_y[span], d_x, &mut d_weight, &mut d_bias);
                (d_weight, d_bias)
            })
        };
        for (d_weight, d_bias) in sums {
            add_gradient(cpu, self.norm.weight, &d_weight);
            add_gradient(cpu, self.norm.bias, &d_bias);
        }
        gradients.add(self.input, d_x);
    }
}
