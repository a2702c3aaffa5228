//! What training needs around the operations: a tape, the parameters' buffers, gradients that several ranks add up, and
//! the optimizer.
//!
//! Nothing here says where values live. A value crosses to the host only where a caller asks for it by name: named
//! parameters at checkpoints, scalars such as a loss or a norm when they are logged.

use crate::collective::{Collective, CollectiveError};
use crate::operations::{Operations, Precision};
use crate::parameters::{ParameterId, ParameterTable};
use std::ops::Range;

/// Which of the flat buffers behind the parameter table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The parameters, f32 master copy.
    Values,
    /// Their gradients, summed over every backward pass since they were last cleared.
    Gradients,
    /// AdamW's first moment.
    FirstMoment,
    /// AdamW's second moment.
    SecondMoment,
    /// The exponential moving average of the parameters; equal to them until [`Backend::update_average`] is called.
    Average,
}

/// What of the training state is divided over the ranks, each of which keeps a part (ZeRO, arXiv:1910.02054).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharding {
    /// Nothing: every rank keeps all of it.
    #[default]
    None,
    /// AdamW's moments and the average: stage 1.
    Optimizer,
    /// Those, and gradients as soon as they are summed: stage 2.
    Gradients,
}

/// Learning rate and weight decay of one parameter at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSize {
    /// Learning rate.
    pub lr: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// One optimizer step: clipping, then AdamW (arXiv:1711.05101).
#[derive(Clone, Copy, Debug)]
pub struct OptimizerStep<'a> {
    /// Number of this step, from 1: the exponent of the bias corrections.
    pub number: u64,
    /// Decay rates of the two moments.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Factor on the gradients, which are those of a sum: one over what the loss is divided by.
    pub gradient_scale: f64,
    /// Norm of all scaled gradients together that is clipped to, or none for no clipping.
    pub clip_norm: Option<f64>,
    /// Learning rate and decay of each parameter, in the table's order.
    pub step_sizes: &'a [StepSize],
}

impl OptimizerStep<'_> {
    /// The clipping coefficient for gradients of this norm, as torch's `clip_grad_norm_`: the 1e-6 is its own.
    pub fn clip_coefficient(&self, norm: f64) -> f64 {
        self.clip_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0))
    }
}

/// What training needs around the operations.
pub trait Backend: Operations {
    /// The parameters' names, shapes and ranges.
    fn table(&self) -> &ParameterTable;

    /// The arithmetic in use.
    fn precision(&self) -> Precision;

    /// Whether calls return before the device has done what they ask for. Then only a caller that reads values waits.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// Forgets the tape; records from here on if `recording`.
    fn start(&self, recording: bool);

    /// Adds the gradients of a scalar to every parameter's, and forgets the tape. The scalar is not read: on a device
    /// that computes asynchronously nothing waits for it.
    fn backward(&self, loss: &Self::Tensor);

    /// Whether the pass that has just ended computed nothing, because a backend that expected another one noticed too late: then
    /// it is to be done again, from [`Backend::start`] on.
    fn must_repeat(&self) -> bool {
        false
    }

    /// [`Backend::backward`], then sums the gradients of all ranks. The gradients are summed in buckets, each as
    /// soon as no operation left on the tape can add to it, while the rest of the pass is still to come. Returns whether
    /// what this rank put in was finite, which the sum does not show; a rank alone does not look. Of gradients that are
    /// divided, this rank gets its part.
    ///
    /// # Errors
    /// If another rank is lost.
    fn backward_and_reduce(
        &self,
        loss: &Self::Tensor,
        collective: &mut dyn Collective,
    ) -> Result<bool, CollectiveError>;

    /// [`Backend::backward`] that also returns the gradient of a tensor made by [`Operations::tensor`].
    ///
    /// # Shapes
    /// That of `of`; zeros if nothing used it.
    fn backward_to(&self, loss: &Self::Tensor, of: &Self::Tensor) -> Vec<f32>;

    /// Divides the training state over `world` ranks, of which this is `rank`: it keeps its part, and the others theirs. Called
    /// once, before anything but the parameters is written or computed. What is kept has the bits that it has where nothing
    /// is divided.
    ///
    /// # Panics
    /// If the backend cannot, which [`Device::divides_state`](crate::Device::divides_state) says.
    fn shard(&self, sharding: Sharding, rank: usize, world: usize) {
        assert!(
            sharding == Sharding::None || world == 1,
            "rank {rank} of {world} keeps all: {sharding:?} is not built here"
        );
    }

    /// Bytes that this rank holds of a flat buffer now; where a backend does not count them, those of the whole buffer.
    fn kept_bytes(&self, _slot: Slot) -> usize {
        size_of::<f32>() * self.table().len()
    }

    /// Which of a parameter's values in a flat buffer this rank keeps, in their order; the other ranks keep the rest.
    fn kept_ranges(&self, _slot: Slot, id: ParameterId) -> Vec<Range<usize>> {
        std::iter::once(0..self.table().get(id).range.len()).collect()
    }

    /// [`Backend::read_parameter`] where the state is divided: the parts of all ranks, which all call it.
    ///
    /// # Errors
    /// If another rank is lost.
    fn gather_parameter(
        &self,
        slot: Slot,
        id: ParameterId,
        _collective: &mut dyn Collective,
    ) -> Result<Vec<f32>, CollectiveError> {
        Ok(self.read_parameter(slot, id))
    }

    /// Copies one parameter's part of a flat buffer to the host. What other ranks keep of it is zero.
    fn read_parameter(&self, slot: Slot, id: ParameterId) -> Vec<f32>;

    /// Replaces one parameter's part of a flat buffer from the host. What other ranks keep of it is left out.
    ///
    /// # Panics
    /// If the length differs from the parameter's.
    fn write_parameter(&self, slot: Slot, id: ParameterId, values: &[f32]);

    /// Copies a whole flat buffer to the host.
    fn read_slot(&self, slot: Slot) -> Vec<f32> {
        (0..self.table().iter().len()).flat_map(|i| self.read_parameter(slot, ParameterId(i))).collect()
    }

    /// Replaces a whole flat buffer from the host.
    ///
    /// # Panics
    /// If the length differs from the table's.
    fn write_slot(&self, slot: Slot, values: &[f32]) {
        assert_eq!(values.len(), self.table().len(), "one value per parameter element");
        for (i, parameter) in self.table().iter().enumerate() {
            self.write_parameter(slot, ParameterId(i), &values[parameter.range.clone()]);
        }
    }

    /// Sets all gradients to zero.
    fn clear_gradients(&self);

    /// Scales and clips the gradients and makes one AdamW step of every parameter. Returns the norm of the scaled gradients
    /// before clipping; where it is not finite, nothing is changed.
    ///
    /// # Shapes
    /// → `[1]`.
    ///
    /// # Panics
    /// If the state is divided over several ranks: see [`Backend::step_on_ranks`].
    fn step(&self, step: &OptimizerStep) -> Self::Tensor;

    /// [`Backend::step`] of all ranks together: where the state is divided, each one makes the step of its part, and all get
    /// the new parameters.
    ///
    /// # Errors
    /// If another rank is lost.
    fn step_on_ranks(
        &self,
        step: &OptimizerStep,
        _collective: &mut dyn Collective,
    ) -> Result<Self::Tensor, CollectiveError> {
        Ok(self.step(step))
    }

    /// Moves the average toward the parameters: `average += (1 − decay)·(values − average)`.
    fn update_average(&self, decay: f32);

    /// Exchanges the parameters and their average; a second call undoes the first.
    ///
    /// # Panics
    /// If the average is divided over several ranks.
    fn swap_average(&self);

    /// The time spent in operations since the last call, in the order of their first use; empty where a backend does not
    /// measure it.
    fn take_profile(&self) -> Vec<OperationTime> {
        Vec::new()
    }
}

/// Direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Outputs from inputs.
    Forward,
    /// Gradients.
    Backward,
    /// Clipping and the optimizer.
    Step,
}

/// Time spent in one operation, without the operations that it calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperationTime {
    /// The operation.
    pub operation: &'static str,
    /// Its direction.
    pub direction: Direction,
    /// Seconds in all.
    pub seconds: f64,
    /// How often it ran.
    pub count: usize,
}
