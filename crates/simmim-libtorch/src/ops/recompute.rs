//! A segment of a model that is recomputed (activation checkpointing, arXiv:1604.06174).

use crate::{Libtorch, LibtorchTensor, shim};
use simmim_engine::Segment;

pub(crate) fn forward(b: &Libtorch, x: &LibtorchTensor, segment: Segment<Libtorch>) -> LibtorchTensor {
    if !b.is_recording() {
        return segment(b, x);
    }
    b.no_graph_can(); // the backward pass would bring the segment's inputs from the host again
    let output = b.record_as(false, || segment(b, x)).0.detach();
    // autograd records what depends on a leaf alone; a segment depends on its parameters too
    let input = if x.0.requires_grad() { x.0.shallow_clone() } else { x.0.detach().set_requires_grad(true) };
    b.op(|| shim::recompute(b, &input, &output, segment))
}
