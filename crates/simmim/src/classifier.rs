//! An image classifier: an encoder with a linear head, for fine-tuning.
//!
//! The encoder defines the pooling, the norm around it and the initialization of the head (microsoft/SimMIM,
//! `models/vision_transformer.py` and `models/swin_transformer.py`). Parameter names are those of the published
//! fine-tuned checkpoints.

use crate::encoders::{Encode, Encoder, ForwardContext, NeededFeatures, Role, VisibleTokens};
use crate::error::Result;
use crate::model::WeightedSum;
use crate::recipe::FinetuneRecipe;
use crate::weights::{Builder, Init};
use simmim_engine::{Images, Labels, Linear, Operations, SoftLabels};

/// An encoder with a linear head.
pub struct Classifier {
    encoder: Encoder,
    head: Linear,
    classes: usize,
}

impl Classifier {
    /// Builds the classifier of a recipe with `classes` classes, and adds its parameters to `builder`.
    ///
    /// # Errors
    /// Those of [`Encoder::new`].
    pub fn new(recipe: &FinetuneRecipe, classes: usize, builder: &mut Builder) -> Result<Self> {
        let image_px = recipe.data.image_size.height_and_width();
        let encoder = Encoder::new(&recipe.encoder, Role::Classify, image_px, recipe.data.channels, builder)?;
        let head = builder.scope("head", |b| Linear {
            weight: b.add("weight", &[classes, encoder.spec().out_width], encoder.head_init()),
            bias: Some(b.add("bias", &[classes], Init::Constant(0.0))),
        });
        Ok(Self { encoder, head, classes })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Number of classes, `K`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// FLOPs of the forward pass of one image.
    pub fn flops(&self) -> f64 {
        self.encoder.flops() + 2.0 * (self.encoder.spec().out_width * self.classes) as f64
    }

    /// Logits of the classes.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, K]`.
    pub fn logits<B: Operations>(&self, b: &B, images: &Images, context: &mut ForwardContext) -> B::Tensor {
        let tokens = self.encoder.embed(b, images); // [B, N, D]
        let features = self.encoder.encode(b, tokens, VisibleTokens::All, NeededFeatures::All, context); // [B, h·w, D']
        b.linear(&self.encoder.pool(b, &features), &self.head)
    }

    /// The loss of a batch: `Σ weight·target·(−log p)`. Its weight is the number of images, or the number of images
    /// times that of classes if an image may have several labels.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, labels `[B, K]` → `[1]`.
    pub fn loss<B: Operations>(
        &self,
        b: &B,
        images: &Images,
        labels: &SoftLabels,
        context: &mut ForwardContext,
    ) -> WeightedSum<B::Tensor> {
        let weight = match labels.labels {
            Labels::One => images.count,
            Labels::Many => images.count * self.classes,
        };
        WeightedSum { sum: b.soft_labels(&self.logits(b, images, context), labels), weight: weight as f64 }
    }
}
