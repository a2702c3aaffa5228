//! What models compute with: a closed set of coarse differentiable operations, and the seams behind which they run.
//!
//! Models are written once, generic over [`Operations`]. Training needs a [`Backend`], which a [`Device`] opens, and a
//! [`Collective`] where several ranks train together. [`Reference`] runs the operations in plain f64 loops; it is the
//! specification that [`check`] holds every backend to, forward and backward.
//!
//! Nothing here knows a kernel, a mask, an image file or a model.
//!
//! ```
//! use simmim_engine::{Linear, Operations, ParameterTable, Reference};
//!
//! let mut table = ParameterTable::default();
//! let linear = Linear { weight: table.add("weight", &[1, 2]), bias: Some(table.add("bias", &[1])) };
//! let b = Reference::new(table, vec![2.0, 3.0, 0.5]);
//! let x = b.tensor(&[1, 2], &[10.0, 100.0]);
//! assert_eq!(b.read(&b.linear(&x, &linear)), [320.5]);
//! ```

#![forbid(unsafe_code)]

mod backend;
pub mod check;
mod collective;
mod device;
mod operations;
mod parameters;
mod reference;

pub use backend::{Backend, Direction, OperationTime, OptimizerStep, Sharding, Slot, StepSize};
pub use collective::{Activity, Alone, Collective, CollectiveError, InProcess, RankFailure, SendsBf16, Sum};
pub use device::{Accelerator, Device, ProductPeak};
pub use operations::{
    Activation, AttentionBranch, CrossEntropy, Distance, Images, Labels, Laplace, LayerNorm, Linear, MlpBranch,
    NormOrder, Operations, PositionMlp, Precision, QkvBias, Regression, Rotary, Segment, Similarity, SoftLabels,
    Windows,
};
pub use parameters::{Parameter, ParameterId, ParameterTable};
pub use reference::{Reference, ReferenceTensor};
