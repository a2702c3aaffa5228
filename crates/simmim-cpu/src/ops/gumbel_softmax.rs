//! The Gumbel-softmax, a differentiable relaxation of a random choice. The caller draws the noise.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_kernels::elementwise::add_scaled;
use simmim_kernels::softmax::{softmax, softmax_backward};
use std::rc::Rc;

struct GumbelSoftmaxBackward {
    input: NodeId,
    choice: Rc<Buffer<f32>>,
    classes: usize,
    temperature: f32,
}

pub(crate) fn forward(cpu: &Cpu, logits: &CpuTensor, noise: &[f32], temperature: f32) -> CpuTensor {
    assert_eq!(logits.data.len(), noise.len(), "one noise value per logit");
    let classes = logits.width();
    let mut choice = cpu.pools.f32.take(noise.len());
    {
        let data: &[f32] = &logits.data;
        let groups = parts(logits.rows());
        let tasks = groups.iter().zip(split_mut(&mut choice, &groups, classes)).collect();
        cpu.threads.map(tasks, |(group, choice)| {
            let span = group.start * classes..group.end * classes;
            for ((choice, logit), noise) in choice.iter_mut().zip(&data[span.clone()]).zip(&noise[span]) {
                *choice = (logit + noise) / temperature;
            }
            softmax(choice, classes, classes);
        });
    }
    let tensor = cpu.new_tensor(&logits.shape, choice);
    // recorded here and not by `Cpu::output`, because the output itself is saved
    if cpu.is_recording() {
        let choice = Rc::clone(&tensor.data);
        cpu.tape.borrow_mut().record(
            tensor.node,
            Vec::new(),
            GumbelSoftmaxBackward { input: logits.node, choice, classes, temperature },
        );
    }
    tensor
}

impl Backward for GumbelSoftmaxBackward {
    fn name(&self) -> &'static str {
        "gumbel softmax"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { classes, temperature, .. } = *self;
        let mut d_logits = cpu.pools.f32.zeros(d_output.len());
        {
            let choice: &[f32] = &self.choice;
            let groups = parts(choice.len() / classes);
            let parts = split_mut(&mut d_output, &groups, classes).into_iter();
            let tasks = groups.iter().zip(parts).zip(split_mut(&mut d_logits, &groups, classes)).collect();
            cpu.threads.map(tasks, |((group, d_choice), d_logits)| {
                softmax_backward(&choice[group.start * classes..group.end * classes], d_choice, classes);
                add_scaled(d_logits, 1.0 / temperature, d_choice);
            });
        }
        gradients.add(self.input, d_logits);
    }
}
