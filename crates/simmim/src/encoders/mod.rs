//! Encoders: from images to tokens, and from tokens to features. They know neither masks nor labels, only which
//! tokens to encode and which features are needed.
//!
//! Everything that depends on the architecture is a method of [`Encode`]; no other code branches on the kind of
//! encoder. To add one, write a file with a type that implements [`Encode`], and add its arms to [`Encoder`].

mod activation_memory;
mod forward_context;
mod needed_features;
mod resize;
mod swin;
mod vit;
mod weight_init;

pub use activation_memory::{BlockActivations, activation_bytes};
pub use forward_context::ForwardContext;
pub use needed_features::NeededFeatures;
pub use resize::resize_bias_table;
pub(crate) use swin::SwinBlocks;
pub use swin::{Swin, SwinConfig, SwinV2Config};
pub use vit::{Mlp, PositionBias, Vit, VitConfig};
pub use weight_init::WeightInit;

use crate::error::Result;
use crate::memory;
use crate::weights::{Architecture, Builder, Init};
use serde::{Deserialize, Serialize};
use simmim_engine::{Images, Operations, Parameter};

/// Largest patch side in pixels.
const MAX_PATCH_PX: usize = 1 << 10;

/// Largest width of a token; that of ViT-22B (arXiv:2302.05442) is 6,144.
const MAX_WIDTH: usize = 1 << 14;

/// Largest drop-path rate.
const MAX_DROP_PATH: f32 = 0.99;

/// Largest number of blocks.
const MAX_DEPTH: usize = 1 << 9;

/// The architecture of an encoder, as in the `[encoder]` section of recipes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EncoderConfig {
    /// ViT.
    Vit(VitConfig),
    /// Swin Transformer.
    Swin(SwinConfig),
    /// Swin Transformer V2.
    SwinV2(SwinV2Config),
}

impl EncoderConfig {
    /// Parses an `[encoder]` section. In contrast to the derived form, which reads `kind` and the other keys at once,
    /// errors name their key.
    ///
    /// # Errors
    /// If a key is unknown, missing or of the wrong type.
    pub(crate) fn from_table(mut table: toml::Table) -> std::result::Result<Self, toml::de::Error> {
        let kind = table.get("kind").and_then(toml::Value::as_str).map(str::to_owned);
        if matches!(kind.as_deref(), Some("vit" | "swin" | "swinv2")) {
            table.remove("kind");
        }
        match kind.as_deref() {
            Some("vit") => table.try_into().map(Self::Vit),
            Some("swin") => table.try_into().map(Self::Swin),
            Some("swinv2") => table.try_into().map(Self::SwinV2),
            _ => table.try_into(), // whose error lists the kinds
        }
    }

    /// The encoder that weights are of, whose tokens are `width` wide behind the patch embedding.
    ///
    /// # Errors
    /// If something is not said anywhere, or what is said contradicts the tensors.
    pub(crate) fn deduce(from: &mut Architecture, width: usize) -> Result<DeducedEncoder> {
        match from.has("layers.0.blocks.0.attn.qkv.weight") {
            true => swin::deduce(from, width),
            false => vit::deduce(from, width),
        }
    }

    /// The first value of the encoder that weights were `trained` with that changes what they compute, though no shape.
    pub(crate) fn unseen_difference(&self, trained: &Self) -> Option<UnseenDifference> {
        match (self, trained) {
            (EncoderConfig::Vit(config), EncoderConfig::Vit(trained)) => config.unseen_difference(trained),
            (EncoderConfig::Vit(_), EncoderConfig::Swin(_) | EncoderConfig::SwinV2(_))
            | (EncoderConfig::Swin(_) | EncoderConfig::SwinV2(_), _) => None, // their tables have a column for each head
        }
    }

    /// What the encoder computes otherwise than the one that weights were `trained` with, though both may be meant.
    pub(crate) fn other_positions(&self, trained: &Self) -> Option<String> {
        match (self, trained) {
            (EncoderConfig::SwinV2(config), EncoderConfig::SwinV2(trained)) => config.other_positions(trained),
            (EncoderConfig::Vit(_) | EncoderConfig::Swin(_) | EncoderConfig::SwinV2(_), _) => None,
        }
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key.
    pub fn check(&self) -> Result<()> {
        match self {
            EncoderConfig::Vit(config) => config.check(),
            EncoderConfig::Swin(config) => config.check(),
            EncoderConfig::SwinV2(config) => config.check(),
        }
    }

    /// Side of a patch in pixels; mask units must be multiples of it.
    pub fn patch_px(&self) -> usize {
        match self {
            EncoderConfig::Vit(config) => config.patch_px,
            EncoderConfig::Swin(config) => config.patch_px,
            EncoderConfig::SwinV2(config) => config.patch_px,
        }
    }

    /// `ε` of layer norms.
    pub fn norm_eps(&self) -> f32 {
        match self {
            EncoderConfig::Vit(config) => config.norm_eps,
            EncoderConfig::Swin(config) => config.norm_eps,
            EncoderConfig::SwinV2(config) => config.norm_eps,
        }
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        match self {
            EncoderConfig::Vit(config) => config.depth,
            EncoderConfig::Swin(config) => config.depths.iter().sum(),
            EncoderConfig::SwinV2(config) => config.depths.iter().sum(),
        }
    }

    /// Stride of the features in pixels; the image size must be a multiple of it.
    pub fn stride_px(&self) -> usize {
        match self {
            EncoderConfig::Vit(config) => config.patch_px,
            EncoderConfig::Swin(config) => config.stride_px(),
            EncoderConfig::SwinV2(config) => config.stride_px(),
        }
    }
}

/// An encoder that weights are of.
pub(crate) struct DeducedEncoder {
    pub(crate) config: EncoderConfig,
    /// Side of its images in pixels.
    pub(crate) side: usize,
    /// Whether the weights are those of a classifier.
    pub(crate) is_classifier: bool,
}

/// A value that two encoders do not share, and that the shapes of their tensors do not show.
pub(crate) struct UnseenDifference {
    /// What that of the weights has.
    pub(crate) theirs: String,
    /// What the other has instead.
    pub(crate) ours: String,
    /// The edit that makes it the same.
    pub(crate) edit: String,
}

/// What an encoder is used for. The layers after the last block and the parameter names follow the published
/// checkpoints of that use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pre-training: features go to a prediction head; parameter names start with `encoder.`.
    Pretrain,
    /// Classification: pooled features go to a classification head; parameter names have no prefix.
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

/// A tensor of other weights from which a parameter of an encoder may be loaded.
#[derive(Clone, Copy, Debug)]
pub struct SourceTensor<'a> {
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values.
    pub values: &'a [f32],
    /// Patch grid `(h, w)` of the encoder that it comes from, if known.
    pub grid: Option<(usize, usize)>,
}

/// How a parameter is loaded from a tensor of other weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Fit {
    /// Unchanged.
    Same,
    /// With these values, which were resized for this encoder.
    Resized(Vec<f32>),
    /// Not loaded but initialized, as in the official code, for this reason.
    Reinitialized(String),
    /// The tensor is of another architecture, which is an error.
    Incompatible,
}

impl SourceTensor<'_> {
    /// The fit of a parameter that cannot be resized.
    pub(crate) fn unresized(&self, parameter: &Parameter) -> Fit {
        if self.shape == parameter.shape { Fit::Same } else { Fit::Incompatible }
    }

    /// The patch grid that the tensor comes from: the known one, or else a square grid of `cells` cells.
    fn grid_of(&self, cells: usize) -> Option<(usize, usize)> {
        let side = cells.isqrt();
        let is_known = |grid: &(usize, usize)| grid.0 * grid.1 == cells;
        self.grid.filter(is_known).or((side * side == cells).then_some((side, side)))
    }
}

/// The name of a parameter without the prefix `encoder.` of pre-training.
pub(crate) fn plain_name(parameter: &str) -> &str {
    parameter.strip_prefix("encoder.").unwrap_or(parameter)
}

/// Sizes of an encoder that the rest of the model needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderSpec {
    /// Input height and width in pixels.
    pub image_px: (usize, usize),
    /// Input channels.
    pub channels: usize,
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Stride of the features in pixels.
    pub stride_px: usize,
    /// Width of a token after the patch embedding, `D`.
    pub width: usize,
    /// Width of a feature, `D'`; it differs from `D` in Swin.
    pub out_width: usize,
    /// Number of blocks.
    pub depth: usize,
}

impl EncoderSpec {
    /// FLOPs of the patch embedding of one image.
    pub fn embed_flops(&self) -> f64 {
        let patches = (self.image_px.0 / self.patch_px) * (self.image_px.1 / self.patch_px);
        2.0 * (patches * self.width * self.channels * self.patch_px * self.patch_px) as f64
    }

    /// Number of features along height and width, `(h, w)`.
    pub fn feature_grid(&self) -> (usize, usize) {
        (self.image_px.0 / self.stride_px, self.image_px.1 / self.stride_px)
    }
}

/// The tokens that an encoder processes.
///
/// SimMIM replaces hidden patches with mask tokens before the first block, so its encoder processes all tokens. MAE
/// (arXiv:2111.06377) removes hidden patches, and its decoder inserts mask tokens between the encoded visible ones.
#[derive(Clone, Copy, Debug)]
pub enum VisibleTokens<'a> {
    /// All tokens.
    All,
    /// The same number of tokens of each image, as rows of `[B·N, D]` in the order of images.
    Rows(&'a [u32]),
}

/// An encoder.
pub trait Encode {
    /// Its sizes.
    fn spec(&self) -> EncoderSpec;

    /// Patch embedding: images to tokens.
    ///
    /// # Shapes
    /// `[B, C, H, W]` → `[B, N, D]`.
    fn embed<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor;

    /// Encodes tokens, all of them or only the visible ones, to features. Of the features that are not needed, the last block's
    /// MLP and the last norm are not computed.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, h·w, D']` in row-major order, or `[B, V, D']` for `V` visible tokens. If only some features are
    /// needed, `[R, D']`.
    ///
    /// # Panics
    /// If tokens are left out and the encoder [needs all](Encode::needs_all_tokens).
    fn encode<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        visible: VisibleTokens,
        needed: NeededFeatures,
        context: &mut ForwardContext,
    ) -> B::Tensor;

    /// The reason why the encoder needs all tokens; `None` if it takes any subset of them.
    fn needs_all_tokens(&self) -> Option<&'static str>;

    /// The outputs of some blocks as feature maps, in one pass through the encoder, without class token and final norm.
    /// `blocks` are counted from 1 and in ascending order.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, h, w, D]` for each block, with the grid and width of its stage.
    ///
    /// # Panics
    /// If there is no such block.
    fn features<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        blocks: &[usize],
        context: &mut ForwardContext,
    ) -> Vec<B::Tensor>;

    /// The reason why there are no features of a class token; `None` if there are.
    fn lacks_class_token(&self) -> Option<&'static str>;

    /// The class token behind a block, counted from 1, or, without one, behind the last norm.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, D]`.
    ///
    /// # Panics
    /// If the encoder [has none](Encode::lacks_class_token), or there is no such block.
    fn class_token<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        block: Option<usize>,
        context: &mut ForwardContext,
    ) -> B::Tensor;

    /// Pools the features of each image to one vector, for a classification head.
    ///
    /// # Shapes
    /// `[B, h·w, D']` → `[B, D']`.
    fn pool<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor;

    /// Initialization of the mask token.
    fn mask_token_init(&self) -> Init;

    /// Initialization of the weight of a classification head; its bias is zero.
    fn head_init(&self) -> Init;

    /// Layer of a parameter for layer-wise learning-rate decay, 0 at the input, as in the official code
    /// (microsoft/SimMIM, `optimizer.py`).
    fn layer_of(&self, parameter: &str) -> usize;

    /// Whether this is a position table of the first block that later blocks share.
    fn is_shared_position(&self, parameter: &str) -> bool;

    /// Whether a parameter is frozen with the first `blocks` blocks: theirs, those of all that comes before them, the mask
    /// token among it, and position tables that they share with later blocks.
    fn is_frozen_with(&self, blocks: usize, parameter: &str) -> bool {
        blocks > 0 && (self.is_shared_position(parameter) || self.layer_of(parameter) <= blocks)
    }

    /// Whether the official code exempts this parameter from weight decay by its name. One-dimensional parameters and
    /// biases are exempt in any case.
    fn is_exempt_from_decay(&self, parameter: &str) -> bool;

    /// Whether this is a relative position bias table or the mask token, which `decay_groups = "corrected"` exempts
    /// too.
    fn is_position_or_mask(&self, parameter: &str) -> bool;

    /// FLOPs of the forward pass of one image; a multiply-add counts as two.
    fn flops(&self) -> f64;

    /// FLOPs that the forward pass of `images` images does without if only `features` features in all are needed: those of the last
    /// block's MLP for all other tokens.
    fn flops_not_needed(&self, images: usize, features: usize) -> f64;

    /// What each block saves of one image for the backward pass.
    fn block_activations(&self) -> Vec<BlockActivations>;

    /// Names, without prefix, under which `parameter` is looked up in other weights; the first one found is used.
    fn source_names(&self, parameter: &str) -> Vec<String>;

    /// How a parameter is loaded from a tensor of other weights. Position tables are resized.
    fn fit(&self, parameter: &Parameter, source: &SourceTensor) -> Fit;
}

/// An encoder of any kind.
#[derive(Clone, Debug)]
pub enum Encoder {
    /// ViT.
    Vit(Vit),
    /// Swin Transformer, V1 or V2.
    Swin(Swin),
}

impl Encoder {
    /// Builds the encoder of a configuration and adds its parameters to `builder`.
    ///
    /// # Errors
    /// If there is no memory for its tables of all pairs of tokens that attend to each other.
    pub fn new(
        config: &EncoderConfig,
        role: Role,
        image_px: (usize, usize),
        channels: usize,
        builder: &mut Builder,
    ) -> Result<Self> {
        let swin = |design, builder| Swin::new(&design, role, image_px, channels, builder).map(Encoder::Swin);
        match config {
            EncoderConfig::Vit(config) => Vit::new(config, role, image_px, channels, builder).map(Encoder::Vit),
            EncoderConfig::Swin(config) => swin(config.design(), builder),
            EncoderConfig::SwinV2(config) => swin(config.design(), builder),
        }
    }
}

/// Checks that there is memory for tables of all pairs of tokens that attend to each other.
fn check_pairs(tokens: usize, tables: u64) -> Result<()> {
    let bytes = tables * memory::of_values(tokens * tokens);
    memory::check(|| format!("{tables} tables of all pairs of {tokens} tokens"), bytes)
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

    fn encode<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        visible: VisibleTokens,
        needed: NeededFeatures,
        context: &mut ForwardContext,
    ) -> B::Tensor {
        match self {
            Encoder::Vit(e) => e.encode(b, tokens, visible, needed, context),
            Encoder::Swin(e) => e.encode(b, tokens, visible, needed, context),
        }
    }

    fn needs_all_tokens(&self) -> Option<&'static str> {
        match self {
            Encoder::Vit(e) => e.needs_all_tokens(),
            Encoder::Swin(e) => e.needs_all_tokens(),
        }
    }

    fn features<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        blocks: &[usize],
        context: &mut ForwardContext,
    ) -> Vec<B::Tensor> {
        match self {
            Encoder::Vit(e) => e.features(b, tokens, blocks, context),
            Encoder::Swin(e) => e.features(b, tokens, blocks, context),
        }
    }

    fn lacks_class_token(&self) -> Option<&'static str> {
        match self {
            Encoder::Vit(e) => e.lacks_class_token(),
            Encoder::Swin(e) => e.lacks_class_token(),
        }
    }

    fn class_token<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        block: Option<usize>,
        context: &mut ForwardContext,
    ) -> B::Tensor {
        match self {
            Encoder::Vit(e) => e.class_token(b, tokens, block, context),
            Encoder::Swin(e) => e.class_token(b, tokens, block, context),
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

    fn is_shared_position(&self, parameter: &str) -> bool {
        match self {
            Encoder::Vit(e) => e.is_shared_position(parameter),
            Encoder::Swin(e) => e.is_shared_position(parameter),
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

    fn flops_not_needed(&self, images: usize, features: usize) -> f64 {
        match self {
            Encoder::Vit(e) => e.flops_not_needed(images, features),
            Encoder::Swin(e) => e.flops_not_needed(images, features),
        }
    }

    fn block_activations(&self) -> Vec<BlockActivations> {
        match self {
            Encoder::Vit(e) => e.block_activations(),
            Encoder::Swin(e) => e.block_activations(),
        }
    }

    fn source_names(&self, parameter: &str) -> Vec<String> {
        match self {
            Encoder::Vit(e) => e.source_names(parameter),
            Encoder::Swin(e) => e.source_names(parameter),
        }
    }

    fn fit(&self, parameter: &Parameter, source: &SourceTensor) -> Fit {
        match self {
            Encoder::Vit(e) => e.fit(parameter, source),
            Encoder::Swin(e) => e.fit(parameter, source),
        }
    }
}
