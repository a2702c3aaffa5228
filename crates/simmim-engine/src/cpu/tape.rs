//! The tape: what each recorded operation needs for its backward pass, in order.

use super::Cpu;
use super::buffers::Buffer;
use super::profile::Pass;
use simmim_kernels::elementwise::add_scaled;

/// Index of a tensor on the tape.
pub(super) type NodeId = usize;

/// What an operation keeps, and how it turns the gradient of its output into those of its inputs.
pub(super) trait Backward {
    /// The operation, for whoever measures where the time goes.
    fn name(&self) -> &'static str;

    /// Adds gradients of the inputs to `gradients` and those of parameters to the store.
    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients);
}

/// Gradients of tensors that are not parameters.
#[derive(Default)]
pub(super) struct Gradients {
    nodes: Vec<Option<Buffer<f32>>>,
}

impl Gradients {
    /// Adds `d` to the gradient of `node`.
    pub(super) fn add(&mut self, node: NodeId, d: Buffer<f32>) {
        if self.nodes.len() <= node {
            self.nodes.resize_with(node + 1, || None);
        }
        match &mut self.nodes[node] {
            Some(sum) => add_scaled(sum, 1.0, &d),
            empty => *empty = Some(d),
        }
    }

    /// Takes the gradient of `node`, if anything has added to it.
    pub(super) fn take(&mut self, node: NodeId) -> Option<Buffer<f32>> {
        self.nodes.get_mut(node).and_then(Option::take)
    }
}

/// An operation and the node of its output.
type Record = (NodeId, Box<dyn Backward>);

/// The recorded operations of one forward pass.
#[derive(Default)]
pub(super) struct Tape {
    nodes: NodeId,
    recording: bool,
    records: Vec<Record>,
}

impl Tape {
    /// A fresh tape.
    pub(super) fn new(recording: bool) -> Self {
        Self { recording, ..Self::default() }
    }

    /// Whether operations should keep what their backward pass needs.
    pub(super) fn is_recording(&self) -> bool {
        self.recording
    }

    /// Turns recording on or off; returns what it was.
    pub(super) fn set_recording(&mut self, recording: bool) -> bool {
        std::mem::replace(&mut self.recording, recording)
    }

    /// A node for a new tensor.
    pub(super) fn node(&mut self) -> NodeId {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Records how `output` came about.
    pub(super) fn record(&mut self, output: NodeId, operation: impl Backward + 'static) {
        self.records.push((output, Box::new(operation)));
    }

    /// Takes what was recorded and stops recording; nodes are numbered on.
    pub(super) fn take_records(&mut self) -> Vec<Record> {
        self.recording = false;
        std::mem::take(&mut self.records)
    }
}

/// Walks records backwards; what is left in `gradients` are those of tensors that no record made.
pub(super) fn walk_back(cpu: &Cpu, records: Vec<Record>, gradients: &mut Gradients) {
    for (output, operation) in records.into_iter().rev() {
        // an output that nothing used has no gradient, and neither do its inputs through it
        if let Some(d_output) = gradients.take(output) {
            let name = operation.name();
            cpu.timed(name, Pass::Backward, || operation.backward(cpu, d_output, gradients));
        }
    }
}
