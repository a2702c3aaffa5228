//! Clipping norm and AdamW over the flat buffers, piece by piece.
//!
//! A piece of a weight that the forward product reads is whole panels of it, which are packed while the new
//! values are in cache.

use super::Cpu;
use crate::backend::Update;
use crate::parameters::ParameterId;
use simmim_kernels::adamw::{AdamWStep, adamw};
use simmim_kernels::element::Element;
use simmim_kernels::elementwise::sum_of_squares;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Layout, pack_weight_by_column};

/// Values per piece: large enough to hide the hand-over, small enough to share a big matrix.
const PIECE: usize = 1 << 16;

/// Euclidean norm of all gradients, summed piece by piece in order.
pub(super) fn gradient_norm(cpu: &Cpu) -> f64 {
    let mut store = cpu.store.borrow_mut();
    let pieces = store.gradients().chunks(PIECE).collect();
    cpu.threads.map(pieces, sum_of_squares).iter().sum::<f64>().sqrt()
}

/// One AdamW update of every parameter, and the panels of the forward products.
pub(super) fn update<E: Element>(cpu: &Cpu, update: &Update) {
    assert_eq!(update.steps.len(), cpu.table.iter().len(), "one step size per parameter");
    let mut store = cpu.store.borrow_mut();
    let mut packed = cpu.packed.borrow_mut();
    let buffers = store.update_buffers();
    let mut forward_lanes = packed.forward_lanes(buffers.version);
    let (mut values, mut gradients) = (buffers.values, buffers.gradients);
    let (mut first, mut second) = (buffers.first, buffers.second);
    let mut pieces = Vec::new();
    for (index, (parameter, step)) in cpu.table.iter().zip(update.steps).enumerate() {
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
        let mut lanes = forward_lanes.remove(&ParameterId(index));
        // values of an output, and of a piece
        let (inputs, piece) = match lanes {
            None => (1, PIECE),
            Some(_) => {
                let inputs = left / parameter.shape[0];
                (inputs, PIECE.next_multiple_of(cpu.tile.width() * inputs))
            }
        };
        while left > 0 {
            let len = left.min(piece);
            let panels = lanes.as_mut().map(|lanes| {
                let layout = Layout::new::<E>(inputs, len / inputs, cpu.tile.width());
                (layout, lanes.split_off_mut(..layout.lanes()).expect("a packed weight has lanes for all its panels"))
            });
            let (p, g) = (values.split_off_mut(..len), gradients.split_off(..len));
            let (m, v) = (first.split_off_mut(..len), second.split_off_mut(..len));
            pieces.push((step, p, g, m, v, panels));
            left -= len;
        }
    }
    cpu.threads.map(pieces, |(step, p, g, m, v, panels)| {
        let (Some(p), Some(g), Some(m), Some(v)) = (p, g, m, v) else {
            unreachable!("the table's ranges lie within the buffers")
        };
        adamw(&step, p, g, m, v);
        if let Some((layout, lanes)) = panels {
            let (outputs, inputs) = (layout.columns(), p.len() / layout.columns());
            pack_weight_by_column::<E>(Matrix::strided(p, outputs, inputs, inputs), layout, 0, lanes);
        }
    });
}
