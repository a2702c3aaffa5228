//! What a model may compute: a closed, coarse set of differentiable operations.
//!
//! An operation is a whole residual branch where that lets an implementation keep the rows of a chunk in cache from the
//! branch's norm to its residual. Losses are sums over what they are given: what a sum is divided by is known only after
//! all micro-batches of a step, on all ranks, and the optimizer applies it.

use crate::parameters::ParameterId;
use std::rc::Rc;

/// A borrowed batch of normalized images.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Values, `[B, C, H, W]`.
    pub pixels: &'a [f32],
    /// Images in the batch.
    pub count: usize,
    /// Channels of each.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl<'a> Images<'a> {
    /// Values of one image, `C·H·W`.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The images of a sub-range, such as one micro-batch.
    pub fn range(&self, range: std::ops::Range<usize>) -> Images<'a> {
        let len = self.image_len();
        Images { pixels: &self.pixels[range.start * len..range.end * len], count: range.len(), ..*self }
    }

    /// Image `i`, `[C, H, W]`.
    pub fn image(&self, i: usize) -> &'a [f32] {
        &self.pixels[i * self.image_len()..][..self.image_len()]
    }
}

/// Arithmetic of products and attention; parameters, sums, statistics and gradients are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 operands.
    F32,
    /// bf16 operands with f32 accumulation; activations kept for the backward pass are bf16.
    Bf16,
}

/// Weight `[out, in]` and optional bias `[out]` of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Weight, `[out, in]` or a convolution's `[out, in, 1, 1]`.
    pub weight: ParameterId,
    /// Bias, `[out]`.
    pub bias: Option<ParameterId>,
}

impl Linear {
    /// The parameters that it reads.
    pub fn parameters(&self) -> Vec<ParameterId> {
        [self.weight].into_iter().chain(self.bias).collect()
    }
}

/// Scale and shift of a layer normalization.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Scale, `[D]`.
    pub weight: ParameterId,
    /// Shift, `[D]`.
    pub bias: ParameterId,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// The parameters that it reads.
    pub fn parameters(&self) -> Vec<ParameterId> {
        vec![self.weight, self.bias]
    }
}

/// Where a residual branch normalizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOrder {
    /// `x + f(norm(x))`: ViT and Swin.
    Pre,
    /// `x + norm(f(x))`: SwinV2's residual post-norm.
    Post,
}

/// Bias of the joint projection to queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum QkvBias {
    /// No bias.
    None,
    /// One bias `[3D]`: Swin.
    Full(ParameterId),
    /// Biases `[D]` of queries and values, none of keys: BEiT-style ViT and SwinV2.
    QueryValue {
        /// Bias of the queries.
        query: ParameterId,
        /// Bias of the values.
        value: ParameterId,
    },
}

/// How queries and keys are compared.
#[derive(Clone, Copy, Debug)]
pub enum Similarity {
    /// `q·k / √E`.
    ScaledDot,
    /// `exp(min(logit_scale, ln 100))·cos(q, k)` with one logit scale per head, `[A, 1, 1]`.
    Cosine {
        /// The logit scales.
        logit_scale: ParameterId,
    },
}

/// Which tokens attend to each other: windows of equal size over a token grid.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Tokens of one window, `M`.
    pub tokens: usize,
    /// `[windows, M]`: the image's token in each slot, or `N` for a padding token (zero input).
    pub slots: Rc<[u32]>,
    /// Distinct score masks `[M, M]`, added before the softmax.
    pub masks: Rc<[Vec<f32>]>,
    /// `[windows]`: which mask a window uses.
    pub mask_of: Rc<[Option<u32>]>,
}

impl Windows {
    /// All `tokens` of an image in one window.
    pub fn whole_image(tokens: usize) -> Self {
        Self { tokens, slots: (0..tokens as u32).collect(), masks: Rc::new([]), mask_of: Rc::new([None]) }
    }

    /// Number of windows per image.
    pub fn count(&self) -> usize {
        self.slots.len() / self.tokens
    }
}

/// Rotary positions (arXiv:2104.09864): queries and keys are turned by angles that depend on the place of their token, so that
/// their product depends on where the tokens are to each other.
///
/// Value `i` of a head is paired with value `i + E/2`: `a' = a·cos − b·sin`, `b' = b·cos + a·sin`. A token without a place,
/// such as a class token, has cosines of 1 and sines of 0.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// Cosines of the angles, `[N, E/2]`.
    pub cosines: Rc<[f32]>,
    /// Their sines, `[N, E/2]`.
    pub sines: Rc<[f32]>,
}

/// The attention half of a block: norm → qkv → attention → projection → layer scale → drop path → residual.
#[derive(Clone, Debug)]
pub struct AttentionBranch {
    /// The branch's normalization.
    pub norm: LayerNorm,
    /// Where it stands.
    pub order: NormOrder,
    /// Attention heads, `A`; divides the width.
    pub heads: usize,
    /// Joint projection weight, `[3D, D]`, queries first.
    pub qkv: ParameterId,
    /// Its bias.
    pub qkv_bias: QkvBias,
    /// Output projection.
    pub projection: Linear,
    /// Scale of the branch, `[D]`.
    pub layer_scale: Option<ParameterId>,
    /// How queries and keys are compared.
    pub similarity: Similarity,
    /// Which tokens attend to each other.
    pub windows: Windows,
    /// `[M, M]`: the row of the bias table for each pair of slots; used if a table is given.
    pub bias_index: Rc<[u32]>,
    /// How queries and keys are turned before they are compared; only where a window is the whole image.
    pub rotary: Option<Rotary>,
}

impl AttentionBranch {
    /// The parameters that it reads itself; a bias table arrives as a tensor.
    pub fn parameters(&self) -> Vec<ParameterId> {
        let qkv_bias = match self.qkv_bias {
            QkvBias::None => Vec::new(),
            QkvBias::Full(bias) => vec![bias],
            QkvBias::QueryValue { query, value } => vec![query, value],
        };
        let logit_scale = match self.similarity {
            Similarity::ScaledDot => None,
            Similarity::Cosine { logit_scale } => Some(logit_scale),
        };
        let others = [self.qkv].into_iter().chain(qkv_bias).chain(self.layer_scale).chain(logit_scale);
        [self.norm.parameters(), self.projection.parameters()].concat().into_iter().chain(others).collect()
    }
}

/// What is between the two linear layers of an MLP with `hidden` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The exact GELU of each value.
    Gelu,
    /// SwiGLU (arXiv:2002.05202): the first layer has `2·hidden` outputs, of which `silu` of the first half multiplies the
    /// second, with `silu(x) = x·sigmoid(x)`.
    SwiGlu,
}

/// The MLP half of a block: norm → linear → activation → linear → layer scale → drop path → residual.
#[derive(Clone, Copy, Debug)]
pub struct MlpBranch {
    /// The branch's normalization.
    pub norm: LayerNorm,
    /// Where it stands.
    pub order: NormOrder,
    /// First linear layer, `[hidden, D]`, or `[2·hidden, D]` for SwiGLU.
    pub fc1: Linear,
    /// What follows it.
    pub activation: Activation,
    /// Second linear layer, `[D, hidden]`.
    pub fc2: Linear,
    /// Scale of the branch, `[D]`.
    pub layer_scale: Option<ParameterId>,
}

impl MlpBranch {
    /// The parameters that it reads.
    pub fn parameters(&self) -> Vec<ParameterId> {
        let mut parameters = [self.norm.parameters(), self.fc1.parameters(), self.fc2.parameters()].concat();
        parameters.extend(self.layer_scale);
        parameters
    }
}

/// SwinV2's MLP from a pair of offsets to a position bias per head.
#[derive(Clone, Copy, Debug)]
pub struct PositionMlp {
    /// First weight, `[hidden, 2]`.
    pub fc1_weight: ParameterId,
    /// First bias, `[hidden]`.
    pub fc1_bias: ParameterId,
    /// Second weight, `[A, hidden]`; there is no second bias.
    pub fc2_weight: ParameterId,
}

impl PositionMlp {
    /// The parameters that it reads.
    pub fn parameters(&self) -> Vec<ParameterId> {
        vec![self.fc1_weight, self.fc1_bias, self.fc2_weight]
    }
}

/// Distance of a predicted value from the true one, `e` being their difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// `|e|`: the paper's choice.
    L1,
    /// `e²`.
    L2,
    /// `e²/(2·beta)` below `beta`, `|e| − beta/2` above it.
    SmoothL1 {
        /// Where the parabola meets the line.
        beta: f32,
    },
}

/// A regression loss over rows of predictions: `Σ weight·distance`.
#[derive(Clone, Copy, Debug)]
pub struct Regression<'a> {
    /// What is summed.
    pub distance: Distance,
    /// True values, `[R, C, S]`.
    pub target: &'a [f32],
    /// Weight of each value, shared by channels, `[R, S]`.
    pub weight: &'a [f32],
    /// Channels of a row, `C`.
    pub channels: usize,
}

/// A classification loss over rows of logits: `Σ weight·(−log softmax(logits)[id])`.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// True classes, each below `classes`, `[R, C, S]`.
    pub ids: &'a [u32],
    /// Weight of each choice, shared by channels, `[R, S]`.
    pub weight: &'a [f32],
    /// Channels of a row that are each a choice of their own, `C`.
    pub channels: usize,
    /// Classes of a choice, `K`.
    pub classes: usize,
}

/// How many classes an image belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// One: classes share a softmax.
    One,
    /// Any number: each class has a sigmoid of its own.
    Many,
}

/// A loss of soft labels over rows of logits: `Σ weight·target·(−log p)` for one class an
/// image, `Σ weight·(target·(−log p) + (1 − target)·(−log(1 − p)))` for many.
#[derive(Clone, Copy, Debug)]
pub struct SoftLabels<'a> {
    /// How many classes an image belongs to.
    pub labels: Labels,
    /// Probability of each class, `[R, K]`.
    pub target: &'a [f32],
    /// Weight of each class in each row, `[R, K]`.
    pub weight: &'a [f32],
}

/// A negative log-likelihood of Laplace distributions, up to a constant: `Σ (|t − μ|/b + ln b)`.
#[derive(Clone, Copy, Debug)]
pub struct Laplace<'a> {
    /// True values `t`, `[.., C]`.
    pub target: &'a [f32],
}

/// A part of a model that is run on its own: by [`Operations::recompute`] a second time, by [`Operations::frozen`] without
/// gradients. It owns everything it reads except its input.
pub type Segment<B> = Box<dyn Fn(&B, &<B as Operations>::Tensor) -> <B as Operations>::Tensor>;

/// The operations a model may use. Tensors are f32 (or wider), row-major and cheap to clone.
///
/// Gradients flow into every tensor argument and every parameter, except where noted.
pub trait Operations: Sized {
    /// A tensor of this backend.
    type Tensor: Clone + 'static;

    /// A tensor holding `data`.
    ///
    /// # Panics
    /// If `data` does not fill `shape`.
    fn tensor(&self, shape: &[usize], data: &[f32]) -> Self::Tensor;

    /// The shape of a tensor.
    fn shape(&self, x: &Self::Tensor) -> Vec<usize>;

    /// The values of a tensor.
    fn read(&self, x: &Self::Tensor) -> Vec<f32>;

    /// The same values in another shape of as many values.
    fn reshape(&self, x: &Self::Tensor, shape: &[usize]) -> Self::Tensor;

    /// A parameter as a tensor of its own shape, for operations that take tables.
    fn parameter(&self, id: ParameterId) -> Self::Tensor;

    /// Patch embedding: a convolution whose stride is its kernel `(p_h, p_w)`.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, weight `[D, C, p_h, p_w]` → `[B, N, D]`. No gradient to the images.
    fn patch_embed(&self, images: &Images, patch: (usize, usize), linear: &Linear) -> Self::Tensor;

    /// Replaces hidden tokens by the mask token: `hidden` is `[B, N]`, `true` = hidden.
    ///
    /// # Shapes
    /// `[B, N, D]`, mask token `[1, 1, D]` → `[B, N, D]`.
    fn mask_tokens(&self, x: &Self::Tensor, hidden: &[bool], mask_token: ParameterId) -> Self::Tensor;

    /// Puts learned tokens in front of each image's tokens.
    ///
    /// # Shapes
    /// `[B, N, D]`, tokens `[1, T, D]` → `[B, T + N, D]`.
    fn prepend_tokens(&self, x: &Self::Tensor, tokens: ParameterId) -> Self::Tensor;

    /// Adds a learned table of positions to each image's tokens.
    ///
    /// # Shapes
    /// `[B, N, D]`, positions `[1, N, D]` → `[B, N, D]`.
    fn add_positions(&self, x: &Self::Tensor, positions: ParameterId) -> Self::Tensor;

    /// The attention half of a block.
    ///
    /// # Shapes
    /// `x` `[B, N, D]` → `[B, N, D]`; `bias_table` `[T, A]`; `drop_path_scale` `[B]` is the factor of each
    /// image's branch: 0 where drop path drops it, absent for 1.
    fn attention_branch(
        &self,
        x: &Self::Tensor,
        branch: &AttentionBranch,
        bias_table: Option<&Self::Tensor>,
        drop_path_scale: Option<&[f32]>,
    ) -> Self::Tensor;

    /// SwinV2's continuous position bias, `16·sigmoid(fc2(relu(fc1(offset))))`, as a bias table for
    /// [`Operations::attention_branch`] (arXiv:2111.09883, section 3.3).
    ///
    /// # Shapes
    /// `offsets` `[T, 2]` → `[T, A]`. No gradient to the offsets.
    fn continuous_position_bias(&self, offsets: &[f32], mlp: &PositionMlp) -> Self::Tensor;

    /// The MLP half of a block.
    ///
    /// # Shapes
    /// `x` `[B, N, D]` → `[B, N, D]`; `drop_path_scale` as for attention.
    fn mlp_branch(&self, x: &Self::Tensor, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> Self::Tensor;

    /// Runs a segment and saves nothing of it for backward but its input: the backward pass runs it again (activation
    /// checkpointing, arXiv:1604.06174). The gradients have the bits of those of the segment run directly.
    ///
    /// # Shapes
    /// Those of `segment`.
    fn recompute(&self, x: &Self::Tensor, segment: Segment<Self>) -> Self::Tensor;

    /// Runs a segment that does not train: nothing of it is saved for backward, and no gradient reaches its parameters, its
    /// input, or what that was computed from by this way.
    ///
    /// # Shapes
    /// Those of `segment`.
    fn frozen(&self, x: &Self::Tensor, segment: Segment<Self>) -> Self::Tensor;

    /// Layer normalization over the last axis.
    ///
    /// # Shapes
    /// `[.., D]` → `[.., D]`.
    fn layer_norm(&self, x: &Self::Tensor, norm: &LayerNorm) -> Self::Tensor;

    /// A linear layer over the last axis.
    ///
    /// # Shapes
    /// `[.., in]` → `[.., out]`.
    fn linear(&self, x: &Self::Tensor, linear: &Linear) -> Self::Tensor;

    /// The exact (erf) GELU of every value.
    fn gelu(&self, x: &Self::Tensor) -> Self::Tensor;

    /// Picks rows of a tensor seen as `[rows, D]`; a row may be picked at most once.
    ///
    /// # Shapes
    /// `[.., D]` → `[R, D]`.
    fn gather_rows(&self, x: &Self::Tensor, rows: &[u32]) -> Self::Tensor;

    /// The mean of each image's tokens.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, D]`.
    fn mean_tokens(&self, x: &Self::Tensor) -> Self::Tensor;

    /// A regression loss.
    ///
    /// # Shapes
    /// `[R, C·S]` → `[1]`.
    fn regression(&self, prediction: &Self::Tensor, loss: &Regression) -> Self::Tensor;

    /// A classification loss, softmax included.
    ///
    /// # Shapes
    /// logits `[R, C·S·K]` → `[1]`.
    fn cross_entropy(&self, logits: &Self::Tensor, loss: &CrossEntropy) -> Self::Tensor;

    /// A classification loss of soft labels, softmax or sigmoid included.
    ///
    /// # Shapes
    /// logits `[R, K]` → `[1]`.
    fn soft_labels(&self, logits: &Self::Tensor, loss: &SoftLabels) -> Self::Tensor;

    /// A convolution of stride 1 with zeros around the image, so that its size stays. Images are
    /// channels last here, as tokens are; a kernel of side 1 is [`Operations::linear`] as well.
    ///
    /// # Shapes
    /// `[B, H, W, C]`, weight `[O, C, k, k]` with odd `k` → `[B, H, W, O]`.
    fn convolution(&self, x: &Self::Tensor, linear: &Linear) -> Self::Tensor;

    /// `max(x, 0)` of every value.
    fn relu(&self, x: &Self::Tensor) -> Self::Tensor;

    /// The largest of each four neighboring pixels.
    ///
    /// # Shapes
    /// `[B, H, W, C]` → `[B, H/2, W/2, C]`.
    fn max_pool(&self, x: &Self::Tensor) -> Self::Tensor;

    /// Each pixel four times.
    ///
    /// # Shapes
    /// `[B, H, W, C]` → `[B, 2H, 2W, C]`.
    fn upsample(&self, x: &Self::Tensor) -> Self::Tensor;

    /// `x + factor·y`, of one shape.
    fn add(&self, x: &Self::Tensor, factor: f32, y: &Self::Tensor) -> Self::Tensor;

    /// A relaxed choice, `softmax((logits + noise) / temperature)` over the last axis: with Gumbel noise, a
    /// differentiable stand-in for a sample (arXiv:1611.01144).
    ///
    /// # Shapes
    /// `[.., K]`, `noise` as long → `[.., K]`. No gradient to the noise.
    fn gumbel_softmax(&self, logits: &Self::Tensor, noise: &[f32], temperature: f32) -> Self::Tensor;

    /// A likelihood loss; the last axis holds every `μ`, then every `ln b`.
    ///
    /// # Shapes
    /// `[.., 2C]` → `[1]`.
    fn laplace(&self, prediction: &Self::Tensor, loss: &Laplace) -> Self::Tensor;

    /// The divergence of choices from the uniform one, `Σ KL(softmax(logits) ‖ uniform)`.
    ///
    /// # Shapes
    /// `[.., K]` → `[1]`.
    fn uniform_divergence(&self, logits: &Self::Tensor) -> Self::Tensor;
}
