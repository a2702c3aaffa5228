//! The norm of the gradients, AdamW and the moving average over the flat buffers, which workers process in pieces.
//!
//! A piece of a weight that is packed for the forward product consists of whole panels, which are packed right after
//! the step, while the new values are in the cache.

use crate::Cpu;
use simmim_engine::{OptimizerStep, ParameterId};
use simmim_kernels::adamw::{AdamWStep, adamw};
use simmim_kernels::dtype::Dtype;
use simmim_kernels::elementwise::{move_towards, sum_of_squares};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::pack_weight_by_column;
use std::mem::take;

/// Values of a piece: so many that starting a task costs little, and so few that workers can share one large weight.
const PIECE: usize = 1 << 16;

/// The Euclidean norm of all gradients.
pub(super) fn gradient_norm(cpu: &Cpu) -> f64 {
    let mut store = cpu.store.borrow_mut();
    let pieces = store.gradients().chunks(PIECE).collect();
    cpu.threads.map(pieces, sum_of_squares).iter().sum::<f64>().sqrt()
}

/// Moves the average towards the values: `average += (1 − decay)·(values − average)`.
pub(super) fn update_average(cpu: &Cpu, decay: f32) {
    let mut store = cpu.store.borrow_mut();
    let (average, values) = store.average_and_values();
    let pieces = average.chunks_mut(PIECE).zip(values.chunks(PIECE)).collect();
    cpu.threads.map(pieces, |(average, values)| move_towards(average, 1.0 - decay, values));
}

/// Makes one AdamW step of all parameters from their gradients times `factor`, and packs the panels of forward
/// products.
pub(super) fn adamw_and_forward_panels<T: Dtype>(cpu: &Cpu, step: &OptimizerStep, factor: f64) {
    assert_eq!(step.step_sizes.len(), cpu.table.iter().len(), "one step size per parameter");
    let mut store = cpu.store.borrow_mut();
    let mut packed = cpu.packed_weights.borrow_mut();
    let buffers = store.step_buffers();
    let mut forward_lanes = packed.forward_lanes(buffers.version);
    let (mut values, mut gradients) = (buffers.values, buffers.gradients);
    let (mut first, mut second) = (buffers.first, buffers.second);
    let mut pieces = Vec::new();
    for (index, (parameter, size)) in cpu.table.iter().zip(step.step_sizes).enumerate() {
        let adamw_step = AdamWStep {
            lr: size.lr,
            beta1: step.betas.0,
            beta2: step.betas.1,
            eps: step.eps,
            weight_decay: size.weight_decay,
            number: step.number,
            gradient_scale: factor as f32,
        };
        let mut left = parameter.range.len();
        let mut lanes = forward_lanes.remove(&ParameterId(index));
        // the inputs of a packed weight, that is, the values of one of its outputs, and the values of a piece
        let (inputs, piece) = match lanes {
            None => (1, PIECE),
            Some(_) => {
                let inputs = left / parameter.shape[0];
                (inputs, PIECE.next_multiple_of(cpu.tile.panels::<T>(0, 0).width() * inputs))
            }
        };
        while left > 0 {
            let len = left.min(piece);
            let panels = lanes.as_mut().map(|lanes| {
                let layout = cpu.tile.panels::<T>(inputs, len / inputs);
                (layout, lanes.split_off_mut(..layout.lanes()).expect("a packed weight has lanes for all its panels"))
            });
            let (p, g) = (values.split_off_mut(..len), gradients.split_off(..len));
            let (m, v) = (first.split_off_mut(..len), second.split_off_mut(..len));
            pieces.push((adamw_step, p, g, m, v, panels));
            left -= len;
        }
        // the values between this parameter and the next one
        let end = buffers.ranges[index].end;
        let gap = buffers.ranges.get(index + 1).map_or(0, |next| next.start - end);
        gradients = &gradients[gap..];
        for buffer in [&mut values, &mut first, &mut second] {
            *buffer = &mut take(buffer)[gap..];
        }
    }
    cpu.threads.map(pieces, |(step, p, g, m, v, panels)| {
        let (Some(p), Some(g), Some(m), Some(v)) = (p, g, m, v) else {
            unreachable!("the table's ranges lie within the buffers")
        };
        adamw(&step, p, g, m, v);
        if let Some((layout, lanes)) = panels {
            let (outputs, inputs) = (layout.columns(), p.len() / layout.columns());
            pack_weight_by_column::<T>(Matrix::strided(p, outputs, inputs, inputs), layout, 0, lanes);
        }
    });
}
