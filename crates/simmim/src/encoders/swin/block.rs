//! A Swin block: window attention, then an MLP. Most differences between the two versions are here.

use super::config::{Design, Version};
use super::weight;
use super::windows::StageWindows;
use crate::encoders::needed_features::mlp_branch_of_rows;
use crate::encoders::{BlockActivations, ForwardContext};
use crate::weights::{Builder, Init};
use simmim_engine::{
    Activation, AttentionBranch, LayerNorm, Linear, MlpBranch, NormOrder, Operations, ParameterId, PositionMlp,
    QkvBias, Similarity,
};
use std::rc::Rc;

/// Hidden width of the MLP that computes SwinV2's position bias (microsoft/Swin-Transformer,
/// `models/swin_transformer_v2.py`).
const POSITION_HIDDEN: usize = 512;

/// The parameters of one block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    attention: AttentionBranch,
    position_bias: BiasSource,
    mlp: MlpBranch,
    extra_norm: Option<LayerNorm>,
    drop_rate: f32,
}

/// How the rows of a block's relative position bias table are obtained.
#[derive(Clone, Debug)]
enum BiasSource {
    /// Learned, in Swin.
    Table(ParameterId),
    /// Computed by an MLP from the offsets `[T, 2]`, in SwinV2.
    Continuous { offsets: Vec<f32>, mlp: PositionMlp },
}

/// The location of a block in the encoder.
#[derive(Clone, Copy)]
pub(super) struct BlockLocation<'a> {
    pub(super) stage: usize,
    /// Index of the block within its stage.
    pub(super) block: usize,
    pub(super) windows: &'a StageWindows,
    pub(super) width: usize,
    pub(super) drop_rate: f32,
}

impl Version {
    pub(super) fn norm_order(&self) -> NormOrder {
        match self {
            Version::One => NormOrder::Pre,
            Version::Two { .. } => NormOrder::Post,
        }
    }

    fn has_extra_norm_after(&self, block: usize) -> bool {
        match self {
            Version::One | Version::Two { extra_norm_every: 0, .. } => false,
            Version::Two { extra_norm_every, .. } => (block + 1).is_multiple_of(*extra_norm_every),
        }
    }
}

impl Block {
    /// Builds a block and adds its parameters.
    pub(super) fn new(design: &Design, location: BlockLocation, b: &mut Builder) -> Self {
        let Design { sizes, version } = design;
        let (order, width, heads) = (version.norm_order(), location.width, sizes.heads[location.stage]);
        let draw = |outputs, inputs| sizes.init.rule(weight(), outputs, inputs);
        let norm1 = branch_norm(b, "norm1", width, order, sizes.norm_eps);
        let (similarity, position_bias, qkv, qkv_bias, projection) = b.scope("attn", |b| {
            let (similarity, position_bias) = similarity_and_bias(design, location, b);
            let qkv = b.add("qkv.weight", &[3 * width, width], draw(3 * width, width));
            let mut bias = |name: &str, len: usize| b.add(name, &[len], Init::Constant(0.0));
            let qkv_bias = match (sizes.qkv_bias, version) {
                (false, _) => QkvBias::None,
                (true, Version::One) => QkvBias::Full(bias("qkv.bias", 3 * width)),
                (true, Version::Two { .. }) => {
                    QkvBias::QueryValue { query: bias("q_bias", width), value: bias("v_bias", width) }
                }
            };
            (similarity, position_bias, qkv, qkv_bias, b.linear("proj", width, width, draw(width, width)))
        });
        let norm2 = branch_norm(b, "norm2", width, order, sizes.norm_eps);
        let hidden = sizes.hidden(width);
        let [fc1, fc2]: [Linear; 2] = b.scope("mlp", |b| {
            [b.linear("fc1", hidden, width, draw(hidden, width)), b.linear("fc2", width, hidden, draw(width, hidden))]
        });
        let extra_norm =
            version.has_extra_norm_after(location.block).then(|| b.layer_norm("norm3", width, sizes.norm_eps));
        Self {
            attention: AttentionBranch {
                norm: norm1,
                order,
                heads,
                qkv,
                qkv_bias,
                projection,
                layer_scale: None,
                similarity,
                windows: location.windows.of_block(location.block),
                bias_index: Rc::clone(&location.windows.bias_index),
                rotary: None,
            },
            position_bias,
            mlp: MlpBranch { norm: norm2, order, fc1, activation: Activation::Gelu, fc2, layer_scale: None },
            extra_norm,
            drop_rate: location.drop_rate,
        }
    }

    /// The MLP, and what follows it, leaves out all tokens but those in `kept`, rows of the output.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, N, D]`; with `kept`, `[R, 1, D]`.
    pub(super) fn forward<B: Operations>(
        self: &Rc<Self>,
        b: &B,
        x: &B::Tensor,
        kept: Option<Rc<[u32]>>,
        context: &mut ForwardContext,
    ) -> B::Tensor {
        let drop_path_scale = [(); 2].map(|()| context.drop_path_scale(self.drop_rate));
        let block = Rc::clone(self);
        context.through(b, x, move |b, x| {
            let table = match &block.position_bias {
                BiasSource::Table(table) => b.parameter(*table),
                BiasSource::Continuous { offsets, mlp } => b.continuous_position_bias(offsets, mlp),
            }; // [T, A]
            let x = b.attention_branch(x, &block.attention, Some(&table), drop_path_scale[0].as_deref());
            let x = match &kept {
                None => b.mlp_branch(&x, &block.mlp, drop_path_scale[1].as_deref()),
                Some(rows) => mlp_branch_of_rows(b, &x, rows, &block.mlp, drop_path_scale[1].as_deref()),
            };
            match &block.extra_norm {
                None => x,
                Some(norm) => b.layer_norm(&x, norm),
            }
        })
    }

    /// What the block saves of one image for the backward pass; `tokens` and `width` are those of its stage.
    pub(super) fn activations(&self, tokens: usize, width: usize, hidden: usize) -> BlockActivations {
        let windows = &self.attention.windows;
        let scores = self.attention.heads * windows.count() * windows.tokens * windows.tokens;
        let is_post_norm = match self.attention.order {
            NormOrder::Pre => false,
            NormOrder::Post => true,
        };
        BlockActivations::new(tokens, width, hidden, scores, false, is_post_norm)
    }

    /// FLOPs of the forward pass of one image; `tokens` and `width` are those of its stage.
    pub(super) fn flops(&self, tokens: usize, width: usize, hidden: usize) -> f64 {
        let windows = &self.attention.windows;
        let projections = 8 * tokens * width * width;
        let attention = 4 * windows.count() * windows.tokens * windows.tokens * width;
        (projections + attention) as f64 + mlp_flops(tokens, width, hidden)
    }
}

/// FLOPs of the forward pass of the MLP for `tokens` tokens.
pub(super) fn mlp_flops(tokens: usize, width: usize, hidden: usize) -> f64 {
    (4 * tokens * width * hidden) as f64
}

/// The similarity of queries and keys, and the source of the position bias.
fn similarity_and_bias(design: &Design, location: BlockLocation, b: &mut Builder) -> (Similarity, BiasSource) {
    let (heads, windows) = (design.sizes.heads[location.stage], location.windows);
    match &design.version {
        Version::One => {
            let table = b.add("relative_position_bias_table", &[windows.relative_positions(), heads], weight());
            (Similarity::ScaledDot, BiasSource::Table(table))
        }
        Version::Two { pretrained_window_size, .. } => {
            let logit_scale = b.add("logit_scale", &[heads, 1, 1], Init::Constant(10f32.ln()));
            let mlp = b.scope("cpb_mlp", |b| PositionMlp {
                fc1_weight: b.add("0.weight", &[POSITION_HIDDEN, 2], weight()),
                fc1_bias: b.add("0.bias", &[POSITION_HIDDEN], Init::Constant(0.0)),
                fc2_weight: b.add("2.weight", &[heads, POSITION_HIDDEN], weight()),
            });
            let pretrained_side = match pretrained_window_size.get(location.stage) {
                None | Some(0) => windows.side,
                Some(pretrained) => *pretrained,
            };
            let offsets = log_spaced_offsets(windows.side, pretrained_side);
            (Similarity::Cosine { logit_scale }, BiasSource::Continuous { offsets, mlp })
        }
    }
}

/// The norm of a branch. In SwinV2 its scale is initialized with zero, so that every block starts as the identity.
fn branch_norm(b: &mut Builder, name: &str, width: usize, order: NormOrder, eps: f32) -> LayerNorm {
    let scale = match order {
        NormOrder::Pre => 1.0,
        NormOrder::Post => 0.0,
    };
    b.scope(name, |b| LayerNorm {
        weight: b.add("weight", &[width], Init::Constant(scale)),
        bias: b.add("bias", &[width], Init::Constant(0.0)),
        eps,
    })
}

/// Log-spaced coordinates `[(2·side − 1)², 2]` of the offsets within a window, the input of SwinV2's position MLP:
/// divided by `pretrained_side − 1`, times 8, on a logarithmic scale (arXiv:2111.09883, section 3.3; the 8 is from
/// microsoft/Swin-Transformer, `models/swin_transformer_v2.py`).
fn log_spaced_offsets(side: usize, pretrained_side: usize) -> Vec<f32> {
    let unit = (pretrained_side - 1).max(1) as f32; // a window of one token has only the offset 0
    let offset = |i: usize| {
        let x = (i as f32 - (side - 1) as f32) / unit * 8.0;
        (x.abs() + 1.0).log2().copysign(x) / 8f32.log2()
    };
    let axis = 0..2 * side - 1;
    axis.clone().flat_map(|y| axis.clone().flat_map(move |x| [offset(y), offset(x)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_logarithmic_and_relative_to_the_pretrained_window() {
        // side 3 by hand: offsets −2, −1, 0, 1, 2 over 2, times 8: ±8, ±4, 0
        let axis = [-9f32, -5.0, 1.0, 5.0, 9.0].map(|v| v.abs().log2().copysign(v) / 3.0);
        let offsets = log_spaced_offsets(3, 3);
        let expected: Vec<f32> = axis.iter().flat_map(|y| axis.iter().flat_map(move |x| [*y, *x])).collect();
        assert!(offsets.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{offsets:?}");
        // relative to a window of 5: ±4, ±2, 0
        assert!((log_spaced_offsets(3, 5)[0] + 5f32.log2() / 3.0).abs() < 1e-6);
        assert_eq!(log_spaced_offsets(1, 1), [0.0, 0.0]);
    }
}
