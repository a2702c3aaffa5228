//! The libtorch backend of simmim: NVIDIA and AMD GPUs, Apple's, and the CPU, by the library that PyTorch is made of.
//!
//! Operations are written with libtorch's own, whose autograd computes gradients, in the arithmetic of PyTorch's autocast:
//! with bf16, products and attention read operands that are rounded to bf16, while parameters, sums, norms, losses and the
//! residual stream are f32. Tensors are f32 from one operation to the next.
//!
//! The host only queues work. Values cross between host and device in `Operations::tensor`, `Operations::read` and where
//! images, masks, targets and weights of losses come in; `Libtorch::transfers` counts it.
//!
//! Results are not the same bits as the CPU backend's, nor on any number of threads: libtorch chooses how sums are divided.
//!
//! Without the feature `tch` this crate is empty, so that a workspace builds where no libtorch is.

#![cfg(feature = "tch")]
#![deny(unsafe_code)]

mod device;
mod error;
mod gradient_reduction;
mod graphs;
mod layouts;
mod ops;
mod optimizer;
mod product_peak;
#[allow(unsafe_code, reason = "calls of C++")]
mod shim;
mod store;
#[allow(unsafe_code, reason = "calls of C++")]
mod streams;
mod transfer;

pub use device::LibtorchDevice;
pub use error::{LibtorchError, OutOfMemory, guarded};
pub use shim::{OperatorUse, count_operators};
pub use streams::record_graphs_on_the_cpu;
pub use transfer::Transfers;

use graphs::Graphs;
use layouts::Layouts;
use simmim_engine::{
    AttentionBranch, Backend, Collective, CollectiveError, CrossEntropy, Images, Laplace, LayerNorm, Linear, MlpBranch,
    Operations, OptimizerStep, ParameterId, ParameterTable, PositionMlp, Precision, Regression, Segment, Slot,
    SoftLabels,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use store::Store;
use tch::{Kind, Tensor, no_grad, with_grad};
use transfer::Transfers as Counted;

/// The libtorch backend. Clones are the same backend.
#[derive(Clone)]
pub struct Libtorch {
    state: Rc<State>,
}

struct State {
    table: ParameterTable,
    precision: Precision,
    device: tch::Device,
    store: RefCell<Store>,
    is_recording: Cell<bool>,
    layouts: RefCell<Layouts>,
    /// The position bias that was looked up last, since blocks may share it.
    expanded_bias: RefCell<Option<ops::position_bias::ExpandedBias>>,
    transfers: Cell<Counted>,
    /// A value on the device, by which the shim knows it.
    place: Tensor,
    graphs: RefCell<Graphs>,
}

/// A tensor of [`Libtorch`]: f32, on the device.
pub struct LibtorchTensor(Tensor);

impl Clone for LibtorchTensor {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

impl Libtorch {
    /// A backend for the parameters of `table`, all of them zero.
    fn new(table: ParameterTable, precision: Precision, device: tch::Device, has_graphs: bool) -> Self {
        let state = State {
            store: RefCell::new(Store::new(&table, device)),
            table,
            precision,
            device,
            is_recording: Cell::new(false),
            layouts: RefCell::default(),
            expanded_bias: RefCell::default(),
            transfers: Cell::default(),
            place: Tensor::zeros([1], (Kind::Float, device)),
            graphs: RefCell::new(Graphs::new(has_graphs)),
        };
        Self { state: Rc::new(state) }
    }

    /// How often values crossed between host and device since the backend was opened.
    pub fn transfers(&self) -> Transfers {
        self.state.transfers.get()
    }

    /// How many passes were replayed since the backend was opened.
    pub fn replays(&self) -> u64 {
        self.state.graphs.borrow().replays()
    }

    fn is_recording(&self) -> bool {
        self.state.is_recording.get()
    }

    /// Runs something with autograd recording or not, and then goes on as before.
    fn record_as<T>(&self, is_recording: bool, run: impl FnOnce() -> T) -> T {
        let before = self.state.is_recording.replace(is_recording);
        let shared = self.state.expanded_bias.take(); // of the other graph
        let done = if is_recording { with_grad(run) } else { no_grad(run) };
        self.state.expanded_bias.replace(shared);
        self.state.is_recording.set(before);
        done
    }

    /// Runs an operation, and records it if a tape is recording.
    ///
    /// `run` must not bring anything from the host that differs from pass to pass: where passes are replayed it does not run.
    fn op(&self, run: impl FnOnce() -> Tensor) -> LibtorchTensor {
        self.op_of(&[], run)
    }

    /// Runs an operation that depends on these numbers.
    fn op_of(&self, numbers: &[f64], run: impl FnOnce() -> Tensor) -> LibtorchTensor {
        let run = || if self.is_recording() { with_grad(run) } else { no_grad(run) };
        LibtorchTensor(self.computed(numbers, run))
    }

    /// Images' factors, `[B, 1, 1]`.
    fn upload_scale(&self, scale: Option<&[f32]>) -> Option<Tensor> {
        scale.map(|scale| self.upload(&[scale.len() as i64, 1, 1], scale))
    }

    /// A parameter as a leaf of the graph.
    fn leaf(&self, id: ParameterId) -> Tensor {
        self.state.store.borrow().leaf(id).shallow_clone()
    }

    /// A parameter in the type of operands of products.
    fn operand(&self, id: ParameterId) -> Tensor {
        self.to_operand(&self.leaf(id))
    }

    /// The type of operands of products.
    fn operand_kind(&self) -> Kind {
        match self.state.precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        }
    }

    fn to_operand(&self, x: &Tensor) -> Tensor {
        x.to_kind(self.operand_kind())
    }
}

/// Sizes as libtorch has them.
fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|n| *n as i64).collect()
}

impl Operations for Libtorch {
    type Tensor = LibtorchTensor;

    fn tensor(&self, shape: &[usize], data: &[f32]) -> LibtorchTensor {
        self.no_graph_can();
        let tensor = self.upload(&sizes(shape), data);
        LibtorchTensor(if self.is_recording() { tensor.set_requires_grad(true) } else { tensor })
    }

    fn shape(&self, x: &LibtorchTensor) -> Vec<usize> {
        x.0.size().iter().map(|n| *n as usize).collect()
    }

    fn read(&self, x: &LibtorchTensor) -> Vec<f32> {
        self.download(&x.0)
    }

    fn reshape(&self, x: &LibtorchTensor, shape: &[usize]) -> LibtorchTensor {
        self.op(|| x.0.reshape(sizes(shape)))
    }

    fn parameter(&self, id: ParameterId) -> LibtorchTensor {
        LibtorchTensor(self.leaf(id))
    }

    fn patch_embed(&self, images: &Images, patch: (usize, usize), linear: &Linear) -> LibtorchTensor {
        let pixels = self.upload(&sizes(&[images.count, images.channels, images.height, images.width]), images.pixels);
        self.op(|| ops::patch_embed::forward(self, &pixels, patch, linear))
    }

    fn mask_tokens(&self, x: &LibtorchTensor, hidden: &[bool], mask_token: ParameterId) -> LibtorchTensor {
        let hidden = self.upload(&[x.0.size()[0], x.0.size()[1], 1], hidden);
        self.op(|| ops::tokens::mask(self, &x.0, &hidden, mask_token))
    }

    fn prepend_tokens(&self, x: &LibtorchTensor, tokens: ParameterId) -> LibtorchTensor {
        self.op(|| ops::tokens::prepend(self, &x.0, tokens))
    }

    fn add_positions(&self, x: &LibtorchTensor, positions: ParameterId) -> LibtorchTensor {
        self.op(|| &x.0 + self.leaf(positions))
    }

    fn attention_branch(
        &self,
        x: &LibtorchTensor,
        branch: &AttentionBranch,
        bias_table: Option<&LibtorchTensor>,
        drop_path_scale: Option<&[f32]>,
    ) -> LibtorchTensor {
        let table = bias_table.map(|table| &table.0);
        let scale = self.upload_scale(drop_path_scale);
        self.op(|| ops::attention_branch::forward(self, &x.0, branch, table, scale.as_ref()))
    }

    fn continuous_position_bias(&self, offsets: &[f32], mlp: &PositionMlp) -> LibtorchTensor {
        let offsets = self.upload(&[offsets.len() as i64 / 2, 2], offsets);
        self.op(|| ops::position_bias::continuous(self, &offsets, mlp))
    }

    fn mlp_branch(&self, x: &LibtorchTensor, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> LibtorchTensor {
        let scale = self.upload_scale(drop_path_scale);
        self.op(|| ops::mlp_branch::forward(self, &x.0, branch, scale.as_ref()))
    }

    fn recompute(&self, x: &LibtorchTensor, segment: Segment<Self>) -> LibtorchTensor {
        ops::recompute::forward(self, x, segment)
    }

    fn frozen(&self, x: &LibtorchTensor, segment: Segment<Self>) -> LibtorchTensor {
        // recorded all the same: without, attention is computed in another way, which has other bits
        let x = LibtorchTensor(x.0.detach());
        LibtorchTensor(self.record_as(self.is_recording(), || segment(self, &x)).0.detach())
    }

    fn layer_norm(&self, x: &LibtorchTensor, norm: &LayerNorm) -> LibtorchTensor {
        self.op(|| ops::linear::layer_norm(self, &x.0, norm))
    }

    fn linear(&self, x: &LibtorchTensor, linear: &Linear) -> LibtorchTensor {
        self.op(|| ops::linear::linear(self, &x.0, linear).to_kind(Kind::Float))
    }

    fn gelu(&self, x: &LibtorchTensor) -> LibtorchTensor {
        self.op(|| x.0.gelu("none"))
    }

    fn gather_rows(&self, x: &LibtorchTensor, rows: &[u32]) -> LibtorchTensor {
        let sources = x.0.numel() / x.0.size().last().map_or(1, |width| *width as usize);
        let rows: Vec<Option<usize>> = rows.iter().map(|row| Some(*row as usize)).collect();
        let permutation = self.permutation(&rows, sources);
        self.op(|| permutation.apply(&x.0.flatten(0, -2)))
    }

    fn mean_tokens(&self, x: &LibtorchTensor) -> LibtorchTensor {
        self.op(|| x.0.mean_dim(1, false, Kind::Float))
    }

    fn regression(&self, prediction: &LibtorchTensor, loss: &Regression) -> LibtorchTensor {
        let inputs = ops::losses::regression_inputs(self, &prediction.0, loss);
        self.op(|| ops::losses::regression(&prediction.0, loss, &inputs))
    }

    fn cross_entropy(&self, logits: &LibtorchTensor, loss: &CrossEntropy) -> LibtorchTensor {
        let inputs = ops::losses::cross_entropy_inputs(self, &logits.0, loss);
        self.op(|| ops::losses::cross_entropy(&logits.0, loss, &inputs))
    }

    fn soft_labels(&self, logits: &LibtorchTensor, loss: &SoftLabels) -> LibtorchTensor {
        let size = logits.0.size();
        let [target, weight] = [loss.target, loss.weight].map(|values| self.upload(&size, values));
        self.op(|| ops::losses::soft_labels(&logits.0, loss.labels, &target, &weight))
    }

    fn convolution(&self, x: &LibtorchTensor, linear: &Linear) -> LibtorchTensor {
        self.op(|| ops::images::convolution(self, &x.0, linear))
    }

    fn relu(&self, x: &LibtorchTensor) -> LibtorchTensor {
        self.op(|| x.0.relu())
    }

    fn max_pool(&self, x: &LibtorchTensor) -> LibtorchTensor {
        self.op(|| ops::images::max_pool(&x.0))
    }

    fn upsample(&self, x: &LibtorchTensor) -> LibtorchTensor {
        self.op(|| ops::images::upsample(&x.0))
    }

    fn add(&self, x: &LibtorchTensor, factor: f32, y: &LibtorchTensor) -> LibtorchTensor {
        self.op_of(&[f64::from(factor)], || &x.0 + f64::from(factor) * &y.0)
    }

    fn gumbel_softmax(&self, logits: &LibtorchTensor, noise: &[f32], temperature: f32) -> LibtorchTensor {
        let noise = self.upload(&logits.0.size(), noise);
        let temperature = f64::from(temperature);
        self.op_of(&[temperature], || ((&logits.0 + noise) / temperature).softmax(-1, Kind::Float))
    }

    fn laplace(&self, prediction: &LibtorchTensor, loss: &Laplace) -> LibtorchTensor {
        let target = self.upload(&ops::losses::half_as_wide(&prediction.0), loss.target);
        self.op(|| ops::losses::laplace(&prediction.0, &target))
    }

    fn uniform_divergence(&self, logits: &LibtorchTensor) -> LibtorchTensor {
        self.op(|| ops::losses::uniform_divergence(&logits.0))
    }
}

impl Backend for Libtorch {
    fn table(&self) -> &ParameterTable {
        &self.state.table
    }

    fn precision(&self) -> Precision {
        self.state.precision
    }

    fn is_asynchronous(&self) -> bool {
        true // also of the CPU, where it is not, so that all devices go the same way
    }

    fn start(&self, recording: bool) {
        self.state.is_recording.set(recording);
        self.state.expanded_bias.take();
        self.state.layouts.borrow_mut().forget_unused();
        self.begin_pass(recording);
    }

    fn backward(&self, loss: &LibtorchTensor) {
        assert_eq!(loss.0.numel(), 1, "only a scalar can be differentiated");
        self.state.expanded_bias.take();
        self.end_pass(&loss.0);
    }

    fn backward_and_reduce(
        &self,
        loss: &LibtorchTensor,
        collective: &mut dyn Collective,
    ) -> Result<bool, CollectiveError> {
        self.backward(loss);
        match collective.world() == 1 || self.must_repeat() {
            true => Ok(true),
            false => gradient_reduction::reduce(self, collective),
        }
    }

    fn backward_to(&self, loss: &LibtorchTensor, of: &LibtorchTensor) -> Vec<f32> {
        self.backward(loss);
        let gradient = of.0.grad();
        if gradient.defined() { self.download(&gradient) } else { vec![0.0; of.0.numel()] }
    }

    fn read_parameter(&self, slot: Slot, id: ParameterId) -> Vec<f32> {
        let part = self.state.store.borrow().part(slot, id);
        part.map_or_else(|| vec![0.0; self.state.table.get(id).range.len()], |part| self.download(&part))
    }

    fn write_parameter(&self, slot: Slot, id: ParameterId, values: &[f32]) {
        let mut part = self.state.store.borrow_mut().part_mut(slot, id);
        let values = self.upload(&part.size(), values);
        no_grad(|| part.copy_(&values));
    }

    fn must_repeat(&self) -> bool {
        self.state.graphs.borrow().must_repeat()
    }

    fn clear_gradients(&self) {
        self.state.graphs.borrow_mut().gradients_are_clear();
        self.state.store.borrow().clear_gradients();
    }

    fn step(&self, step: &OptimizerStep) -> LibtorchTensor {
        LibtorchTensor(no_grad(|| optimizer::step(self, step)))
    }

    fn update_average(&self, decay: f32) {
        self.state.store.borrow_mut().update_average(1.0 - f64::from(decay));
    }

    fn swap_average(&self) {
        self.state.store.borrow_mut().swap_average();
    }
}
