//! The engine: a closed set of coarse differentiable operations, and what runs them.
//!
//! Models are written once, generic over [`Operations`]. [`Cpu`] runs them fast and records a tape;
//! [`Reference`] runs them in plain f64 loops and is the specification that every backend is
//! checked against, forward and (by finite differences) backward.
//!
//! Nothing here knows a mask, an image file or a model.

#![forbid(unsafe_code)]

mod backend;
mod cpu;
mod parameters;
mod peak;
mod reference;

pub use backend::{
    AttentionBranch, Backend, Block, CrossEntropy, Images, Labels, Laplace, LayerNorm, Linear, MlpBranch, NormOrder,
    Operations, PositionMlp, Precision, QkvBias, Regression, Similarity, Slot, SoftLabels, StepSize, Update, Windows,
};
pub use cpu::{Cpu, CpuTensor, Pass, Spent};
pub use parameters::{Parameter, ParameterId, ParameterTable};
pub use peak::ProductPeak;
pub use reference::{Reference, ReferenceTensor};
pub use simmim_kernels::loss::Distance;
pub use simmim_kernels::product::Tile;
