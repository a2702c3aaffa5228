//! Clipping norm and AdamW over the flat buffers, in pieces of equal size.

use super::Cpu;
use crate::backend::Update;
use simmim_kernels::adamw::{AdamWStep, adamw};
use simmim_kernels::elementwise::sum_of_squares;

/// Values per piece: large enough to hide the hand-over, small enough to share a big matrix.
const PIECE: usize = 1 << 16;

/// Euclidean norm of all gradients, summed piece by piece in order.
pub(super) fn gradient_norm(cpu: &Cpu) -> f64 {
    let mut store = cpu.store.borrow_mut();
    let pieces = store.gradients().chunks(PIECE).collect();
    cpu.threads.map(pieces, sum_of_squares).iter().sum::<f64>().sqrt()
}

/// One AdamW update of every parameter.
pub(super) fn update(cpu: &Cpu, update: &Update) {
    assert_eq!(update.steps.len(), cpu.table.iter().len(), "one step size per parameter");
    let mut store = cpu.store.borrow_mut();
    let buffers = store.update_buffers();
    let (mut values, mut gradients) = (buffers.values, buffers.gradients);
    let (mut first, mut second) = (buffers.first, buffers.second);
    let mut pieces = Vec::new();
    for (parameter, step) in cpu.table.iter().zip(update.steps) {
        let step = AdamWStep {
            lr: step.lr,
            beta1: update.betas.0,
            beta2: update.betas.1,
            eps: update.eps,
            weight_decay: step.weight_decay,
            update: update.number,
            gradient_scale: update.gradient_scale,
        };
        let mut left = parameter.range.len();
        while left > 0 {
            let len = left.min(PIECE);
            let (p, g) = (values.split_off_mut(..len), gradients.split_off(..len));
            let (m, v) = (first.split_off_mut(..len), second.split_off_mut(..len));
            pieces.push((step, p, g, m, v));
            left -= len;
        }
    }
    cpu.threads.map(pieces, |(step, p, g, m, v)| match (p, g, m, v) {
        (Some(p), Some(g), Some(m), Some(v)) => adamw(&step, p, g, m, v),
        _ => unreachable!("the table's ranges lie within the buffers"),
    });
}
