//! Prediction heads: from features to predictions, one row per feature.
//!
//! To add a head, write a file with its type, and add its arms to [`Head`].

mod inverse_swin;
mod linear;
mod mlp;

pub use inverse_swin::{InverseSwinHead, Sizes};
pub use linear::LinearHead;
pub use mlp::MlpHead;

use crate::encoders::{EncoderSpec, NeededFeatures};
use crate::recipe::{HeadKind, HeadRecipe};
use crate::targets::Layout;
use crate::weights::Builder;
use simmim_engine::Operations;

/// A prediction head of any kind.
#[derive(Clone, Debug)]
pub enum Head {
    /// One linear layer.
    Linear(LinearHead),
    /// Two linear layers.
    Mlp(MlpHead),
    /// The stages of Swin in reverse order.
    InverseSwin(Box<InverseSwinHead>),
}

impl Head {
    /// Builds the head of a recipe, which predicts what `layout` says per feature, and adds its parameters to
    /// `builder`.
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

    /// The features that the head needs to predict for those in `rows`, which are indices into `[B·h·w]`, each at most once.
    pub fn needs<'a>(&self, rows: &'a [u32]) -> NeededFeatures<'a> {
        match self {
            Head::Linear(_) | Head::Mlp(_) => NeededFeatures::Rows(rows),
            Head::InverseSwin(_) => NeededFeatures::All,
        }
    }

    /// Predicts for the features in `rows`, which are indices into `[B·h·w]`.
    ///
    /// # Shapes
    /// features that the head [needs](Head::needs), `[R, D']` or `[B, h·w, D']` → `[R, C·S]` or `[R, C·S·K]`, see
    /// [`Layout`].
    ///
    /// # Panics
    /// If the head needs only the features in `rows` and there are more.
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor, rows: &[u32]) -> B::Tensor {
        if let NeededFeatures::Rows(rows) = self.needs(rows) {
            assert_eq!(b.shape(features)[0], rows.len(), "one feature for each prediction");
        }
        match self {
            Head::Linear(head) => head.predict(b, features),
            Head::Mlp(head) => head.predict(b, features),
            Head::InverseSwin(head) => head.predict(b, features, rows),
        }
    }

    /// FLOPs of the forward pass of one image if this share of the features, 0 to 1, is predicted.
    pub fn flops(&self, encoder: &EncoderSpec, share: f64) -> f64 {
        match self {
            Head::Linear(head) => share * head.flops(encoder),
            Head::Mlp(head) => share * head.flops(encoder),
            Head::InverseSwin(head) => head.flops(share),
        }
    }
}
