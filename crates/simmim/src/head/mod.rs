//! Prediction heads: features to predicted values, one row per feature cell.
//!
//! A head is one file; to add one, a type with its arms in [`Head`].

mod inverse_swin;
mod linear;
mod mlp;

pub use inverse_swin::{InverseSwinHead, Sizes};
pub use linear::LinearHead;
pub use mlp::MlpHead;

use crate::build::Builder;
use crate::encoder::EncoderSpec;
use crate::recipe::{HeadKind, HeadRecipe};
use crate::target::Layout;
use simmim_engine::Operations;

/// A prediction head of any kind.
#[derive(Clone, Debug)]
pub enum Head {
    /// One linear layer.
    Linear(LinearHead),
    /// Two linear layers.
    Mlp(MlpHead),
    /// Swin upside down.
    InverseSwin(Box<InverseSwinHead>),
}

impl Head {
    /// The head a recipe names, predicting what a target lays out in each cell.
    pub fn new(recipe: &HeadRecipe, encoder: &EncoderSpec, layout: &Layout, builder: &mut Builder) -> Self {
        let inverse_swin = |sizes: Sizes, builder: &mut Builder| {
            let sizes = Sizes { width: recipe.width.unwrap_or(sizes.width), ..sizes };
            Head::InverseSwin(Box::new(InverseSwinHead::new(sizes, encoder, layout, builder)))
        };
        match recipe.kind {
            HeadKind::Linear => Head::Linear(LinearHead::new(encoder, layout.outputs(), builder)),
            HeadKind::Mlp => Head::Mlp(MlpHead::new(encoder, layout.outputs(), builder)),
            HeadKind::InverseSwinT => inverse_swin(Sizes::TINY, builder),
            HeadKind::InverseSwinB => inverse_swin(Sizes::BASE, builder),
        }
    }

    /// Predicts the cells in `rows`, indices into `[B·h·w]`.
    ///
    /// # Shapes
    /// features `[B, h·w, D']` → `[R, outputs]`, a row in the order of [`Layout`].
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor, rows: &[u32]) -> B::Tensor {
        match self {
            Head::Linear(head) => head.predict(b, features, rows),
            Head::Mlp(head) => head.predict(b, features, rows),
            Head::InverseSwin(head) => head.predict(b, features, rows),
        }
    }

    /// Operations of one image's forward pass with this share of the cells predicted.
    pub fn flops(&self, encoder: &EncoderSpec, share: f64) -> f64 {
        match self {
            Head::Linear(head) => share * head.flops(encoder),
            Head::Mlp(head) => share * head.flops(encoder),
            Head::InverseSwin(head) => head.flops(share),
        }
    }
}
