//! Passes that are recorded once and replayed, so that the host queues one thing instead of a thousand: CUDA graphs.
//!
//! A model's code runs in every pass all the same, since masks, targets and images come in with its calls. In a pass that is
//! replayed its operations compute nothing: they return placeholders of the shapes that were recorded, and only what they bring
//! from the host is copied, to where the recorded work reads it. At the end of the pass, its graph computes loss and gradients.
//!
//! So that is only right if the calls are those that were recorded. All of them are compared: what comes in by its shape,
//! operations by their numbers. A pass that is another one is run again without a graph ([`Backend::must_repeat`]), and graphs are
//! then given up, as they are for passes that read values or recompute blocks.
//!
//! The first passes run as usual: libraries allocate what they need, and layouts of windows are made. Two graphs are kept, of the
//! first pass of a step, which writes gradients, and of those of its other micro-batches, which add to them.
//!
//! [`Backend::must_repeat`]: simmim_engine::Backend::must_repeat

use crate::Libtorch;
use crate::shim;
use crate::streams::Graph;
use tch::{Kind, Tensor, no_grad};

/// Passes before one is recorded: PyTorch's documentation asks for a few.
const WARM_UP: usize = 3;

/// A call that brings something from the host, or computes.
#[derive(Debug, PartialEq)]
enum Call {
    Upload {
        shape: Vec<i64>,
        kind: Kind,
    },
    /// Numbers that are no tensors become part of the recorded work.
    Operation {
        bits: Vec<u64>,
    },
}

/// A pass that can be replayed.
struct Recorded {
    calls: Vec<Call>,
    graph: Graph,
    /// Where the graph reads what comes from the host.
    inputs: Vec<Tensor>,
    /// Shape and type of what each operation returns.
    placeholders: Vec<(Vec<i64>, Kind)>,
    loss: Tensor,
    /// What the graph leaves in each parameter; nothing where no gradient reaches it.
    gradients: Vec<Option<Tensor>>,
}

/// A kind of pass: the first of a step, or one that adds to its gradients.
#[derive(Default)]
struct Pass {
    /// Calls of the last pass, and how many in a row had them.
    warm: Option<(Vec<Call>, usize)>,
    recorded: Option<Recorded>,
}

/// A pass in progress.
enum Now {
    /// Nothing is noted.
    Plain,
    Warming {
        calls: Vec<Call>,
    },
    Recording(Box<Recording>),
    Replaying(Progress),
}

struct Recording {
    graph: Graph,
    calls: Vec<Call>,
    inputs: Vec<Tensor>,
    placeholders: Vec<(Vec<i64>, Kind)>,
    progress: Progress,
}

/// How far a pass is in the calls that are expected of it.
#[derive(Default)]
struct Progress {
    calls: usize,
    operations: usize,
    /// What came from the host.
    given: Vec<Tensor>,
}

/// The graphs of a backend.
pub(crate) struct Graphs {
    is_on: bool,
    /// Whether this pass adds to gradients.
    adds: bool,
    passes: [Pass; 2],
    now: Now,
    must_repeat: bool,
    replays: u64,
}

impl Graphs {
    pub(crate) fn new(is_on: bool) -> Self {
        Self { is_on, adds: false, passes: Default::default(), now: Now::Plain, must_repeat: false, replays: 0 }
    }

    /// Gradients were cleared: the next pass is the first of a step.
    pub(crate) fn gradients_are_clear(&mut self) {
        self.adds = false;
    }

    /// Whether the pass that has just ended computed nothing.
    pub(crate) fn must_repeat(&self) -> bool {
        self.must_repeat
    }

    /// How many passes were replayed.
    pub(crate) fn replays(&self) -> u64 {
        self.replays
    }

    /// No pass is replayed any more, and this one, if it computed nothing, is repeated.
    fn give_up(&mut self) {
        self.is_on = false;
        self.passes = Default::default();
        match std::mem::replace(&mut self.now, Now::Plain) {
            Now::Plain | Now::Warming { .. } => (),
            Now::Recording(recording) => {
                recording.graph.end();
                self.must_repeat = true;
            }
            Now::Replaying(_) => self.must_repeat = true,
        }
    }

    /// Notes a call; whether it is one that is expected here.
    fn expects(&mut self, call: Call) -> bool {
        let adds = usize::from(self.adds);
        match &mut self.now {
            Now::Plain => true,
            Now::Warming { calls } => {
                calls.push(call);
                true
            }
            Now::Recording(recording) => {
                let at = recording.progress.calls;
                recording.progress.calls += 1;
                recording.calls.get(at) == Some(&call)
            }
            Now::Replaying(progress) => {
                let at = progress.calls;
                progress.calls += 1;
                self.passes[adds].recorded.as_ref().is_some_and(|recorded| recorded.calls.get(at) == Some(&call))
            }
        }
    }
}

impl Libtorch {
    /// Begins a pass.
    pub(crate) fn begin_pass(&self, is_recording: bool) {
        let mut graphs = self.state.graphs.borrow_mut();
        let graphs = &mut *graphs;
        graphs.must_repeat = false;
        if matches!(graphs.now, Now::Recording(_)) {
            graphs.give_up(); // the caller left a pass without its end
            graphs.must_repeat = false;
        }
        graphs.now = Now::Plain;
        if !is_recording || !graphs.is_on {
            return;
        }
        // work that adds to gradients finds them where the graph of the first pass leaves them
        let may_record = !graphs.adds || graphs.passes[0].recorded.is_some();
        let pass = &mut graphs.passes[usize::from(graphs.adds)];
        graphs.now = match (&pass.recorded, pass.warm.take()) {
            (Some(_), _) => Now::Replaying(Progress::default()),
            (None, Some((calls, WARM_UP..))) if may_record => {
                let inputs = calls.iter().filter_map(|call| match call {
                    Call::Upload { shape, kind } => Some(Tensor::zeros(shape, (*kind, self.state.device))),
                    Call::Operation { .. } => None,
                });
                let inputs = no_grad(|| inputs.collect());
                let graph = Graph::begin(&self.state.place);
                let (placeholders, progress) = Default::default();
                Now::Recording(Box::new(Recording { graph, calls, inputs, placeholders, progress }))
            }
            (None, warm) => {
                pass.warm = warm;
                Now::Warming { calls: Vec::new() }
            }
        };
    }

    /// Ends a pass: adds the gradients of the loss.
    pub(crate) fn end_pass(&self, loss: &Tensor) {
        let (now, adds, must_repeat) = {
            let mut graphs = self.state.graphs.borrow_mut();
            let adds = usize::from(std::mem::replace(&mut graphs.adds, true));
            (std::mem::replace(&mut graphs.now, Now::Plain), adds, graphs.must_repeat)
        };
        // segments that are recomputed in the backward pass are operations too
        match now {
            Now::Plain if must_repeat => self.state.graphs.borrow_mut().adds = adds == 1,
            Now::Plain => self.differentiate(loss),
            Now::Warming { calls } => {
                self.differentiate(loss);
                let pass = &mut self.state.graphs.borrow_mut().passes[adds];
                pass.warm = match pass.warm.take() {
                    Some((before, times)) if before == calls => Some((before, times + 1)),
                    Some(_) | None => Some((calls, 1)),
                };
            }
            Now::Recording(recording) => {
                let Recording { graph, calls, inputs, placeholders, progress } = *recording;
                if progress.calls != calls.len() {
                    graph.end();
                    self.was_shorter(adds);
                    return;
                }
                if loss.requires_grad() {
                    shim::backward(loss, None, false);
                }
                graph.end();
                let gradient = |leaf: &Tensor| Some(leaf.grad()).filter(Tensor::defined);
                let gradients = self.state.store.borrow().leaves().iter().map(gradient).collect();
                let recorded = Recorded { calls, graph, inputs, placeholders, loss: loss.detach(), gradients };
                self.replay(&recorded, &progress.given, loss);
                self.state.graphs.borrow_mut().passes[adds].recorded = Some(recorded);
            }
            Now::Replaying(progress) => {
                let mut graphs = self.state.graphs.borrow_mut();
                let recorded = graphs.passes[adds].recorded.as_ref().expect("it is replayed");
                if progress.calls != recorded.calls.len() {
                    drop(graphs);
                    self.was_shorter(adds);
                    return;
                }
                self.replay(recorded, &progress.given, loss);
                graphs.replays += 1;
            }
        }
    }

    fn differentiate(&self, loss: &Tensor) {
        if loss.requires_grad() {
            shim::backward(loss, None, false);
        }
        // who keeps the loss does not keep what it was computed from
        shim::forget_graph(loss);
    }

    /// A pass ended before the calls that were expected of it did.
    fn was_shorter(&self, adds: usize) {
        let mut graphs = self.state.graphs.borrow_mut();
        graphs.give_up();
        (graphs.must_repeat, graphs.adds) = (true, adds == 1);
    }

    fn replay(&self, recorded: &Recorded, given: &[Tensor], loss: &Tensor) {
        no_grad(|| {
            for (input, given) in recorded.inputs.iter().zip(given) {
                input.shallow_clone().copy_(given);
            }
            recorded.graph.replay();
            // the next replay writes to the same place
            loss.shallow_clone().set_data(&recorded.loss.copy());
        });
        shim::forget_graph(loss);
        let store = self.state.store.borrow();
        for (leaf, gradient) in store.leaves().iter().zip(&recorded.gradients) {
            shim::set_gradient(leaf, gradient.as_ref());
        }
    }

    /// Whether what is queued is being recorded. Nothing may be brought to the device then.
    pub(crate) fn is_recording_graph(&self) -> bool {
        matches!(self.state.graphs.borrow().now, Now::Recording(_))
    }

    /// What came from the host, where an operation of this pass reads it.
    pub(crate) fn given(&self, shape: &[i64], kind: Kind, fresh: Tensor) -> Tensor {
        let mut graphs = self.state.graphs.borrow_mut();
        let graphs = &mut *graphs;
        if !graphs.expects(Call::Upload { shape: shape.to_vec(), kind }) {
            graphs.give_up();
        }
        let adds = usize::from(graphs.adds);
        let (progress, inputs) = match &mut graphs.now {
            // one that was not brought there, because a recording has just been given up
            Now::Plain | Now::Warming { .. } => return fresh.to_device(self.state.device),
            Now::Recording(recording) => (&mut recording.progress, &recording.inputs),
            Now::Replaying(progress) => {
                let recorded = graphs.passes[adds].recorded.as_ref().expect("it is replayed");
                (progress, &recorded.inputs)
            }
        };
        let input = inputs[progress.given.len()].shallow_clone();
        progress.given.push(fresh);
        input
    }

    /// What an operation returns: what `run` computes, or a placeholder.
    pub(crate) fn computed(&self, numbers: &[f64], run: impl FnOnce() -> Tensor) -> Tensor {
        let mut borrowed = self.state.graphs.borrow_mut();
        let graphs = &mut *borrowed;
        if !graphs.expects(Call::Operation { bits: numbers.iter().map(|number| number.to_bits()).collect() }) {
            graphs.give_up();
        }
        let adds = usize::from(graphs.adds);
        if let Now::Replaying(progress) = &mut graphs.now {
            let recorded = graphs.passes[adds].recorded.as_ref().expect("it is replayed");
            let (shape, kind) = &recorded.placeholders[progress.operations];
            progress.operations += 1;
            return Tensor::empty_strided(shape, vec![0; shape.len()], (*kind, self.state.device));
        }
        drop(borrowed);
        let computed = run();
        if let Now::Recording(recording) = &mut self.state.graphs.borrow_mut().now {
            recording.placeholders.push((computed.size(), computed.kind()));
        }
        computed
    }

    /// A pass does what a graph cannot: it reads a value, or goes through something again.
    pub(crate) fn no_graph_can(&self) {
        let mut graphs = self.state.graphs.borrow_mut();
        if !matches!(graphs.now, Now::Plain) {
            graphs.give_up();
        }
    }
}
