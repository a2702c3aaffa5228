//! The head of SimMIM: one linear layer (arXiv:2111.09886, section 3.3), a 1×1 convolution before a pixel shuffle in
//! the official code.

use crate::encoders::EncoderSpec;
use crate::weights::{Builder, Init};
use simmim_engine::{Linear, Operations};

/// A linear head, computed only for the features that are predicted.
#[derive(Clone, Copy, Debug)]
pub struct LinearHead {
    linear: Linear,
    outputs: usize,
}

impl LinearHead {
    /// Builds the head and adds its parameters, `decoder.0`, with PyTorch's default initialization of convolutions.
    pub fn new(encoder: &EncoderSpec, outputs: usize, builder: &mut Builder) -> Self {
        let bound = 1.0 / (encoder.out_width as f32).sqrt();
        let linear = builder.scope("decoder.0", |b| Linear {
            weight: b.add("weight", &[outputs, encoder.out_width, 1, 1], Init::Uniform { bound }),
            bias: Some(b.add("bias", &[outputs], Init::Uniform { bound })),
        });
        Self { linear, outputs }
    }

    /// See [`Head::predict`](super::Head::predict); features `[R, D']`.
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor {
        b.linear(features, &self.linear)
    }

    /// See [`Head::flops`](super::Head::flops), with all features predicted.
    pub fn flops(&self, encoder: &EncoderSpec) -> f64 {
        let (h, w) = encoder.feature_grid();
        2.0 * (h * w * encoder.out_width * self.outputs) as f64
    }
}
