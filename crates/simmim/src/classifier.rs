//! An encoder with a classification head: what pre-training is for.
//!
//! Pooling, the norm around it and the head's first values are the encoder's own (microsoft/SimMIM,
//! `models/vision_transformer.py` and `models/swin_transformer.py`); the names are those of the published
//! fine-tuned checkpoints.

use crate::build::{Builder, Init};
use crate::encoder::{Encode, Encoder, EncoderConfig, Pass, Role};
use simmim_engine::{Images, Linear, Operations, SoftLabels};

/// An encoder with a linear head.
pub struct Classifier {
    encoder: Encoder,
    head: Linear,
    classes: usize,
}

impl Classifier {
    /// Adds the parameters of a classifier of `classes` classes to `builder`.
    pub fn new(
        config: &EncoderConfig,
        image_px: (usize, usize),
        channels: usize,
        classes: usize,
        builder: &mut Builder,
    ) -> Self {
        let encoder = Encoder::new(config, Role::Classify, image_px, channels, builder);
        let head = builder.scope("head", |b| Linear {
            weight: b.add("weight", &[classes, encoder.spec().out_width], encoder.head_init()),
            bias: Some(b.add("bias", &[classes], Init::Constant(0.0))),
        });
        Self { encoder, head, classes }
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Number of classes, `K`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Operations of one image's forward pass.
    pub fn flops(&self) -> f64 {
        self.encoder.flops() + 2.0 * (self.encoder.spec().out_width * self.classes) as f64
    }

    /// Scores of the classes before softmax or sigmoid.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, K]`.
    pub fn logits<B: Operations>(&self, b: &B, images: &Images, pass: &mut Pass) -> B::Tensor {
        let tokens = self.encoder.embed(b, images); // [B, N, D]
        let features = self.encoder.encode(b, tokens, pass); // [B, h·w, D']
        b.linear(&self.encoder.pool(b, &features), &self.head)
    }

    /// The loss of a batch.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, labels `[B, K]` → `[1]`.
    pub fn loss<B: Operations>(&self, b: &B, images: &Images, labels: &SoftLabels, pass: &mut Pass) -> B::Tensor {
        b.soft_labels(&self.logits(b, images, pass), labels)
    }
}
