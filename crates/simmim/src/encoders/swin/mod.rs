//! Swin and SwinV2: attention within shifted windows, in stages that halve the grid and double the width
//! (arXiv:2103.14030, arXiv:2111.09883).
//!
//! Parameter names, layouts and initialization follow microsoft/SimMIM, `models/swin_transformer.py`, and
//! microsoft/Swin-Transformer, `models/swin_transformer_v2.py`. There is no official code for SwinV2's extra norm; it
//! follows open-mmlab/mmpretrain, `models/backbones/swin_transformer_v2.py`.
//!
//! A grid that the window does not divide is padded. An image size that the stride does not divide is an error, because
//! each feature predicts a whole square of pixels, and with padding some of them would be partly outside of the image.

mod block;
mod blocks;
mod config;
mod deduce;
mod windows;

pub(crate) use blocks::SwinBlocks;
pub(super) use config::Design;
pub use config::{SwinConfig, SwinV2Config};
pub(super) use deduce::deduce;

use super::forward_context::drop_rate;
use super::resize::{resize_bias_table, resize_positions};
use super::{
    BlockActivations, Encode, EncoderSpec, Fit, ForwardContext, NeededFeatures, Role, SourceTensor, VisibleTokens,
    plain_name,
};
use crate::error::Result;
use crate::weights::{Builder, Init};
use block::{Block, BlockLocation, mlp_flops};
use config::NORM_EPS;
use simmim_engine::{Images, LayerNorm, Linear, NormOrder, Operations, Parameter, ParameterId};
use std::rc::Rc;
use windows::StageWindows;

/// Standard deviation of initial weights, tables and tokens.
const WEIGHT_STD: f32 = 0.02;

/// Truncation of initial weights: the default bound of timm's `trunc_normal_`, which is 100 standard deviations.
const WEIGHT_CUT: f32 = 2.0;

fn weight() -> Init {
    Init::Normal { std: WEIGHT_STD, cut: WEIGHT_CUT, factor: 1.0 }
}

/// A Swin Transformer, V1 or V2.
#[derive(Clone, Debug)]
pub struct Swin {
    sizes: SwinConfig,
    role: Role,
    image_px: (usize, usize),
    channels: usize,
    patch_embed: Linear,
    patch_norm: Option<LayerNorm>,
    positions: Option<ParameterId>,
    stages: Vec<Stage>,
    norm: LayerNorm,
}

#[derive(Clone, Debug)]
struct Stage {
    grid: (usize, usize),
    width: usize,
    blocks: Vec<Rc<Block>>,
    merge: Option<Rc<Merge>>,
}

/// Patch merging: concatenates 2×2 tokens to one of width `4D` and reduces it to `2D`.
#[derive(Clone, Debug)]
struct Merge {
    /// Tokens of an image, in the order in which they are concatenated.
    order: Vec<u32>,
    norm: LayerNorm,
    norm_order: NormOrder,
    reduction: Linear,
}

impl Swin {
    /// Builds a Swin Transformer and adds its parameters to `builder`, under the official names.
    ///
    /// # Errors
    /// If there is no memory for tables of all pairs of tokens of a window.
    pub(super) fn new(
        design: &Design,
        role: Role,
        image_px: (usize, usize),
        channels: usize,
        builder: &mut Builder,
    ) -> Result<Self> {
        let sizes = &design.sizes;
        let (patch, width, stages) = (sizes.patch_px, sizes.width, sizes.depths.len());
        let grid = (image_px.0 / patch, image_px.1 / patch);
        StageWindows::check_memory(grid, sizes.window)?; // no later stage has larger windows
        builder.scope(role.scope(), |b| {
            let positions =
                sizes.absolute_positions.then(|| b.add("absolute_pos_embed", &[1, grid.0 * grid.1, width], weight()));
            let (patch_embed, patch_norm) = b.scope("patch_embed", |b| {
                // PyTorch's default for convolutions
                let init = Init::Uniform { bound: 1.0 / ((channels * patch * patch) as f32).sqrt() };
                let linear = Linear {
                    weight: b.add("proj.weight", &[width, channels, patch, patch], init),
                    bias: Some(b.add("proj.bias", &[width], init)),
                };
                (linear, sizes.patch_norm.then(|| b.layer_norm("norm", width, NORM_EPS)))
            });
            let stages = (0..stages)
                .map(|i| {
                    let grid = (grid.0 >> i, grid.1 >> i);
                    b.scope(&format!("layers.{i}"), |b| Stage::new(design, i, grid, i + 1 == stages, b))
                })
                .collect::<Vec<_>>();
            let norm = b.layer_norm("norm", sizes.out_width(), sizes.norm_eps);
            let sizes = sizes.clone();
            Ok(Self { sizes, role, image_px, channels, patch_embed, patch_norm, positions, stages, norm })
        })
    }
}

impl Stage {
    fn tokens(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    fn new(design: &Design, stage: usize, grid: (usize, usize), is_last: bool, b: &mut Builder) -> Self {
        let sizes = &design.sizes;
        let width = sizes.width << stage;
        let windows = StageWindows::new(grid, sizes.window);
        let before: usize = sizes.depths[..stage].iter().sum();
        let blocks = (0..sizes.depths[stage]).map(|block| {
            let drop_rate = drop_rate(sizes.drop_path, before + block, sizes.depth());
            let location = BlockLocation { stage, block, windows: &windows, width, drop_rate };
            b.scope(&format!("blocks.{block}"), |b| Rc::new(Block::new(design, location, b)))
        });
        let blocks = blocks.collect();
        let merge = (!is_last).then(|| b.scope("downsample", |b| Rc::new(Merge::new(design, grid, width, b))));
        Self { grid, width, blocks, merge }
    }
}

impl Merge {
    fn new(design: &Design, (h, w): (usize, usize), width: usize, b: &mut Builder) -> Self {
        let norm_order = design.version.norm_order();
        let (from, to) = (4 * width, 2 * width);
        let first = design.sizes.init.rule(weight(), to, from);
        assert!(h % 2 == 0 && w % 2 == 0, "a grid of {h}×{w} tokens cannot be merged in groups of 2×2");
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)]; // the official order
        let merged = (0..h / 2).flat_map(|y| (0..w / 2).map(move |x| (2 * y, 2 * x)));
        Self {
            order: merged.flat_map(|(y, x)| corners.map(|(i, j)| ((y + i) * w + x + j) as u32)).collect(),
            reduction: Linear { weight: b.add("reduction.weight", &[to, from], first), bias: None },
            norm: match norm_order {
                NormOrder::Pre => b.layer_norm("norm", from, NORM_EPS),
                NormOrder::Post => b.layer_norm("norm", to, NORM_EPS),
            },
            norm_order,
        }
    }

    /// # Shapes
    /// `[B, N, D]` → `[B, N/4, 2D]`.
    fn forward<B: Operations>(&self, b: &B, x: &B::Tensor) -> B::Tensor {
        let [images, tokens, width] = b.shape(x)[..] else { panic!("tokens are [B, N, D]") };
        let rows: Vec<u32> =
            (0..images).flat_map(|i| self.order.iter().map(move |t| (i * tokens) as u32 + t)).collect();
        let x = b.reshape(&b.gather_rows(x, &rows), &[images, tokens / 4, 4 * width]); // [B, N/4, 4D]
        match self.norm_order {
            NormOrder::Pre => b.linear(&b.layer_norm(&x, &self.norm), &self.reduction),
            NormOrder::Post => b.layer_norm(&b.linear(&x, &self.reduction), &self.norm),
        }
    }
}

impl Swin {
    /// Runs the tokens through the first `blocks` blocks and the merging between stages. `after` is called with the
    /// number of each block, from 1 over all stages, and its output. The last of these blocks leaves out all
    /// tokens but those in `kept`, rows of its output.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, N/4ⁱ, 2ⁱ·D]` in stage `i`, from 0. With `kept`, `[R, 1, 2ⁱ·D]`.
    fn run<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        blocks: usize,
        kept: Option<Rc<[u32]>>,
        context: &mut ForwardContext,
        mut after: impl FnMut(usize, &Stage, &B::Tensor),
    ) -> B::Tensor {
        assert!(blocks <= self.sizes.depth(), "there are {} blocks, not {blocks}", self.sizes.depth());
        let mut x = tokens;
        if let Some(positions) = self.positions {
            x = b.add_positions(&x, positions);
        }
        let mut done = 0;
        for stage in &self.stages {
            for block in stage.blocks.iter().take(blocks - done) {
                let kept = kept.clone().filter(|_| done + 1 == blocks);
                x = block.forward(b, &x, kept, context);
                done += 1;
                after(done, stage, &x);
            }
            if done == blocks {
                break;
            }
            if let Some(merge) = &stage.merge {
                let merge = Rc::clone(merge);
                x = match context.is_frozen() {
                    true => b.frozen(&x, Box::new(move |b, x| merge.forward(b, x))),
                    false => merge.forward(b, &x),
                }; // [B, N/4, 2D]
            }
        }
        x
    }

    fn fit_positions(&self, parameter: &Parameter, source: &SourceTensor) -> Fit {
        let [1, rows, width] = *source.shape else { return Fit::Incompatible };
        let own = (self.image_px.0 / self.sizes.patch_px, self.image_px.1 / self.sizes.patch_px);
        match source.grid_of(rows) {
            _ if width != parameter.shape[2] => Fit::Incompatible,
            None => Fit::Reinitialized(format!("the grid of its {rows} rows is not known")),
            Some(from) if from == own => Fit::Same,
            Some(from) => Fit::Resized(resize_positions(source.values, from, own)),
        }
    }
}

/// The fit of the relative position bias table of a square window.
fn fit_bias_table(parameter: &Parameter, source: &SourceTensor) -> Fit {
    let ([rows, heads], [own_rows, own_heads]) = (source.shape, &parameter.shape[..]) else { return Fit::Incompatible };
    let (from, to) = (rows.isqrt(), own_rows.isqrt());
    if heads != own_heads {
        return Fit::Reinitialized(format!("it is for {heads} heads, not {own_heads}"));
    }
    match from * from == *rows && from % 2 == 1 {
        false => Fit::Incompatible,
        true if from == to => Fit::Same,
        true => Fit::Resized(resize_bias_table(source.values, (from, from), (to, to))),
    }
}

impl SwinConfig {
    fn depth(&self) -> usize {
        self.depths.iter().sum()
    }

    fn out_width(&self) -> usize {
        self.width << (self.depths.len() - 1)
    }

    fn hidden(&self, width: usize) -> usize {
        (width as f64 * self.mlp_ratio) as usize
    }
}

impl Encode for Swin {
    fn spec(&self) -> EncoderSpec {
        EncoderSpec {
            image_px: self.image_px,
            channels: self.channels,
            patch_px: self.sizes.patch_px,
            stride_px: self.sizes.stride_px(),
            width: self.sizes.width,
            out_width: self.sizes.out_width(),
            depth: self.sizes.depth(),
        }
    }

    fn embed<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor {
        let patch = (self.sizes.patch_px, self.sizes.patch_px);
        let x = b.patch_embed(images, patch, &self.patch_embed); // [B, N, D]
        match &self.patch_norm {
            None => x,
            Some(norm) => b.layer_norm(&x, norm),
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
        match visible {
            VisibleTokens::All => {}
            VisibleTokens::Rows(_) => panic!("tokens are left out of an encoder that needs all"),
        }
        let rows = match needed {
            NeededFeatures::All => None,
            NeededFeatures::Rows(rows) => Some(rows),
        };
        let x = self.run(b, tokens, self.sizes.depth(), rows.map(Rc::from), context, |_, _, _| ());
        let x = b.layer_norm(&x, &self.norm);
        match rows {
            None => x,
            Some(rows) => b.reshape(&x, &[rows.len(), self.sizes.out_width()]),
        }
    }

    fn needs_all_tokens(&self) -> Option<&'static str> {
        Some("its windows and its patch merging need the whole grid of tokens")
    }

    fn features<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        blocks: &[usize],
        context: &mut ForwardContext,
    ) -> Vec<B::Tensor> {
        let mut maps = Vec::new();
        self.run(b, tokens, blocks.last().copied().unwrap_or(0), None, context, |block, stage, x| {
            if blocks.contains(&block) {
                maps.push(b.reshape(x, &[b.shape(x)[0], stage.grid.0, stage.grid.1, stage.width]));
            }
        });
        maps
    }

    fn lacks_class_token(&self) -> Option<&'static str> {
        Some("this architecture has none")
    }

    fn class_token<B: Operations>(&self, _: &B, _: B::Tensor, _: Option<usize>, _: &mut ForwardContext) -> B::Tensor {
        panic!("this architecture has no class token");
    }

    fn pool<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor {
        b.mean_tokens(features)
    }

    fn mask_token_init(&self) -> Init {
        weight()
    }

    fn head_init(&self) -> Init {
        weight()
    }

    fn layer_of(&self, parameter: &str) -> usize {
        let name = plain_name(parameter);
        let depths = &self.sizes.depths;
        let parts: Vec<&str> = name.split('.').collect();
        let number = |part: &str| part.parse::<usize>().ok();
        match parts[..] {
            ["mask_token"] | ["patch_embed", ..] => 0,
            ["layers", stage, ref inside @ ..] => match (number(stage), inside) {
                (Some(stage), ["blocks", block, ..]) => {
                    depths[..stage].iter().sum::<usize>() + number(block).map_or(0, |block| block + 1)
                }
                (Some(stage), _) => depths[..=stage].iter().sum(),
                (None, _) => self.sizes.depth() + 1,
            },
            // absolute position embeddings too: the official code does not list them
            _ => self.sizes.depth() + 1,
        }
    }

    fn is_shared_position(&self, parameter: &str) -> bool {
        plain_name(parameter) == "absolute_pos_embed"
    }

    fn is_exempt_from_decay(&self, parameter: &str) -> bool {
        let is_named = matches!(plain_name(parameter), "mask_token" | "absolute_pos_embed");
        match self.role {
            // the keywords of the official pre-training code never match here (see `DecayGroups::Official`)
            Role::Pretrain => is_named,
            Role::Classify => is_named || self.is_position_or_mask(parameter),
        }
    }

    fn is_position_or_mask(&self, parameter: &str) -> bool {
        ["relative_position_bias_table", "cpb_mlp", "logit_scale"].iter().any(|part| parameter.contains(part))
    }

    fn flops(&self) -> f64 {
        let Self { sizes, channels, .. } = self;
        let embed = 2 * self.stages[0].tokens() * sizes.width * channels * sizes.patch_px * sizes.patch_px;
        let stage = |stage: &Stage| {
            let hidden = sizes.hidden(stage.width);
            let blocks: f64 = stage.blocks.iter().map(|b| b.flops(stage.tokens(), stage.width, hidden)).sum();
            let merge = stage.merge.as_ref().map_or(0, |_| 2 * stage.tokens() / 4 * 4 * stage.width * 2 * stage.width);
            blocks + merge as f64
        };
        embed as f64 + self.stages.iter().map(stage).sum::<f64>()
    }

    fn flops_not_needed(&self, images: usize, features: usize) -> f64 {
        let last = self.stages.last().expect("a Swin has a stage");
        mlp_flops(images * last.tokens() - features, last.width, self.sizes.hidden(last.width))
    }

    fn block_activations(&self) -> Vec<BlockActivations> {
        let of = |stage: &Stage| {
            let (tokens, width, hidden) = (stage.tokens(), stage.width, self.sizes.hidden(stage.width));
            stage.blocks.iter().map(move |block| block.activations(tokens, width, hidden)).collect::<Vec<_>>()
        };
        self.stages.iter().flat_map(of).collect()
    }

    fn source_names(&self, parameter: &str) -> Vec<String> {
        let name = plain_name(parameter);
        // the former name in published weights (microsoft/Swin-Transformer, `utils_simmim.py`)
        let earlier = name.contains("cpb_mlp").then(|| name.replace("cpb_mlp", "rpe_mlp"));
        [name.to_owned()].into_iter().chain(earlier).collect()
    }

    fn fit(&self, parameter: &Parameter, source: &SourceTensor) -> Fit {
        match plain_name(&parameter.name) {
            "absolute_pos_embed" => self.fit_positions(parameter, source),
            name if name.ends_with("relative_position_bias_table") => fit_bias_table(parameter, source),
            _ => source.unresized(parameter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoders::WeightInit;
    use crate::testing::open;
    use crate::weights::initial_values;
    use crate::weights::initialize;

    fn config(depths: &[usize], window: usize) -> SwinConfig {
        SwinConfig {
            patch_px: 4,
            width: 8,
            depths: depths.to_vec(),
            heads: (0..depths.len()).map(|stage| 1 << stage).collect(),
            window,
            mlp_ratio: 2.0,
            qkv_bias: true,
            patch_norm: true,
            absolute_positions: true,
            norm_eps: 1e-5,
            drop_path: 0.0,
            init: WeightInit::Normal,
        }
    }

    #[test]
    fn layers_are_counted_as_the_official_code_does() {
        let swin =
            Swin::new(&config(&[2, 2, 18, 2], 6).design(), Role::Pretrain, (192, 192), 3, &mut Builder::default())
                .unwrap();
        for (name, layer) in [
            ("encoder.mask_token", 0),
            ("encoder.patch_embed.norm.weight", 0),
            ("encoder.layers.0.blocks.0.attn.qkv.weight", 1),
            ("encoder.layers.0.downsample.reduction.weight", 2),
            ("encoder.layers.2.blocks.17.mlp.fc1.bias", 22),
            ("encoder.layers.2.downsample.norm.weight", 22),
            ("encoder.layers.3.blocks.1.norm2.weight", 24),
            ("encoder.absolute_pos_embed", 25),
            ("encoder.norm.weight", 25),
            ("decoder.0.weight", 25),
        ] {
            assert_eq!(swin.layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn corrected_grouping_exempts_position_biases_and_logit_scales() {
        let swin = Swin::new(&config(&[2], 6).design(), Role::Pretrain, (64, 64), 3, &mut Builder::default()).unwrap();
        let of = |name: &str| {
            let name = format!("encoder.layers.0.blocks.0.attn.{name}");
            (swin.is_exempt_from_decay(&name), swin.is_position_or_mask(&name))
        };
        assert_eq!(of("relative_position_bias_table"), (false, true));
        assert_eq!(of("cpb_mlp.2.weight"), (false, true));
        assert_eq!(of("logit_scale"), (false, true));
        assert_eq!(of("qkv.weight"), (false, false));
        assert!(swin.is_exempt_from_decay("encoder.mask_token"));
    }

    #[test]
    fn xavier_weights_depend_on_the_size_of_their_layer() {
        let mean_square = |init, layer: &str| {
            let mut builder = Builder::default();
            let config = SwinConfig { init, ..config(&[2, 2], 4) };
            Swin::new(&config.design(), Role::Pretrain, (32, 32), 3, &mut builder).unwrap();
            let (table, inits) = builder.finish();
            let values = initial_values(&table, &inits, 0);
            let parameter = table.iter().find(|p| p.name.ends_with(layer)).unwrap();
            let values = &values[parameter.range.clone()];
            values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32
        };
        for (layer, fans) in [
            ("layers.1.blocks.0.attn.qkv.weight", 16 + 48),
            ("layers.1.blocks.0.attn.proj.weight", 16 + 16),
            ("layers.1.blocks.0.mlp.fc1.weight", 16 + 32),
            ("layers.1.blocks.0.mlp.fc2.weight", 16 + 32),
            ("layers.0.downsample.reduction.weight", 32 + 16),
        ] {
            let (normal, xavier) = (mean_square(WeightInit::Normal, layer), mean_square(WeightInit::Xavier, layer));
            let (official, fitting) = (WEIGHT_STD * WEIGHT_STD, 2.0 / fans as f32);
            assert!((normal / official - 1.0).abs() < 0.3, "{layer}: {normal}");
            assert!((xavier / fitting - 1.0).abs() < 0.3, "{layer}: {xavier}");
        }
    }

    #[test]
    fn an_image_of_any_multiple_of_the_stride_is_encoded() {
        // stages of 4×12 and 2×6 tokens: windows of 3 need padding in the first and become 2 in the second
        let (height, width) = (16, 48);
        let mut builder = Builder::default();
        let swin = Swin::new(&config(&[2, 2], 3).design(), Role::Pretrain, (height, width), 3, &mut builder).unwrap();
        let (table, inits) = builder.finish();
        let b = open(table);
        initialize(&b, &inits, 0);
        let pixels: Vec<f32> = (0..2 * 3 * height * width).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        let images = Images { pixels: &pixels, count: 2, channels: 3, height, width };
        let tokens = swin.embed(&b, &images);
        assert_eq!(b.shape(&tokens), [2, 4 * 12, 8]);
        let features =
            swin.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate());
        assert_eq!(b.shape(&features), [2, 2 * 6, 16]);
        assert!(b.read(&features).iter().all(|v| v.is_finite()));

        let maps = swin.features(&b, swin.embed(&b, &images), &[1, 2, 4], &mut ForwardContext::evaluate());
        let shapes: Vec<_> = maps.iter().map(|map| b.shape(map)).collect();
        assert_eq!(shapes, [[2, 4, 12, 8], [2, 4, 12, 8], [2, 2, 6, 16]]);
        assert_eq!(b.read(&b.layer_norm(&maps[2], &swin.norm)), b.read(&features));
    }
}
