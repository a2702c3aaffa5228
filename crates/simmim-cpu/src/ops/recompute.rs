//! Segments of a model of which the forward pass saves nothing. One that is recomputed saves only its input, and the backward
//! pass runs it again (activation checkpointing, arXiv:1604.06174); one that is frozen has no backward pass.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients};
use crate::{Cpu, CpuTensor};
use simmim_engine::Segment;

struct RecomputeBackward {
    x: CpuTensor,
    segment: Segment<Cpu>,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, segment: Segment<Cpu>) -> CpuTensor {
    let before = cpu.tape.borrow_mut().start_segment();
    let out = segment(cpu, x);
    let mut tape = cpu.tape.borrow_mut();
    let parameters = tape.end_segment(before);
    tape.note_parameters(&parameters); // this segment may be a part of another one
    if tape.is_recording() {
        tape.record(out.node, parameters, RecomputeBackward { x: x.clone(), segment });
    }
    drop(tape);
    out
}

/// Runs a segment and records nothing: its output is a tensor without gradient.
pub(crate) fn without_backward(cpu: &Cpu, x: &CpuTensor, segment: &Segment<Cpu>) -> CpuTensor {
    let before = cpu.tape.borrow_mut().start_segment();
    let out = segment(cpu, x);
    let mut tape = cpu.tape.borrow_mut();
    tape.end_segment(before); // a segment around this one adds nothing to the gradients of these parameters
    CpuTensor { node: tape.node(), ..out } // the segment may return its input, which has a place already
}

impl Backward for RecomputeBackward {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        cpu.tape.borrow_mut().start_recording();
        let out = (self.segment)(cpu, &self.x);
        let records = cpu.tape.borrow_mut().take_records();
        gradients.add(out.node, d_output);
        for record in records.into_iter().rev() {
            record.run_backward(cpu, gradients);
        }
    }
}
