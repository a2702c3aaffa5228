//! Clipping and AdamW: a handful of calls, however many parameters there are. The norm, the clipping coefficient and whether
//! the step is made at all stay on the device.

use crate::Libtorch;
use crate::shim::{self, FusedStep};
use simmim_engine::OptimizerStep;
use tch::{Kind, Tensor};

/// Makes a step, and returns the norm of the scaled gradients before clipping, `[1]`. The gradients are scaled in place.
pub(crate) fn step(b: &Libtorch, step: &OptimizerStep) -> Tensor {
    let mut store = b.state.store.borrow_mut();
    let count = store.leaves().len();
    assert_eq!(step.step_sizes.len(), count, "one step size per parameter");
    let options = (Kind::Float, b.state.device);
    if count == 0 {
        return Tensor::zeros([1], options);
    }
    let gradients: Vec<Tensor> = (0..count).map(|id| store.gradient(id)).collect();
    let [first, second] = store.moments();
    let norm = shim::norm(&gradients) * step.gradient_scale;
    // as `OptimizerStep::clip_coefficient`
    let clip = match step.clip_norm {
        Some(most) => (&norm + 1e-6).reciprocal() * most,
        None => norm.ones_like(),
    };
    let divisor = (clip.clamp_max(1.0) * step.gradient_scale).reciprocal();
    let fused = FusedStep {
        number: &Tensor::full([1], step.number as f64, options),
        betas: (f64::from(step.betas.0), f64::from(step.betas.1)),
        eps: f64::from(step.eps),
        divisor: &divisor,
        found_inf: &norm.isfinite().logical_not().to_kind(Kind::Float),
    };
    let mut done = vec![false; count];
    for at in 0..count {
        if done[at] {
            continue;
        }
        let size = step.step_sizes[at];
        let same: Vec<usize> = (at..count).filter(|other| step.step_sizes[*other] == size).collect();
        same.iter().for_each(|id| done[*id] = true);
        let list = |of: &[Tensor]| -> Vec<Tensor> { same.iter().map(|id| of[*id].shallow_clone()).collect() };
        let lists = [list(store.leaves()), list(&gradients), list(&first), list(&second)];
        let [values, gradients, first, second] = &lists;
        shim::fused_adamw([values, gradients, first, second], f64::from(size.lr), f64::from(size.weight_decay), &fused);
    }
    norm.reshape([1])
}
