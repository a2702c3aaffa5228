//! The tape: the operations of a forward pass in order, each with what it saved for backward.

use crate::Cpu;
use crate::buffer_pool::Buffer;
use simmim_engine::{Direction, ParameterId};
use simmim_kernels::elementwise::add_scaled;

/// The place of a tensor on the tape.
pub(crate) type NodeId = usize;

/// The backward pass of an operation. Each operation implements it for a struct of what it saved, such as
/// `ReluBackward`.
pub(crate) trait Backward {
    /// The name of the operation in profiles.
    fn name(&self) -> &'static str;

    /// Computes the gradients of the inputs from that of the output and adds them to `gradients`. Gradients of
    /// parameters are added to the store.
    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients);
}

/// Gradients of tensors that are not parameters.
#[derive(Default)]
pub(crate) struct Gradients {
    nodes: Vec<Option<Buffer<f32>>>,
}

impl Gradients {
    /// Adds `d` to the gradient of `node`.
    pub(crate) fn add(&mut self, node: NodeId, d: Buffer<f32>) {
        if self.nodes.len() <= node {
            self.nodes.resize_with(node + 1, || None);
        }
        match &mut self.nodes[node] {
            Some(sum) => add_scaled(sum, 1.0, &d),
            empty => *empty = Some(d),
        }
    }

    /// Takes the gradient of `node`, if anything was added to it.
    pub(crate) fn take(&mut self, node: NodeId) -> Option<Buffer<f32>> {
        self.nodes.get_mut(node).and_then(Option::take)
    }
}

/// A recorded operation.
pub(crate) struct Record {
    output: NodeId,
    /// The parameters whose gradients its backward pass adds to.
    pub(crate) parameters: Vec<ParameterId>,
    operation: Box<dyn Backward>,
}

impl Record {
    /// Runs the backward pass of the operation.
    pub(crate) fn run_backward(self, cpu: &Cpu, gradients: &mut Gradients) {
        // an output that nothing used has no gradient, and adds nothing to those of its inputs
        if let Some(d_output) = gradients.take(self.output) {
            let name = self.operation.name();
            cpu.timed(name, Direction::Backward, || self.operation.backward(cpu, d_output, gradients));
        }
    }
}

/// The recorded operations of one forward pass.
#[derive(Default)]
pub(crate) struct Tape {
    nodes: NodeId,
    /// Whether the pass was started to record, which it may stop for a while.
    is_of_training: bool,
    is_recording: bool,
    records: Vec<Record>,
    /// The parameters that were read so far in a segment that will be recomputed; `None` outside of such a segment.
    segment: Option<Vec<ParameterId>>,
}

/// The state of a tape before a segment began.
pub(crate) struct BeforeSegment {
    is_recording: bool,
    segment: Option<Vec<ParameterId>>,
}

impl Tape {
    /// An empty tape.
    pub(crate) fn new(is_recording: bool) -> Self {
        Self { is_of_training: is_recording, is_recording, ..Self::default() }
    }

    /// Whether a backward pass follows, or has begun.
    pub(crate) fn is_of_training(&self) -> bool {
        self.is_of_training
    }

    /// Whether operations must save what their backward pass needs.
    pub(crate) fn is_recording(&self) -> bool {
        self.is_recording
    }

    /// Begins to record.
    pub(crate) fn start_recording(&mut self) {
        self.is_recording = true;
    }

    /// Begins a segment that will be recomputed: nothing is recorded until it ends, only the parameters that it reads
    /// are noted.
    pub(crate) fn start_segment(&mut self) -> BeforeSegment {
        BeforeSegment {
            is_recording: std::mem::replace(&mut self.is_recording, false),
            segment: self.segment.replace(Vec::new()),
        }
    }

    /// Ends a segment and restores the state before it. Returns the parameters that the segment read, each of them
    /// once.
    pub(crate) fn end_segment(&mut self, before: BeforeSegment) -> Vec<ParameterId> {
        let mut parameters = std::mem::replace(&mut self.segment, before.segment).unwrap_or_default();
        self.is_recording = before.is_recording;
        parameters.sort_by_key(|id| id.0);
        parameters.dedup();
        parameters
    }

    /// Notes the parameters that an operation reads, if it runs in a segment that will be recomputed.
    pub(crate) fn note_parameters(&mut self, parameters: &[ParameterId]) {
        if let Some(segment) = &mut self.segment {
            segment.extend(parameters);
        }
    }

    /// A place for a new tensor.
    pub(crate) fn node(&mut self) -> NodeId {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Records the operation that computed `output`.
    pub(crate) fn record(&mut self, output: NodeId, parameters: Vec<ParameterId>, operation: impl Backward + 'static) {
        self.records.push(Record { output, parameters, operation: Box::new(operation) });
    }

    /// Takes the records and stops recording. New tensors still get new places.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        self.is_recording = false;
        std::mem::take(&mut self.records)
    }
}
