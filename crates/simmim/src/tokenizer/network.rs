//! The encoder and the decoder of DALL-E's discrete VAE, with its parameter names (openai/DALL-E, `dall_e/encoder.py`,
//! `dall_e/decoder.py`; arXiv:2102.12092, appendix A.1).

use super::TokenizerConfig;
use crate::weights::{Builder, Init};
use simmim_engine::{Linear, Operations};

/// The encoder: from images to logits of tokens.
pub struct Encoder {
    input: Conv,
    groups: Vec<Vec<Block>>,
    output: Conv,
}

impl Encoder {
    /// Builds the encoder and adds its parameters, `blocks.…`.
    pub fn new(config: &TokenizerConfig, builder: &mut Builder) -> Self {
        builder.scope("blocks", |b| {
            let input = Conv::new("input", config.width, config.channels, 7, b);
            let widths = (0..config.groups).map(|group| config.width_of(group));
            let (groups, width) = groups(config, config.width, widths, [3, 3, 3, 1], b);
            Self { input, groups, output: Conv::new("output.conv", config.vocabulary, width, 1, b) }
        })
    }

    /// Logits of tokens; the input is [mapped](super::mapped) pixels.
    ///
    /// # Shapes
    /// `[B, H, W, C]` → `[B, H/stride, W/stride, K]`.
    pub fn scores<B: Operations>(&self, b: &B, pixels: &B::Tensor) -> B::Tensor {
        let mut x = self.input.forward(b, pixels); // [B, H, W, D]
        for (i, group) in self.groups.iter().enumerate() {
            if i > 0 {
                x = b.max_pool(&x); // [B, H/2ⁱ, W/2ⁱ, D·2ⁱ⁻¹]
            }
            x = group.iter().fold(x, |x, block| block.forward(b, &x)); // [B, H/2ⁱ, W/2ⁱ, D·2ⁱ]
        }
        self.output.forward(b, &b.relu(&x))
    }

    /// FLOPs for an image with this number of pixels.
    pub fn flops(&self, pixels: usize) -> f64 {
        let group = |(i, blocks): (usize, &Vec<Block>)| blocks.iter().map(|b| b.flops(pixels >> (2 * i))).sum::<f64>();
        let groups: f64 = self.groups.iter().enumerate().map(group).sum();
        self.input.flops(pixels) + groups + self.output.flops(pixels >> (2 * (self.groups.len() - 1)))
    }
}

/// The decoder: from tokens, one-hot or relaxed, to pixels.
pub struct Decoder {
    input: Conv,
    groups: Vec<Vec<Block>>,
    output: Conv,
}

impl Decoder {
    /// Builds the decoder and adds its parameters, `blocks.…`.
    pub fn new(config: &TokenizerConfig, builder: &mut Builder) -> Self {
        builder.scope("blocks", |b| {
            let input = Conv::new("input", config.token_width, config.vocabulary, 1, b);
            let widths = (0..config.groups).rev().map(|group| config.width_of(group));
            let (groups, width) = groups(config, config.token_width, widths, [1, 3, 3, 3], b);
            // two outputs per value: location and log-scale of a Laplace distribution
            Self { input, groups, output: Conv::new("output.conv", 2 * config.channels, width, 1, b) }
        })
    }

    /// Location and log-scale of the distribution of the logit of each mapped pixel value.
    ///
    /// # Shapes
    /// probabilities of tokens `[B, h, w, K]` → `[B, h·stride, w·stride, 2C]`.
    pub fn pixels<B: Operations>(&self, b: &B, tokens: &B::Tensor) -> B::Tensor {
        let mut x = self.input.forward(b, tokens);
        for (i, group) in self.groups.iter().enumerate() {
            if i > 0 {
                x = b.upsample(&x);
            }
            x = group.iter().fold(x, |x, block| block.forward(b, &x));
        }
        self.output.forward(b, &b.relu(&x))
    }

    /// FLOPs for an image with this number of pixels.
    pub fn flops(&self, pixels: usize) -> f64 {
        let at = |i: usize| pixels >> (2 * (self.groups.len() - 1 - i));
        let group = |(i, blocks): (usize, &Vec<Block>)| blocks.iter().map(|b| b.flops(at(i))).sum::<f64>();
        let groups: f64 = self.groups.iter().enumerate().map(group).sum();
        self.input.flops(at(0)) + groups + self.output.flops(pixels)
    }
}

/// Builds groups of blocks with the given widths; returns them and the last width.
fn groups(
    config: &TokenizerConfig,
    mut inputs: usize,
    widths: impl Iterator<Item = usize>,
    sides: [usize; 4],
    builder: &mut Builder,
) -> (Vec<Vec<Block>>, usize) {
    let mut group = |(i, width): (usize, usize)| {
        builder.scope(&format!("group_{}", i + 1), |b| {
            let block = |block: usize| {
                let from = std::mem::replace(&mut inputs, width);
                b.scope(&format!("block_{}", block + 1), |b| Block::new(from, width, sides, config.gain(), b))
            };
            (0..config.blocks_per_group).map(block).collect()
        })
    };
    let groups = widths.enumerate().map(&mut group).collect();
    (groups, inputs)
}

/// A bottleneck residual block whose branch has a quarter of its width.
struct Block {
    /// A projection of the input to the width of the block, if they differ.
    identity: Option<Conv>,
    branch: [Conv; 4],
    gain: f32,
}

impl Block {
    fn new(inputs: usize, width: usize, sides: [usize; 4], gain: f32, builder: &mut Builder) -> Self {
        let identity = (inputs != width).then(|| Conv::new("id_path", width, inputs, 1, builder));
        let middle = width / 4;
        let branch = builder.scope("res_path", |b| {
            let [first, second, third, last] = sides;
            [
                Conv::new("conv_1", middle, inputs, first, b),
                Conv::new("conv_2", middle, middle, second, b),
                Conv::new("conv_3", middle, middle, third, b),
                Conv::new("conv_4", width, middle, last, b),
            ]
        });
        Self { identity, branch, gain }
    }

    fn forward<B: Operations>(&self, b: &B, x: &B::Tensor) -> B::Tensor {
        let branch = self.branch.iter().fold(x.clone(), |f, conv| conv.forward(b, &b.relu(&f)));
        match &self.identity {
            Some(identity) => b.add(&identity.forward(b, x), self.gain, &branch),
            None => b.add(x, self.gain, &branch),
        }
    }

    fn flops(&self, pixels: usize) -> f64 {
        self.branch.iter().chain(&self.identity).map(|conv| conv.flops(pixels)).sum()
    }
}

/// A convolution with stride 1 and same padding.
#[derive(Clone, Copy)]
struct Conv {
    linear: Linear,
    side: usize,
    /// Number of values of the weight.
    weights: usize,
}

impl Conv {
    /// Adds `name.w`, normal with standard deviation `1/√fan_in`, and `name.b`, zero (openai/DALL-E,
    /// `dall_e/utils.py`).
    fn new(name: &str, outputs: usize, inputs: usize, side: usize, builder: &mut Builder) -> Self {
        let std = 1.0 / ((inputs * side * side) as f32).sqrt();
        let weight = Init::Normal { std, cut: f32::INFINITY, factor: 1.0 };
        let linear = builder.scope(name, |b| Linear {
            weight: b.add("w", &[outputs, inputs, side, side], weight),
            bias: Some(b.add("b", &[outputs], Init::Constant(0.0))),
        });
        Self { linear, side, weights: outputs * inputs * side * side }
    }

    fn forward<B: Operations>(&self, b: &B, x: &B::Tensor) -> B::Tensor {
        match self.side {
            1 => b.linear(x, &self.linear),
            _ => b.convolution(x, &self.linear),
        }
    }

    fn flops(&self, pixels: usize) -> f64 {
        2.0 * (self.weights * pixels) as f64
    }
}
