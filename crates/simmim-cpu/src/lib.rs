//! The CPU backend of simmim: a tape, pools of buffers and worker threads around the kernels.
//!
//! The rows of a batch are divided into chunks that stay in the cache from the first layer of a residual branch to the
//! last. Attention goes with whole windows where they are few rows, and is otherwise divided by heads between two phases by
//! rows. A weight gradient is computed after the chunks, from all tokens at once, and divided by rows of the weight.
//!
//! A worker takes the next task whenever it is free. But where it would change a sum, how the work is divided does not depend on the number of
//! workers, and sums over tasks are added in the order of the tasks. So the same inputs give the same bits on any
//! number of threads.
//!
//! ```
//! use simmim_cpu::CpuDevice;
//! use simmim_engine::{Backend, Device, Linear, Operations, ParameterTable, Precision};
//! use simmim_engine::{Distance, OptimizerStep, Regression, Slot, StepSize};
//!
//! let mut table = ParameterTable::default();
//! let linear = Linear { weight: table.add("weight", &[1, 2]), bias: Some(table.add("bias", &[1])) };
//! let b = CpuDevice { threads: 2 }.open(table, Precision::F32);
//! b.write_slot(Slot::Values, &[2.0, 3.0, 0.5]);
//!
//! // y = x·Wᵀ + b, and the loss (y − 300)²
//! b.start(true);
//! let x = b.tensor(&[1, 2], &[10.0, 100.0]);
//! let y = b.linear(&x, &linear);
//! assert_eq!(b.read(&y), [320.5]);
//! let loss = Regression { distance: Distance::L2, target: &[300.0], weight: &[1.0], channels: 1 };
//! let loss = b.regression(&y, &loss);
//!
//! // d_y = 2·(y − 300) = 41, d_W = d_y·x, d_b = d_y
//! b.backward(&loss);
//! assert_eq!(b.read_slot(Slot::Gradients), [410.0, 4100.0, 41.0]);
//!
//! // the first step of AdamW moves each value by the learning rate
//! let step_sizes = [StepSize { lr: 0.1, weight_decay: 0.0 }; 2];
//! let (betas, step_sizes) = ((0.9, 0.999), step_sizes.as_slice());
//! b.step(&OptimizerStep { number: 1, betas, eps: 1e-8, gradient_scale: 1.0, clip_norm: None, step_sizes });
//! for (value, expected) in b.read_slot(Slot::Values).iter().zip([1.9, 2.9, 0.4]) {
//!     assert!((value - expected).abs() < 1e-5);
//! }
//! ```

#![forbid(unsafe_code)]

mod buffer_pool;
mod chunks;
mod device;
mod gradient_reduction;
mod gradients;
mod ops;
mod optimizer;
mod packed_activations;
mod packed_weights;
mod pools;
mod product_peak;
mod profile;
mod scratch_pool;
mod shard;
mod store;
mod tape;
mod tensor;
mod threads;

pub use device::CpuDevice;
pub use tensor::CpuTensor;

use buffer_pool::Buffer;
use chunks::{ChunkLimits, Chunks};
use gradient_reduction::GradientReduction;
use packed_weights::PackedWeights;
use pools::BufferPools;
use profile::Profile;
use simmim_engine::{
    Alone, AttentionBranch, Backend, Collective, CollectiveError, CrossEntropy, Direction, Images, Laplace, LayerNorm,
    Linear, MlpBranch, OperationTime, Operations, OptimizerStep, ParameterId, ParameterTable, PositionMlp, Precision,
    Regression, Segment, Sharding, Slot, SoftLabels,
};
use simmim_kernels::dtype::{Bf16, Dtype};
use simmim_kernels::product::Tile;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use store::Store;
use tape::{Gradients, Record, Tape};
use threads::Threads;

/// The CPU backend.
pub struct Cpu {
    table: Rc<ParameterTable>,
    precision: Precision,
    threads: Threads,
    /// The instructions that products use.
    tile: Tile,
    pools: BufferPools,
    store: RefCell<Store>,
    packed_weights: RefCell<PackedWeights>,
    tape: RefCell<Tape>,
    profile: RefCell<Profile>,
    /// The position bias that was looked up last, since blocks may share it.
    expanded_bias: RefCell<Option<ops::bias_table::ExpandedBias>>,
}

impl Cpu {
    /// A backend for the parameters of `table`, all of them zero, with `threads` worker threads.
    pub fn new(table: ParameterTable, precision: Precision, threads: usize) -> Self {
        Self::with_tile(table, precision, threads, Tile::detect())
    }

    /// A backend whose products use the instructions of `tile`.
    fn with_tile(table: ParameterTable, precision: Precision, threads: usize, tile: Tile) -> Self {
        let table = Rc::new(table);
        Self {
            store: RefCell::new(Store::new(&table)),
            table,
            precision,
            threads: Threads::new(threads),
            tile,
            pools: BufferPools::default(),
            packed_weights: RefCell::default(),
            tape: RefCell::default(),
            profile: RefCell::default(),
            expanded_bias: RefCell::default(),
        }
    }

    /// Takes the records from the tape, and returns them with the gradient of the loss, from which the backward pass
    /// starts.
    fn begin_backward(&self, loss: &CpuTensor) -> (Vec<Record>, Gradients) {
        assert_eq!(loss.data.len(), 1, "only a scalar can be differentiated");
        let mut gradients = Gradients::default();
        gradients.add(loss.node, self.pools.f32.copy(&[1.0]));
        (self.tape.borrow_mut().take_records(), gradients)
    }

    /// Runs the backward pass. The gradients that it returns are those of tensors that no operation computed.
    fn run_backward(&self, loss: &CpuTensor) -> Gradients {
        let (records, mut gradients) = self.begin_backward(loss);
        for record in records.into_iter().rev() {
            record.run_backward(self, &mut gradients);
        }
        gradients
    }

    /// Divides rows into chunks by the size of their widest operand, which has `columns` values in each row, or of the part
    /// of it that products read at once.
    fn chunks<T: Dtype>(&self, rows: usize, columns: usize) -> Chunks {
        let at_once = columns.min(self.tile.depth_of_pass::<T>());
        Chunks::new(rows, at_once * size_of::<T>(), self.chunk_limits::<T>())
    }

    /// Divides rows into chunks of whole groups, if these stay in the cache with all `columns` values of each row.
    fn chunks_of_groups<T: Dtype>(&self, rows: usize, columns: usize, group: usize) -> Option<Chunks> {
        Chunks::of_groups(rows, columns * size_of::<T>(), group, self.chunk_limits::<T>())
    }

    fn chunk_limits<T: Dtype>(&self) -> ChunkLimits {
        if self.tile.multiplies_tiles::<T>() { ChunkLimits::TILES } else { ChunkLimits::VECTORS }
    }

    /// Makes the optimizer step, and packs the weights that are stored from their new values, in the type of activations.
    ///
    /// # Errors
    /// If another rank is lost.
    fn step_in<T: Dtype>(
        &self,
        step: &OptimizerStep,
        factor: f64,
        collective: &mut dyn Collective,
    ) -> Result<(), CollectiveError> {
        if !self.store.borrow().shard().is_divided() {
            self.timed("adamw and panels", Direction::Step, || {
                optimizer::adamw_and_panels::<T>(self, step, factor);
            });
            return Ok(());
        }
        self.timed("adamw", Direction::Step, || optimizer::adamw_of_part(self, step, factor));
        self.timed("gather parameters", Direction::Step, || optimizer::gather_values(self, collective))?;
        self.timed("panels", Direction::Step, || self.repack::<T>());
        Ok(())
    }

    fn is_recording(&self) -> bool {
        self.tape.borrow().is_recording()
    }

    /// A tensor with a place of its own on the tape.
    fn new_tensor(&self, shape: &[usize], data: Buffer<f32>) -> CpuTensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "values do not fill shape {shape:?}");
        CpuTensor { node: self.tape.borrow_mut().node(), shape: shape.into(), data: Rc::new(data) }
    }

    /// The output of an operation without parameters. If a tape is recording, it records what `backward` saves.
    fn output<T: tape::Backward + 'static>(
        &self,
        shape: &[usize],
        data: Buffer<f32>,
        backward: impl FnOnce() -> T,
    ) -> CpuTensor {
        self.output_with_parameters(Vec::new(), shape, data, backward)
    }

    /// The output of an operation that reads `parameters`. If a tape is recording, it records what `backward` saves.
    fn output_with_parameters<T: tape::Backward + 'static>(
        &self,
        parameters: Vec<ParameterId>,
        shape: &[usize],
        data: Buffer<f32>,
        backward: impl FnOnce() -> T,
    ) -> CpuTensor {
        let tensor = self.new_tensor(shape, data);
        self.tape.borrow_mut().note_parameters(&parameters);
        if self.is_recording() {
            self.tape.borrow_mut().record(tensor.node, parameters, backward());
        }
        tensor
    }
}

impl Operations for Cpu {
    type Tensor = CpuTensor;

    fn tensor(&self, shape: &[usize], data: &[f32]) -> CpuTensor {
        self.new_tensor(shape, self.pools.f32.copy(data))
    }

    fn shape(&self, x: &CpuTensor) -> Vec<usize> {
        x.shape.to_vec()
    }

    fn read(&self, x: &CpuTensor) -> Vec<f32> {
        x.data.to_vec()
    }

    fn reshape(&self, x: &CpuTensor, shape: &[usize]) -> CpuTensor {
        assert_eq!(shape.iter().product::<usize>(), x.data.len(), "{:?} does not reshape to {shape:?}", x.shape);
        CpuTensor { shape: shape.into(), ..x.clone() } // the same place on the tape, as gradients have no shape
    }

    fn parameter(&self, id: ParameterId) -> CpuTensor {
        self.timed("parameter", Direction::Forward, || ops::parameter::forward(self, id))
    }

    fn patch_embed(&self, images: &Images, patch: (usize, usize), linear: &Linear) -> CpuTensor {
        self.timed("patch embed", Direction::Forward, || ops::patch_embed::forward(self, images, patch, linear))
    }

    fn mask_tokens(&self, x: &CpuTensor, hidden: &[bool], mask_token: ParameterId) -> CpuTensor {
        self.timed("mask tokens", Direction::Forward, || ops::mask_tokens::forward(self, x, hidden, mask_token))
    }

    fn prepend_tokens(&self, x: &CpuTensor, tokens: ParameterId) -> CpuTensor {
        self.timed("prepend tokens", Direction::Forward, || ops::prepend_tokens::forward(self, x, tokens))
    }

    fn add_positions(&self, x: &CpuTensor, positions: ParameterId) -> CpuTensor {
        self.timed("add positions", Direction::Forward, || ops::add_positions::forward(self, x, positions))
    }

    fn attention_branch(
        &self,
        x: &CpuTensor,
        branch: &AttentionBranch,
        bias_table: Option<&CpuTensor>,
        drop_path_scale: Option<&[f32]>,
    ) -> CpuTensor {
        self.timed("attention branch", Direction::Forward, || {
            ops::attention_branch::forward(self, x, branch, bias_table, drop_path_scale)
        })
    }

    fn continuous_position_bias(&self, offsets: &[f32], mlp: &PositionMlp) -> CpuTensor {
        self.timed("continuous position bias", Direction::Forward, || {
            ops::continuous_position_bias::forward(self, offsets, mlp)
        })
    }

    fn mlp_branch(&self, x: &CpuTensor, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> CpuTensor {
        self.timed("mlp branch", Direction::Forward, || ops::mlp_branch::forward(self, x, branch, drop_path_scale))
    }

    fn recompute(&self, x: &CpuTensor, segment: Segment<Self>) -> CpuTensor {
        ops::recompute::forward(self, x, segment)
    }

    fn frozen(&self, x: &CpuTensor, segment: Segment<Self>) -> CpuTensor {
        ops::recompute::without_backward(self, x, &segment)
    }

    fn layer_norm(&self, x: &CpuTensor, norm: &LayerNorm) -> CpuTensor {
        self.timed("layer norm", Direction::Forward, || ops::layer_norm::forward(self, x, norm))
    }

    fn linear(&self, x: &CpuTensor, linear: &Linear) -> CpuTensor {
        self.timed("linear", Direction::Forward, || ops::linear::forward(self, x, linear))
    }

    fn gelu(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("gelu", Direction::Forward, || ops::gelu::forward(self, x))
    }

    fn gather_rows(&self, x: &CpuTensor, rows: &[u32]) -> CpuTensor {
        self.timed("gather rows", Direction::Forward, || ops::gather_rows::forward(self, x, rows))
    }

    fn mean_tokens(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("mean tokens", Direction::Forward, || ops::mean_tokens::forward(self, x))
    }

    fn regression(&self, prediction: &CpuTensor, loss: &Regression) -> CpuTensor {
        self.timed("regression", Direction::Forward, || ops::regression::forward(self, prediction, loss))
    }

    fn cross_entropy(&self, logits: &CpuTensor, loss: &CrossEntropy) -> CpuTensor {
        self.timed("cross entropy", Direction::Forward, || ops::cross_entropy::forward(self, logits, loss))
    }

    fn soft_labels(&self, logits: &CpuTensor, loss: &SoftLabels) -> CpuTensor {
        self.timed("soft labels", Direction::Forward, || ops::soft_labels::forward(self, logits, loss))
    }

    fn convolution(&self, x: &CpuTensor, linear: &Linear) -> CpuTensor {
        self.timed("convolution", Direction::Forward, || ops::convolution::forward(self, x, linear))
    }

    fn relu(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("relu", Direction::Forward, || ops::relu::forward(self, x))
    }

    fn max_pool(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("max pool", Direction::Forward, || ops::max_pool::forward(self, x))
    }

    fn upsample(&self, x: &CpuTensor) -> CpuTensor {
        self.timed("upsample", Direction::Forward, || ops::upsample::forward(self, x))
    }

    fn add(&self, x: &CpuTensor, factor: f32, y: &CpuTensor) -> CpuTensor {
        self.timed("add", Direction::Forward, || ops::add::forward(self, x, factor, y))
    }

    fn gumbel_softmax(&self, logits: &CpuTensor, noise: &[f32], temperature: f32) -> CpuTensor {
        self.timed("gumbel softmax", Direction::Forward, || {
            ops::gumbel_softmax::forward(self, logits, noise, temperature)
        })
    }

    fn laplace(&self, prediction: &CpuTensor, loss: &Laplace) -> CpuTensor {
        self.timed("laplace", Direction::Forward, || ops::laplace::forward(self, prediction, loss))
    }

    fn uniform_divergence(&self, logits: &CpuTensor) -> CpuTensor {
        self.timed("uniform divergence", Direction::Forward, || ops::uniform_divergence::forward(self, logits))
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
        self.expanded_bias.take();
        self.pools.begin_pass();
    }

    fn backward(&self, loss: &CpuTensor) {
        self.run_backward(loss);
    }

    fn backward_and_reduce(&self, loss: &CpuTensor, collective: &mut dyn Collective) -> Result<bool, CollectiveError> {
        if collective.world() == 1 {
            self.backward(loss);
            return Ok(true);
        }
        let (mut records, mut gradients) = self.begin_backward(loss);
        let mut reduction = GradientReduction::new(&self.table, &records, collective);
        while let Some(mut record) = records.pop() {
            let parameters = std::mem::take(&mut record.parameters);
            record.run_backward(self, &mut gradients);
            reduction.record_done(self, &parameters)?;
        }
        reduction.finish(self)
    }

    fn backward_to(&self, loss: &CpuTensor, of: &CpuTensor) -> Vec<f32> {
        self.run_backward(loss).take(of.node).map_or_else(|| vec![0.0; of.data.len()], |d| d.to_vec())
    }

    fn shard(&self, sharding: Sharding, rank: usize, world: usize) {
        self.store.borrow_mut().divide(sharding, rank, world);
    }

    fn kept_bytes(&self, slot: Slot) -> usize {
        self.store.borrow().bytes(slot)
    }

    fn kept_ranges(&self, slot: Slot, id: ParameterId) -> Vec<Range<usize>> {
        let store = self.store.borrow();
        let range = store.range(id);
        match store.shard_of(slot) {
            None => std::iter::once(0..range.len()).collect(),
            Some(shard) => {
                let own = shard.own(range.clone()).map(|part| part.range);
                own.map(|part| part.start - range.start..part.end - range.start).collect()
            }
        }
    }

    fn gather_parameter(
        &self,
        slot: Slot,
        id: ParameterId,
        collective: &mut dyn Collective,
    ) -> Result<Vec<f32>, CollectiveError> {
        let mut own = self.read_parameter(slot, id);
        let store = self.store.borrow();
        let Some(shard) = store.shard_of(slot) else { return Ok(own) };
        let range = store.range(id);
        let within = |part: Range<usize>| part.start - range.start..part.end - range.start;
        let mut sorted = vec![0.0; own.len()];
        for (part, place) in shard.sorted(range.clone()) {
            sorted[place].copy_from_slice(&own[within(part.range)]);
        }
        collective.all_gather(&mut sorted, &shard.lens(range.clone()))?;
        for (part, place) in shard.sorted(range.clone()) {
            own[within(part.range)].copy_from_slice(&sorted[place]);
        }
        Ok(own)
    }

    fn read_parameter(&self, slot: Slot, id: ParameterId) -> Vec<f32> {
        self.store.borrow_mut().copy_of(slot, id)
    }

    fn write_parameter(&self, slot: Slot, id: ParameterId, values: &[f32]) {
        self.store.borrow_mut().write(slot, id, values);
    }

    fn clear_gradients(&self) {
        self.store.borrow_mut().gradients.clear();
    }

    fn step(&self, step: &OptimizerStep) -> CpuTensor {
        assert!(!self.store.borrow().shard().is_divided(), "the state is divided over ranks");
        self.step_on_ranks(step, &mut Alone).expect("a rank alone loses none")
    }

    fn step_on_ranks(
        &self,
        step: &OptimizerStep,
        collective: &mut dyn Collective,
    ) -> Result<CpuTensor, CollectiveError> {
        let raw = self.timed("gradient norm", Direction::Step, || optimizer::gradient_norm(self, collective))?;
        let norm = raw * step.gradient_scale;
        if (norm as f32).is_finite() {
            let factor = step.gradient_scale * step.clip_coefficient(norm);
            match self.precision {
                Precision::F32 => self.step_in::<f32>(step, factor, collective)?,
                Precision::Bf16 => self.step_in::<Bf16>(step, factor, collective)?,
            }
        }
        Ok(self.tensor(&[1], &[norm as f32]))
    }

    fn update_average(&self, decay: f32) {
        self.timed("average", Direction::Step, || optimizer::update_average(self, decay));
    }

    fn swap_average(&self) {
        self.store.borrow_mut().swap_average();
    }

    fn take_profile(&self) -> Vec<OperationTime> {
        self.take_times()
    }
}
