//! The CPU backend: kernels on a fixed pool, a tape, buffers that are used again.
//!
//! Work is divided into chunks of rows that stay in cache from one end of a branch to the other; attention is
//! divided by heads; weight gradients follow with all tokens at once, divided by rows of the weight. Workers
//! take what comes next, but the division is fixed and sums are added in its order, so the same inputs give
//! the same bits on any number of threads.

mod buffers;
mod chunks;
mod kept;
mod ops;
mod optimizer;
mod packed;
mod profile;
mod store;
mod tape;
mod threads;

use crate::backend::{
    AttentionBranch, Backend, Block, CrossEntropy, Images, Laplace, LayerNorm, Linear, MlpBranch, Operations,
    PositionMlp, Precision, Regression, Slot, SoftLabels, Update,
};
use crate::parameters::{ParameterId, ParameterTable};
use buffers::Buffer;
use chunks::Chunks;
use kept::Shelves;
use packed::PackedWeights;
use profile::Profile;
pub use profile::{Pass, Spent};
use simmim_kernels::element::{Bf16, Element};
use simmim_kernels::product::Tile;
use std::cell::RefCell;
use std::rc::Rc;
use store::Store;
use tape::{Gradients, NodeId, Tape};
use threads::Threads;

/// The CPU backend.
pub struct Cpu {
    table: Rc<ParameterTable>,
    precision: Precision,
    threads: Threads,
    /// Instructions of the products.
    tile: Tile,
    shelves: Shelves,
    store: RefCell<Store>,
    packed: RefCell<PackedWeights>,
    tape: RefCell<Tape>,
    profile: RefCell<Profile>,
    expanded: RefCell<Option<ops::bias::Expanded>>,
}

/// A tensor of the CPU backend: shared values and a place on the tape.
#[derive(Clone)]
pub struct CpuTensor {
    node: NodeId,
    shape: Rc<[usize]>,
    data: Rc<Buffer<f32>>,
}

impl CpuTensor {
    /// Length of the last axis.
    fn width(&self) -> usize {
        *self.shape.last().expect("a tensor has at least one axis")
    }

    /// Product of all axes but the last.
    fn rows(&self) -> usize {
        self.data.len() / self.width()
    }

    /// The sizes of a `[B, N, D]` tensor.
    fn tokens_shape(&self) -> (usize, usize, usize) {
        match self.shape[..] {
            [images, tokens, width] => (images, tokens, width),
            _ => panic!("expected [B, N, D], got {:?}", self.shape),
        }
    }

    /// The sizes of a `[B, H, W, C]` tensor.
    fn image_shape(&self) -> (usize, usize, usize, usize) {
        match self.shape[..] {
            [images, height, width, channels] => (images, height, width, channels),
            _ => panic!("expected [B, H, W, C], got {:?}", self.shape),
        }
    }
}

impl Cpu {
    /// A backend for the parameters of `table`, all zero, on `threads` worker threads.
    pub fn new(table: ParameterTable, precision: Precision, threads: usize) -> Self {
        let table = Rc::new(table);
        Self {
            store: RefCell::new(Store::new(Rc::clone(&table))),
            table,
            precision,
            threads: Threads::new(threads),
            tile: Tile::detect(),
            shelves: Shelves::default(),
            packed: RefCell::default(),
            tape: RefCell::default(),
            profile: RefCell::default(),
            expanded: RefCell::default(),
        }
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// [`Backend::backward`] that also returns the gradient of a tensor made by [`Operations::tensor`].
    ///
    /// # Shapes
    /// The gradient is as long as `of`; zeros if nothing used it.
    pub fn backward_with_gradient_of(&self, loss: &CpuTensor, of: &CpuTensor) -> Vec<f32> {
        self.walk_back(loss).take(of.node).map_or_else(|| vec![0.0; of.data.len()], |d| d.to_vec())
    }

    fn walk_back(&self, loss: &CpuTensor) -> Gradients {
        assert_eq!(loss.data.len(), 1, "only a scalar has a gradient to start from");
        let records = self.tape.borrow_mut().take_records();
        let mut gradients = Gradients::default();
        gradients.add(loss.node, self.shelves.f32.copy(&[1.0]));
        tape::walk_back(self, records, &mut gradients);
        gradients
    }

    /// Division of `rows` whose widest operand has `columns` values.
    fn chunks<E: Element>(&self, rows: usize, columns: usize) -> Chunks {
        Chunks::new(rows, columns * size_of::<E>())
    }

    fn update_in<E: Element>(&self, update: &Update) {
        self.timed("adamw and forward panels", Pass::Update, || optimizer::update::<E>(self, update));
        self.timed("backward panels", Pass::Update, || self.repack::<E>());
    }

    fn is_recording(&self) -> bool {
        self.tape.borrow().is_recording()
    }

    /// A tensor with a new place on the tape.
    fn new_tensor(&self, shape: &[usize], data: Buffer<f32>) -> CpuTensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "values do not fill shape {shape:?}");
        CpuTensor { node: self.tape.borrow_mut().node(), shape: shape.into(), data: Rc::new(data) }
    }

    /// An operation's output, recorded with what `backward` keeps if a tape is running.
    fn output<T: tape::Backward + 'static>(
        &self,
        shape: &[usize],
        data: Buffer<f32>,
        backward: impl FnOnce() -> T,
    ) -> CpuTensor {
        let tensor = self.new_tensor(shape, data);
        if self.is_recording() {
            self.tape.borrow_mut().record(tensor.node, backward());
        }
        tensor
    }
}

impl Operations for Cpu {
    type Tensor = CpuTensor;

    fn tensor(&self, shape: &[usize], data: &[f32]) -> CpuTensor {
        self.new_tensor(shape, self.shelves.f32.copy(data))
    }

    fn shape(&self, x: &CpuTensor) -> Vec<usize> {
        x.shape.to_vec()
    }

    fn read(&self, x: &CpuTensor) -> Vec<f32> {
        x.data.to_vec()
    }

    fn reshape(&self, x: &CpuTensor, shape: &[usize]) -> CpuTensor {
        assert_eq!(shape.iter().product::<usize>(), x.data.len(), "{:?} does not reshape to {shape:?}", x.shape);
        CpuTensor { shape: shape.into(), ..x.clone() } // the same node: gradients are flat
    }

    fn parameter(&self, id: ParameterId) -> CpuTensor {
        self.timed("parameter", Pass::Forward, || ops::parameter::forward(self, id))
    }

    fn patch_embed(&self, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
        self.timed("patch embed", Pass::Forward, || ops::patch_embed::forward(self, images, patch, linear))
    }

    fn hide(&self, x: &CpuTensor, hidden: &[bool], mask_token: ParameterId) -> CpuTensor {
        self.timed("hide", Pass::Forward, || ops::hide::forward(self, x, hidden, mask_token))
    }

    fn prepend_token(&self, x: &CpuTensor, token: ParameterId) -> CpuTensor {
        self.timed("prepend token", Pass::Forward, || ops::prepend_token::forward(self, x, token))
    }

    fn add_positions(&self, x: &CpuTensor, positions: ParameterId) -> CpuTensor {
        self.timed("add positions", Pass::Forward, || ops::add_positions::forward(self, x, positions))
    }

    fn attention_branch(
        &self,
        x: &CpuTensor,
        branch: &AttentionBranch,
        bias_table: Option<&CpuTensor>,
        keep: Option<&[f32]>,
    ) -> CpuTensor {
        self.timed("attention branch", Pass::Forward, || {
            ops::attention_branch::forward(self, x, branch, bias_table, keep)
        })
    }

    fn continuous_position_bias(&self, offsets: &[f32], mlp: &PositionMlp) -> CpuTensor {
        self.timed("position bias", Pass::Forward, || ops::position_bias::forward(self, offsets, mlp))
    }

    fn mlp_branch(&self, x: &CpuTensor, branch: &MlpBranch, keep: Option<&[f32]>) -> CpuTensor {
        self.timed("mlp branch", Pass::Forward, || ops::mlp_branch::forward(self, x, branch, keep))
    }

    fn recompute(&self, x: &CpuTensor, block: Block<Self>) -> CpuTensor {
        ops::recompute::forward(self, x, block)
    }

    fn layer_norm(&self, x: &CpuTensor, norm: &LayerNorm) -> CpuTensor {
        self.timed("layer norm", Pass::Forward, || ops::layer_norm::forward(self, x, norm))
    }

    fn linear(&self, x: &CpuTensor, linear: &Linear) -> CpuTensor {
        self.timed("linear", Pass::Forward, || ops::linear::forward(self, x, linear))
    }

    fn gelu(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("gelu", Pass::Forward, || ops::gelu::forward(self, x))
    }

    fn gather_rows(&self, x: &CpuTensor, rows: &[u32]) -> CpuTensor {
        self.timed("gather rows", Pass::Forward, || ops::gather_rows::forward(self, x, rows))
    }

    fn mean_tokens(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("mean tokens", Pass::Forward, || ops::mean_tokens::forward(self, x))
    }

    fn regression(&self, prediction: &CpuTensor, loss: &Regression) -> CpuTensor {
        self.timed("regression", Pass::Forward, || ops::regression::forward(self, prediction, loss))
    }

    fn cross_entropy(&self, logits: &CpuTensor, loss: &CrossEntropy) -> CpuTensor {
        self.timed("cross entropy", Pass::Forward, || ops::cross_entropy::forward(self, logits, loss))
    }

    fn soft_labels(&self, logits: &CpuTensor, loss: &SoftLabels) -> CpuTensor {
        self.timed("soft labels", Pass::Forward, || ops::soft_labels::forward(self, logits, loss))
    }

    fn convolution(&self, x: &CpuTensor, linear: &Linear) -> CpuTensor {
        self.timed("convolution", Pass::Forward, || ops::convolution::forward(self, x, linear))
    }

    fn relu(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("relu", Pass::Forward, || ops::relu::forward(self, x))
    }

    fn max_pool(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("max pool", Pass::Forward, || ops::max_pool::forward(self, x))
    }

    fn upsample(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("upsample", Pass::Forward, || ops::upsample::forward(self, x))
    }

    fn add(&self, x: &CpuTensor, factor: f32, y: &CpuTensor) -> CpuTensor {
        self.timed("sum", Pass::Forward, || ops::sum::forward(self, x, factor, y))
    }

    fn gumbel_softmax(&self, logits: &CpuTensor, noise: &[f32], temperature: f32) -> CpuTensor {
        self.timed("gumbel softmax", Pass::Forward, || ops::gumbel_softmax::forward(self, logits, noise, temperature))
    }

    fn laplace(&self, prediction: &CpuTensor, loss: &Laplace) -> CpuTensor {
        self.timed("laplace", Pass::Forward, || ops::laplace::forward(self, prediction, loss))
    }

    fn uniform_divergence(&self, logits: &CpuTensor, denominator: f64) -> CpuTensor {
        self.timed("uniform divergence", Pass::Forward, || ops::uniform_divergence::forward(self, logits, denominator))
    }
}

impl Backend for Cpu {
    fn table(&self) -> &ParameterTable {
        &self.table
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn start(&self, recording: bool) {
        *self.tape.borrow_mut() = Tape::new(recording);
        self.expanded.take();
    }

    fn backward(&self, loss: &CpuTensor) {
        self.walk_back(loss);
    }

    fn read_slot(&self, slot: Slot) -> Vec<f32> {
        self.store.borrow_mut().copy_of(slot)
    }

    fn write_slot(&self, slot: Slot, values: &[f32]) {
        self.store.borrow_mut().slot_mut(slot).copy_from_slice(values);
    }

    fn edit_slot(&self, slot: Slot, edit: &mut dyn FnMut(&mut [f32])) {
        edit(self.store.borrow_mut().slot_mut(slot));
    }

    fn clear_gradients(&self) {
        self.store.borrow_mut().clear_gradients();
    }

    fn gradient_norm(&self) -> f64 {
        self.timed("gradient norm", Pass::Update, || optimizer::gradient_norm(self))
    }

    fn update(&self, update: &Update) {
        match self.precision {
            Precision::F32 => self.update_in::<f32>(update),
            Precision::Bf16 => self.update_in::<Bf16>(update),
        }
    }
}
