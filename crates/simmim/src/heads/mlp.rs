//! Two linear layers with a GELU between them (arXiv:2111.09886, ablation of prediction heads).

use crate::encoders::EncoderSpec;
use crate::weights::{Builder, Init};
use simmim_engine::{Linear, Operations};

/// A two-layer MLP with the hidden width of a feature, computed only for the features that are predicted.
#[derive(Clone, Copy, Debug)]
pub struct MlpHead {
    hidden: Linear,
    output: Linear,
    outputs: usize,
}

impl MlpHead {
    /// Builds the head and adds its parameters, `decoder.0` and `decoder.2`, named as in a PyTorch `Sequential` with
    /// the GELU between them.
    pub fn new(encoder: &EncoderSpec, outputs: usize, builder: &mut Builder) -> Self {
        let width = encoder.out_width;
        // PyTorch's default for linear layers
        let init = Init::Uniform { bound: 1.0 / (width as f32).sqrt() };
        let mut layer = |name: &str, outputs: usize| {
            builder.scope(name, |b| Linear {
                weight: b.add("weight", &[outputs, width], init),
                bias: Some(b.add("bias", &[outputs], init)),
            })
        };
        Self { hidden: layer("decoder.0", width), output: layer("decoder.2", outputs), outputs }
    }

    /// See [`Head::predict`](super::Head::predict); features `[R, D']`.
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor {
        let hidden = b.linear(features, &self.hidden); // [R, D']
        b.linear(&b.gelu(&hidden), &self.output)
    }

    /// See [`Head::flops`](super::Head::flops), with all features predicted.
    pub fn flops(&self, encoder: &EncoderSpec) -> f64 {
        let (h, w) = encoder.feature_grid();
        2.0 * (h * w * encoder.out_width * (encoder.out_width + self.outputs)) as f64
    }
}
