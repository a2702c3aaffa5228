//! Two linear layers with a GELU between them (arXiv:2111.09886, ablation of prediction heads).

use crate::build::{Builder, Init};
use crate::encoder::EncoderSpec;
use simmim_engine::{Linear, Operations};

/// A two-layer MLP, its hidden layer as wide as a feature; computed for the wanted cells only.
#[derive(Clone, Copy, Debug)]
pub struct MlpHead {
    hidden: Linear,
    output: Linear,
    outputs: usize,
}

impl MlpHead {
    /// Adds `decoder.0` and `decoder.2`, as layers of a sequence whose second is the GELU.
    pub fn new(encoder: &EncoderSpec, outputs: usize, builder: &mut Builder) -> Self {
        let width = encoder.out_width;
        // PyTorch's default of a linear layer, as for the linear head
        let init = Init::Uniform { bound: 1.0 / (width as f32).sqrt() };
        let mut layer = |name: &str, outputs: usize| {
            builder.scope(name, |b| Linear {
                weight: b.add("weight", &[outputs, width], init),
                bias: Some(b.add("bias", &[outputs], init)),
            })
        };
        Self { hidden: layer("decoder.0", width), output: layer("decoder.2", outputs), outputs }
    }

    /// See [`Head::predict`](super::Head::predict).
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor, rows: &[u32]) -> B::Tensor {
        let hidden = b.linear(&b.gather_rows(features, rows), &self.hidden); // [R, D']
        b.linear(&b.gelu(&hidden), &self.output)
    }

    /// See [`Head::flops`](super::Head::flops), with every cell predicted.
    pub fn flops(&self, encoder: &EncoderSpec) -> f64 {
        let (h, w) = encoder.feature_grid();
        2.0 * (h * w * encoder.out_width * (encoder.out_width + self.outputs)) as f64
    }
}
