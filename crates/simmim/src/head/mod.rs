//! Prediction heads: features to predicted values, one row per feature cell.
//!
//! A head is one file; to add one, a type with its arms in [`Head`].

mod linear;

pub use linear::LinearHead;

use crate::build::Builder;
use crate::encoder::EncoderSpec;
use crate::recipe::HeadKind;
use crate::target::Layout;
use simmim_engine::Operations;

/// A prediction head of any kind.
#[derive(Clone, Debug)]
pub enum Head {
    /// One linear layer.
    Linear(LinearHead),
}

impl Head {
    /// The head a recipe names, predicting what a target lays out in each cell.
    pub fn new(kind: HeadKind, encoder: &EncoderSpec, layout: &Layout, builder: &mut Builder) -> Self {
        match kind {
            HeadKind::Linear => Head::Linear(LinearHead::new(encoder, layout.outputs(), builder)),
        }
    }

    /// Predicts the cells in `rows`, indices into `[B·h·w]`.
    ///
    /// # Shapes
    /// features `[B, h·w, D']` → `[R, outputs]`, a row in the order of [`Layout`].
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor, rows: &[u32]) -> B::Tensor {
        match self {
            Head::Linear(head) => head.predict(b, features, rows),
        }
    }

    /// Operations of one image's forward pass with every cell predicted.
    pub fn flops(&self, encoder: &EncoderSpec) -> f64 {
        match self {
            Head::Linear(head) => head.flops(encoder),
        }
    }
}
