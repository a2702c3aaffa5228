//! Encoders: images to tokens, tokens to features. They never see a mask or a label.
//!
//! An encoder answers every question about its own architecture; nothing else in the crate branches
//! on it. To add one: a file with a type that implements [`Encode`], and its arms in [`Encoder`].

mod init;
mod kept;
mod pass;
mod resize;
mod swin;
mod vit;

pub use init::WeightInit;
pub use kept::{BlockKept, activation_bytes};
pub use pass::Pass;
pub use resize::resize_bias_table;
pub(crate) use swin::SwinBlocks;
pub use swin::{Swin, SwinConfig, SwinV2Config};
pub use vit::{PositionBias, Vit, VitConfig};

use crate::build::{Builder, Init};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use simmim_engine::{Images, Operations, Parameter};

/// An encoder's architecture, as recipes spell it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EncoderConfig {
    /// A vision transformer.
    Vit(VitConfig),
    /// A Swin transformer.
    Swin(SwinConfig),
    /// A SwinV2 transformer.
    SwinV2(SwinV2Config),
}

impl EncoderConfig {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// Names the first recipe key whose value does not fit.
    pub fn check(&self) -> Result<()> {
        match self {
            EncoderConfig::Vit(config) => config.check(),
            EncoderConfig::Swin(config) => config.check(),
            EncoderConfig::SwinV2(config) => config.check(),
        }
    }

    /// Side of a patch in pixels: what mask units must be multiples of.
    pub fn patch_px(&self) -> usize {
        match self {
            EncoderConfig::Vit(config) => config.patch_px,
            EncoderConfig::Swin(config) => config.patch_px,
            EncoderConfig::SwinV2(config) => config.patch_px,
        }
    }

    /// Pixels per feature along each axis: what the image must be a multiple of.
    pub fn stride_px(&self) -> usize {
        match self {
            EncoderConfig::Vit(config) => config.patch_px,
            EncoderConfig::Swin(config) => config.stride_px(),
            EncoderConfig::SwinV2(config) => config.stride_px(),
        }
    }
}

/// What an encoder is for: it ends, and its parameters are named, as in the published checkpoints of that use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its features are what a prediction head works on; names start with `encoder.`.
    Pretrain,
    /// Its pooled features are what a classification head works on; names stand for themselves.
    Classify,
}

impl Role {
    fn scope(self) -> &'static str {
        match self {
            Role::Pretrain => "encoder",
            Role::Classify => "",
        }
    }
}

/// A tensor of other weights, offered for one of an encoder's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values.
    pub values: &'a [f32],
    /// Patches of the other encoder's images along the vertical and the horizontal axis, if known.
    pub grid: Option<(usize, usize)>,
}

/// Whether a parameter can take an offered tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Fit {
    /// As it is.
    Same,
    /// With these values, made for this encoder's sizes.
    Resized(Vec<f32>),
    /// Not: it is learnt anew, as the official code does, for this reason.
    Anew(String),
    /// Not at all: it is of another architecture.
    Other,
}

impl Offered<'_> {
    /// The fit of a parameter whose size does not depend on the image.
    pub(crate) fn unresized(&self, parameter: &Parameter) -> Fit {
        if self.shape == parameter.shape { Fit::Same } else { Fit::Other }
    }

    /// The other encoder's grid: the known one, or else a square of `cells`.
    fn grid_of(&self, cells: usize) -> Option<(usize, usize)> {
        let side = cells.isqrt();
        let is_known = |grid: &(usize, usize)| grid.0 * grid.1 == cells;
        self.grid.filter(is_known).or((side * side == cells).then_some((side, side)))
    }
}

/// A parameter's name without the prefix of pre-training.
pub(crate) fn plain_name(parameter: &str) -> &str {
    parameter.strip_prefix("encoder.").unwrap_or(parameter)
}

/// What the rest of the model needs to know about an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderSpec {
    /// Input height and width in pixels.
    pub image_px: (usize, usize),
    /// Input channels.
    pub channels: usize,
    /// Side of a token's patch in pixels.
    pub patch_px: usize,
    /// Pixels per feature along each axis.
    pub stride_px: usize,
    /// Width of a token, `D`.
    pub width: usize,
    /// Width of a feature, `D'`.
    pub out_width: usize,
    /// Number of blocks.
    pub depth: usize,
}

impl EncoderSpec {
    /// Operations of one image's patch embedding.
    pub fn embed_flops(&self) -> f64 {
        let patches = (self.image_px.0 / self.patch_px) * (self.image_px.1 / self.patch_px);
        2.0 * (patches * self.width * self.channels * self.patch_px * self.patch_px) as f64
    }

    /// Features along the vertical and the horizontal axis.
    pub fn feature_grid(&self) -> (usize, usize) {
        (self.image_px.0 / self.stride_px, self.image_px.1 / self.stride_px)
    }
}

/// What every encoder does.
pub trait Encode {
    /// Sizes.
    fn spec(&self) -> EncoderSpec;

    /// Images to tokens.
    ///
    /// # Shapes
    /// `[B, C, H, W]` → `[B, N, D]`.
    fn embed<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor;

    /// Tokens to features.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, h·w, D']`, row by row.
    fn encode<B: Operations>(&self, b: &B, tokens: B::Tensor, pass: &mut Pass) -> B::Tensor;

    /// Tokens to what block `block` puts out, counted from 1, without a final norm.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, n, d]`: fewer tokens, of greater width, where stages merge them; no class token.
    ///
    /// # Panics
    /// If there is no such block.
    fn encode_until<B: Operations>(&self, b: &B, tokens: B::Tensor, block: usize, pass: &mut Pass) -> B::Tensor;

    /// Features to one vector an image, for a classification head.
    ///
    /// # Shapes
    /// `[B, h·w, D']` → `[B, D']`.
    fn pool<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor;

    /// How the mask token's first values are drawn.
    fn mask_token_init(&self) -> Init;

    /// How the classification head's first weights are drawn; its bias is zero.
    fn head_init(&self) -> Init;

    /// Layer of a parameter for layer-wise learning-rate decay, 0 at the input, as the official
    /// recipes count (microsoft/SimMIM, `optimizer.py`).
    fn layer_of(&self, parameter: &str) -> usize;

    /// Whether the official grouping exempts this parameter from weight decay by its name; one-
    /// dimensional parameters and biases are exempt anyway.
    fn is_exempt_from_decay(&self, parameter: &str) -> bool;

    /// Whether this is a table of positions or a mask token, which the corrected grouping exempts too.
    fn is_position_or_mask(&self, parameter: &str) -> bool;

    /// Operations of one image's forward pass, a multiplication and an addition counted as two.
    fn flops(&self) -> f64;

    /// What each block keeps of one image for the backward pass.
    fn blocks_kept(&self) -> Vec<BlockKept>;

    /// Names without prefix under which `parameter` may be found in other weights, the first found counts.
    fn known_as(&self, parameter: &str) -> Vec<String>;

    /// Whether and how a parameter takes a tensor of other weights: tables of positions are resized.
    fn fit(&self, parameter: &Parameter, offered: &Offered) -> Fit;
}

/// An encoder of any kind.
#[derive(Clone, Debug)]
pub enum Encoder {
    /// A vision transformer.
    Vit(Vit),
    /// A Swin transformer of either version.
    Swin(Swin),
}

impl Encoder {
    /// The encoder of a configuration, its parameters added to `builder`.
    pub fn new(
        config: &EncoderConfig,
        role: Role,
        image_px: (usize, usize),
        channels: usize,
        builder: &mut Builder,
    ) -> Self {
        match config {
            EncoderConfig::Vit(config) => Encoder::Vit(Vit::new(config, role, image_px, channels, builder)),
            EncoderConfig::Swin(config) => {
                Encoder::Swin(Swin::new(&config.design(), role, image_px, channels, builder))
            }
            EncoderConfig::SwinV2(config) => {
                Encoder::Swin(Swin::new(&config.design(), role, image_px, channels, builder))
            }
        }
    }
}

impl Encode for Encoder {
    fn spec(&self) -> EncoderSpec {
        match self {
            Encoder::Vit(e) => e.spec(),
            Encoder::Swin(e) => e.spec(),
        }
    }

    fn embed<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor {
        match self {
            Encoder::Vit(e) => e.embed(b, images),
            Encoder::Swin(e) => e.embed(b, images),
        }
    }

    fn encode<B: Operations>(&self, b: &B, tokens: B::Tensor, pass: &mut Pass) -> B::Tensor {
        match self {
            Encoder::Vit(e) => e.encode(b, tokens, pass),
            Encoder::Swin(e) => e.encode(b, tokens, pass),
        }
    }

    fn encode_until<B: Operations>(&self, b: &B, tokens: B::Tensor, block: usize, pass: &mut Pass) -> B::Tensor {
        match self {
            Encoder::Vit(e) => e.encode_until(b, tokens, block, pass),
            Encoder::Swin(e) => e.encode_until(b, tokens, block, pass),
        }
    }

    fn pool<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor {
        match self {
            Encoder::Vit(e) => e.pool(b, features),
            Encoder::Swin(e) => e.pool(b, features),
        }
    }

    fn mask_token_init(&self) -> Init {
        match self {
            Encoder::Vit(e) => e.mask_token_init(),
            Encoder::Swin(e) => e.mask_token_init(),
        }
    }

    fn head_init(&self) -> Init {
        match self {
            Encoder::Vit(e) => e.head_init(),
            Encoder::Swin(e) => e.head_init(),
        }
    }

    fn layer_of(&self, parameter: &str) -> usize {
        match self {
            Encoder::Vit(e) => e.layer_of(parameter),
            Encoder::Swin(e) => e.layer_of(parameter),
        }
    }

    fn is_exempt_from_decay(&self, parameter: &str) -> bool {
        match self {
            Encoder::Vit(e) => e.is_exempt_from_decay(parameter),
            Encoder::Swin(e) => e.is_exempt_from_decay(parameter),
        }
    }

    fn is_position_or_mask(&self, parameter: &str) -> bool {
        match self {
            Encoder::Vit(e) => e.is_position_or_mask(parameter),
            Encoder::Swin(e) => e.is_position_or_mask(parameter),
        }
    }

    fn flops(&self) -> f64 {
        match self {
            Encoder::Vit(e) => e.flops(),
            Encoder::Swin(e) => e.flops(),
        }
    }

    fn blocks_kept(&self) -> Vec<BlockKept> {
        match self {
            Encoder::Vit(e) => e.blocks_kept(),
            Encoder::Swin(e) => e.blocks_kept(),
        }
    }

    fn known_as(&self, parameter: &str) -> Vec<String> {
        match self {
            Encoder::Vit(e) => e.known_as(parameter),
            Encoder::Swin(e) => e.known_as(parameter),
        }
    }

    fn fit(&self, parameter: &Parameter, offered: &Offered) -> Fit {
        match self {
            Encoder::Vit(e) => e.fit(parameter, offered),
            Encoder::Swin(e) => e.fit(parameter, offered),
        }
    }
}
