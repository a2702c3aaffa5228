//! The ViT of the paper (arXiv:2111.09886): BEiT's variant (arXiv:2106.08254) of the vision transformer
//! (arXiv:2010.11929).
//!
//! It has a class token, relative position bias (one table shared by all blocks, or one per block) or absolute position
//! embeddings, a bias for queries and values but not for keys, layer scale and pre-norm; and, if asked for, register tokens
//! (arXiv:2309.16588) and SwiGLU as DINOv2 has them, and rotary positions as in DINOv3. Parameter names, layouts and
//! initialization follow microsoft/SimMIM, `models/vision_transformer.py`.

mod config;
mod deduce;
mod position_tables;
mod relative_positions;
mod rotary;

pub use config::{Mlp, PositionBias, VitConfig};
pub(super) use deduce::deduce;

use super::forward_context::drop_rate;
use super::needed_features::mlp_branch_of_rows;
use super::{
    BlockActivations, Encode, EncoderSpec, Fit, ForwardContext, NeededFeatures, Role, SourceTensor, VisibleTokens,
    check_pairs, plain_name,
};
use crate::error::Result;
use crate::weights::{Builder, Init};
use relative_positions::{relative_position_index, relative_positions};
use simmim_engine::{
    Activation, AttentionBranch, Images, LayerNorm, Linear, MlpBranch, NormOrder, Operations, Parameter, ParameterId,
    QkvBias, Similarity, Windows,
};
use std::rc::Rc;

/// Factor on the initial weights of a classification head (microsoft/SimMIM, `models/vision_transformer.py`,
/// `init_scale`).
const HEAD_SCALE: f32 = 0.001;

/// Name of the relative position bias table that all blocks share.
pub(super) const SHARED_TABLE: &str = "rel_pos_bias.relative_position_bias_table";

/// Standard deviation and truncation of initial weights: the official code truncates at one standard deviation.
const WEIGHT_STD: f32 = 0.02;

/// A vision transformer.
#[derive(Clone, Debug)]
pub struct Vit {
    config: VitConfig,
    image_px: (usize, usize),
    channels: usize,
    patch_embed: Linear,
    class_token: ParameterId,
    registers: Option<ParameterId>,
    positions: Option<ParameterId>,
    shared_bias: Option<ParameterId>,
    blocks: Vec<Rc<Block>>,
    end: End,
}

/// The norm after the last block.
#[derive(Clone, Debug)]
enum End {
    /// Pre-training: a norm over every token.
    Norm(LayerNorm),
    /// Fine-tuning: a norm over the mean of the patch tokens.
    PooledNorm(LayerNorm),
}

#[derive(Clone, Debug)]
struct Block {
    attention: AttentionBranch,
    bias_table: Option<ParameterId>,
    mlp: MlpBranch,
    drop_rate: f32,
}

impl Vit {
    /// Builds a vision transformer and adds its parameters to `builder`, under the official names.
    ///
    /// # Errors
    /// If there is no memory for a table of all pairs of tokens.
    pub fn new(
        config: &VitConfig,
        role: Role,
        image_px: (usize, usize),
        channels: usize,
        builder: &mut Builder,
    ) -> Result<Self> {
        let (width, patch) = (config.width, config.patch_px);
        let grid = (image_px.0 / patch, image_px.1 / patch);
        let patches = grid.0 * grid.1;
        check_pairs(patches + 1, 2)?; // the index below, once as it is computed and once as it is shared
        let bias_index: Rc<[u32]> = relative_position_index(grid).into();
        let rotary = (config.rotary_base > 0.0).then(|| rotary::rotary(config, grid));
        let bias_shape = [relative_positions(grid), config.heads];
        builder.scope(role.scope(), |b| {
            let class_token = b.add("cls_token", &[1, 1, width], normal(1.0));
            let registers =
                (config.registers > 0).then(|| b.add("register_tokens", &[1, config.registers, width], normal(1.0)));
            let positions =
                config.absolute_positions.then(|| b.add("pos_embed", &[1, patches + 1, width], normal(1.0)));
            let patch_embed = b.scope("patch_embed.proj", |b| Linear {
                weight: b.add(
                    "weight",
                    &[width, channels, patch, patch],
                    config.init.rule(normal(1.0), width, channels * patch * patch),
                ),
                bias: Some(b.add("bias", &[width], Init::Constant(0.0))),
            });
            let shared_bias = (config.position_bias == PositionBias::Shared)
                .then(|| b.add(SHARED_TABLE, &bias_shape, Init::Constant(0.0)));
            let blocks = (0..config.depth)
                .map(|i| {
                    b.scope(&format!("blocks.{i}"), |b| {
                        // initial weights of the last layer of both branches decrease with depth (`fix_init_weight`)
                        let depth_scale = 1.0 / (2.0 * (i + 1) as f32).sqrt();
                        let parts = config.mlp.parts();
                        let (hidden, draw) =
                            (config.hidden(), |outputs, inputs| config.init.rule(normal(1.0), outputs, inputs));
                        let gamma = |b: &mut Builder, name| {
                            (config.layer_scale > 0.0)
                                .then(|| b.add(name, &[width], Init::Constant(config.layer_scale)))
                        };
                        let zeros = Init::Constant(0.0);
                        let gamma_1 = gamma(b, "gamma_1");
                        let gamma_2 = gamma(b, "gamma_2");
                        let norm1 = b.layer_norm("norm1", width, config.norm_eps);
                        let (qkv_bias, bias_table, qkv, projection) = b.scope("attn", |b| {
                            let qkv_bias = match config.qkv_bias {
                                false => QkvBias::None,
                                true => QkvBias::QueryValue {
                                    query: b.add("q_bias", &[width], zeros),
                                    value: b.add("v_bias", &[width], zeros),
                                },
                            };
                            let table = (config.position_bias == PositionBias::PerBlock)
                                .then(|| b.add("relative_position_bias_table", &bias_shape, zeros));
                            let qkv = b.add("qkv.weight", &[3 * width, width], draw(3 * width, width));
                            let projection = b.linear("proj", width, width, draw(width, width).scaled(depth_scale));
                            (qkv_bias, table, qkv, projection)
                        });
                        let norm2 = b.layer_norm("norm2", width, config.norm_eps);
                        let (fc1, fc2) = b.scope("mlp", |b| {
                            (
                                b.linear("fc1", parts * hidden, width, draw(parts * hidden, width)),
                                b.linear("fc2", width, hidden, draw(width, hidden).scaled(depth_scale)),
                            )
                        });
                        Rc::new(Block {
                            attention: AttentionBranch {
                                norm: norm1,
                                order: NormOrder::Pre,
                                heads: config.heads,
                                qkv,
                                qkv_bias,
                                projection,
                                layer_scale: gamma_1,
                                similarity: Similarity::ScaledDot,
                                windows: Windows::whole_image(config.registers + 1 + patches),
                                bias_index: Rc::clone(&bias_index),
                                rotary: rotary.clone(),
                            },
                            bias_table,
                            mlp: MlpBranch {
                                norm: norm2,
                                order: NormOrder::Pre,
                                fc1,
                                activation: match config.mlp {
                                    Mlp::Gelu => Activation::Gelu,
                                    Mlp::SwiGlu => Activation::SwiGlu,
                                },
                                fc2,
                                layer_scale: gamma_2,
                            },
                            drop_rate: drop_rate(config.drop_path, i, config.depth),
                        })
                    })
                })
                .collect();
            let end = match role {
                Role::Pretrain => End::Norm(b.layer_norm("norm", width, config.norm_eps)),
                Role::Classify => End::PooledNorm(b.layer_norm("fc_norm", width, config.norm_eps)),
            };
            Ok(Self {
                config: config.clone(),
                image_px,
                channels,
                patch_embed,
                class_token,
                registers,
                positions,
                shared_bias,
                blocks,
                end,
            })
        })
    }
}

/// The truncated normal distribution of the official code, for weights and tokens.
fn normal(factor: f32) -> Init {
    Init::Normal { std: WEIGHT_STD, cut: WEIGHT_STD, factor }
}

impl Vit {
    fn grid(&self) -> (usize, usize) {
        (self.image_px.0 / self.config.patch_px, self.image_px.1 / self.config.patch_px)
    }

    /// Number of tokens before those of patches: the registers and then the class token.
    fn others(&self) -> usize {
        self.config.registers + 1
    }

    fn patches(&self) -> usize {
        self.grid().0 * self.grid().1
    }

    /// Runs the tokens through the first `blocks` blocks. `after` is called with the number of each block, from 1, and
    /// its output. The last of these blocks leaves out all tokens but those in `kept`, rows of its output.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, T + N, D]`, or `[B, T + V, D]` for `V` visible tokens; the first `T` are registers and the class
    /// token. With `kept`, `[R, 1, D]`.
    fn run<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        visible: VisibleTokens,
        blocks: usize,
        kept: Option<Rc<[u32]>>,
        context: &mut ForwardContext,
        mut after: impl FnMut(usize, &B::Tensor),
    ) -> B::Tensor {
        let mut x = b.prepend_tokens(&tokens, self.class_token); // [B, 1 + N, D]
        if let Some(positions) = self.positions {
            x = b.add_positions(&x, positions);
        }
        let mut windows = None;
        if let VisibleTokens::Rows(rows) = visible {
            assert!(self.needs_all_tokens().is_none(), "tokens are left out of an encoder that needs all");
            x = self.visible(b, &x, rows); // [B, 1 + V, D]
            windows = Some(Windows::whole_image(b.shape(&x)[1] + self.config.registers));
        }
        if let Some(registers) = self.registers {
            x = b.prepend_tokens(&x, registers); // they have no position
        }
        let shared = self.shared_bias.map(|id| match context.freezes() {
            true => b.frozen(&x, Box::new(move |b, _| b.parameter(id))),
            false => b.parameter(id),
        }); // [T, A]
        for (i, block) in self.blocks[..blocks].iter().enumerate() {
            let drop_path_scale = [(); 2].map(|()| context.drop_path_scale(block.drop_rate));
            let (block, shared, windows) = (Rc::clone(block), shared.clone(), windows.clone());
            let kept = kept.clone().filter(|_| i + 1 == blocks);
            x = context.through(b, &x, move |b, x| {
                let table = block.bias_table.map(|id| b.parameter(id)).or_else(|| shared.clone());
                let [of_attention, of_mlp] = drop_path_scale.each_ref().map(Option::as_deref);
                let x = match &windows {
                    None => b.attention_branch(x, &block.attention, table.as_ref(), of_attention),
                    Some(windows) => {
                        let attention = AttentionBranch { windows: windows.clone(), ..block.attention.clone() };
                        b.attention_branch(x, &attention, None, of_attention)
                    }
                };
                match &kept {
                    None => b.mlp_branch(&x, &block.mlp, of_mlp),
                    Some(rows) => mlp_branch_of_rows(b, &x, rows, &block.mlp, of_mlp),
                }
            });
            after(i + 1, &x);
        }
        x
    }

    /// The class token and the visible tokens of each image; `rows` are the visible rows of `[B·N]`.
    ///
    /// # Shapes
    /// `[B, 1 + N, D]` → `[B, 1 + V, D]`.
    fn visible<B: Operations>(&self, b: &B, x: &B::Tensor, rows: &[u32]) -> B::Tensor {
        let (images, n) = (b.shape(x)[0], self.patches() as u32);
        let visible = rows.len() / images;
        let with_class = rows.chunks_exact(visible).enumerate().flat_map(|(image, rows)| {
            let first = image as u32 * (n + 1);
            let of_image = rows.iter().map(move |row| {
                assert_eq!(row / n, image as u32, "every image has the same number of visible tokens");
                first + 1 + row % n
            });
            [first].into_iter().chain(of_image)
        });
        let rows: Vec<u32> = with_class.collect();
        b.reshape(&b.gather_rows(x, &rows), &[images, visible + 1, self.config.width])
    }

    /// The tokens without registers and class token.
    ///
    /// # Shapes
    /// `[B, T + N, D]` → `[B, N, D]`.
    fn patch_tokens<B: Operations>(&self, b: &B, x: &B::Tensor) -> B::Tensor {
        let [images, tokens, _] = b.shape(x)[..] else { panic!("tokens are [B, T + N, D]") };
        let (first, tokens) = (self.others() as u32, tokens as u32);
        let patches = (0..images as u32).flat_map(|image| (first..tokens).map(move |token| image * tokens + token));
        let patches = b.gather_rows(x, &patches.collect::<Vec<u32>>());
        b.reshape(&patches, &[images, (tokens - first) as usize, self.config.width]) // [B, N, D]
    }
}

impl Encode for Vit {
    fn spec(&self) -> EncoderSpec {
        let c = &self.config;
        EncoderSpec {
            image_px: self.image_px,
            channels: self.channels,
            patch_px: c.patch_px,
            stride_px: c.patch_px,
            width: c.width,
            out_width: c.width,
            depth: c.depth,
        }
    }

    fn embed<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor {
        b.patch_embed(images, (self.config.patch_px, self.config.patch_px), &self.patch_embed)
    }

    fn encode<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        visible: VisibleTokens,
        needed: NeededFeatures,
        context: &mut ForwardContext,
    ) -> B::Tensor {
        let kept = match needed {
            NeededFeatures::All => None,
            NeededFeatures::Rows(rows) => {
                let of_image = match visible {
                    VisibleTokens::All => self.patches(),
                    VisibleTokens::Rows(visible) => visible.len() / b.shape(&tokens)[0],
                };
                let others = self.others() as u32;
                Some(rows.iter().map(|row| row + (row / of_image as u32 + 1) * others).collect())
            }
        };
        let x = self.run(b, tokens, visible, self.config.depth, kept, context, |_, _| ());
        let x = match &self.end {
            End::Norm(norm) => b.layer_norm(&x, norm),
            End::PooledNorm(_) => x,
        };
        match needed {
            NeededFeatures::All => self.patch_tokens(b, &x),
            NeededFeatures::Rows(rows) => b.reshape(&x, &[rows.len(), self.config.width]),
        }
    }

    fn needs_all_tokens(&self) -> Option<&'static str> {
        match self.config.position_bias {
            PositionBias::None if self.config.rotary_base > 0.0 => {
                Some("its rotary positions are a table of the places of all tokens")
            }
            PositionBias::None => None,
            PositionBias::Shared | PositionBias::PerBlock => {
                Some("its position bias is a table over all pairs of tokens")
            }
        }
    }

    fn features<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        blocks: &[usize],
        context: &mut ForwardContext,
    ) -> Vec<B::Tensor> {
        let (mut maps, (h, w)) = (Vec::new(), self.grid());
        let deepest = blocks.last().copied().unwrap_or(0);
        self.run(b, tokens, VisibleTokens::All, deepest, None, context, |block, x| {
            if blocks.contains(&block) {
                let tokens = self.patch_tokens(b, x); // [B, N, D]
                maps.push(b.reshape(&tokens, &[b.shape(&tokens)[0], h, w, self.config.width]));
            }
        });
        maps
    }

    fn lacks_class_token(&self) -> Option<&'static str> {
        match &self.end {
            End::Norm(_) => None,
            End::PooledNorm(_) => Some("this classifier reads the mean of the patch tokens, and no norm follows them"),
        }
    }

    fn class_token<B: Operations>(
        &self,
        b: &B,
        tokens: B::Tensor,
        block: Option<usize>,
        context: &mut ForwardContext,
    ) -> B::Tensor {
        let blocks = block.unwrap_or(self.config.depth);
        let (images, of_image) = (b.shape(&tokens)[0], self.patches() + self.others());
        let rows = (0..images).map(|image| (image * of_image + self.config.registers) as u32).collect();
        let x = self.run(b, tokens, VisibleTokens::All, blocks, Some(rows), context, |_, _| ()); // [B, 1, D]
        let class_tokens = b.reshape(&x, &[images, self.config.width]);
        match (&self.end, block) {
            (End::Norm(norm), None) => b.layer_norm(&class_tokens, norm),
            (End::Norm(_), Some(_)) => class_tokens,
            (End::PooledNorm(_), _) => panic!("a classifier has no features of a class token"),
        }
    }

    fn pool<B: Operations>(&self, b: &B, features: &B::Tensor) -> B::Tensor {
        let mean = b.mean_tokens(features); // [B, D]
        match &self.end {
            End::Norm(_) => mean,
            End::PooledNorm(norm) => b.layer_norm(&mean, norm),
        }
    }

    fn mask_token_init(&self) -> Init {
        normal(1.0)
    }

    fn head_init(&self) -> Init {
        normal(HEAD_SCALE)
    }

    fn layer_of(&self, parameter: &str) -> usize {
        let name = plain_name(parameter);
        match name {
            "cls_token" | "register_tokens" | "mask_token" | "pos_embed" => 0,
            _ if name.starts_with("patch_embed.") => 0,
            _ => match name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok()) {
                Some(block) => block + 1,
                None => self.config.depth + 1,
            },
        }
    }

    fn is_shared_position(&self, parameter: &str) -> bool {
        ["pos_embed", SHARED_TABLE].contains(&plain_name(parameter))
    }

    fn is_exempt_from_decay(&self, parameter: &str) -> bool {
        matches!(plain_name(parameter), "pos_embed" | "cls_token" | "register_tokens")
    }

    fn is_position_or_mask(&self, parameter: &str) -> bool {
        plain_name(parameter) == "mask_token" || parameter.ends_with("relative_position_bias_table")
    }

    fn flops(&self) -> f64 {
        let c = &self.config;
        let (n, d) = (self.patches() as f64, c.width as f64);
        let tokens = n + self.others() as f64;
        let embed = 2.0 * n * d * (self.channels * c.patch_px * c.patch_px) as f64;
        let products = 2.0 * tokens * d * (4.0 * d + ((c.mlp.parts() + 1) * c.hidden()) as f64);
        let attention = 4.0 * tokens * tokens * d;
        embed + c.depth as f64 * (products + attention)
    }

    fn flops_not_needed(&self, images: usize, features: usize) -> f64 {
        let (c, tokens) = (&self.config, images * (self.patches() + self.others()) - features);
        2.0 * (tokens * c.width * (c.mlp.parts() + 1) * c.hidden()) as f64
    }

    fn block_activations(&self) -> Vec<BlockActivations> {
        let (c, tokens) = (&self.config, self.patches() + self.others());
        let scores = c.heads * tokens * tokens;
        let block = BlockActivations::new(tokens, c.width, c.hidden(), scores, c.layer_scale > 0.0, false);
        let block = match c.mlp {
            Mlp::Gelu => block,
            Mlp::SwiGlu => block.gated(tokens, c.width, c.hidden(), c.layer_scale > 0.0),
        };
        vec![block; c.depth]
    }

    fn source_names(&self, parameter: &str) -> Vec<String> {
        let name = plain_name(parameter).to_owned();
        match name.ends_with(".attn.relative_position_bias_table") {
            true => vec![SHARED_TABLE.into(), name], // every block starts with a copy of the shared table
            false => vec![name],
        }
    }

    fn fit(&self, parameter: &Parameter, source: &SourceTensor) -> Fit {
        match plain_name(&parameter.name) {
            "pos_embed" => self.fit_positions(parameter, source),
            name if name.ends_with("relative_position_bias_table") => self.fit_bias_table(parameter, source),
            _ => source.unresized(parameter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::WeightInit;
    use super::*;

    #[test]
    fn xavier_weights_depend_on_the_size_of_their_layer() {
        let config = |init| VitConfig {
            patch_px: 4,
            width: 64,
            depth: 1,
            heads: 2,
            mlp_ratio: 4.0,
            mlp: Mlp::Gelu,
            rotary_base: 0.0,
            qkv_bias: true,
            layer_scale: 0.0,
            absolute_positions: true,
            position_bias: PositionBias::None,
            registers: 0,
            norm_eps: 1e-6,
            drop_path: 0.0,
            init,
        };
        let deviations = |init| {
            let mut builder = Builder::default();
            Vit::new(&config(init), Role::Pretrain, (32, 32), 3, &mut builder).unwrap();
            let (table, inits) = builder.finish();
            let values = crate::weights::initial_values(&table, &inits, 0);
            let of = |name: &str| {
                let parameter = table.iter().find(|p| p.name.ends_with(name)).unwrap();
                let values = &values[parameter.range.clone()];
                (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
            };
            let layers = ["patch_embed.proj.weight", "qkv.weight", "attn.proj.weight", "fc1.weight", "fc2.weight"];
            (layers.map(of), of("pos_embed"))
        };
        let is_near = |found: f32, expected: f32| (found / expected - 1.0).abs() < 0.05;
        let cut = 0.54 * WEIGHT_STD; // standard deviation of a normal distribution truncated at one standard deviation
        let ends_a_branch = [1.0, 1.0, 0.5f32.sqrt(), 1.0, 0.5f32.sqrt()];
        let fans = [64 + 48, 64 + 192, 64 + 64, 64 + 256, 64 + 256];
        let (normal, xavier) = (deviations(WeightInit::Normal), deviations(WeightInit::Xavier));
        for i in 0..5 {
            assert!(is_near(normal.0[i], cut * ends_a_branch[i]), "{i}: {normal:?}");
            assert!(is_near(xavier.0[i], (2.0 / fans[i] as f32).sqrt() * ends_a_branch[i]), "{i}: {xavier:?}");
        }
        assert!(is_near(normal.1, cut) && is_near(xavier.1, cut), "{normal:?} {xavier:?}");
    }

    #[test]
    fn visible_tokens_alone_are_encoded_and_features_come_in_one_pass() {
        let config = VitConfig {
            patch_px: 4,
            width: 8,
            depth: 3,
            heads: 2,
            mlp_ratio: 2.0,
            mlp: Mlp::Gelu,
            rotary_base: 0.0,
            qkv_bias: true,
            layer_scale: 0.1,
            absolute_positions: true,
            position_bias: PositionBias::None,
            registers: 0,
            norm_eps: 1e-6,
            drop_path: 0.0,
            init: WeightInit::Xavier,
        };
        let mut builder = Builder::default();
        let vit = Vit::new(&config, Role::Pretrain, (8, 12), 1, &mut builder).unwrap();
        let (table, inits) = builder.finish();
        let b = crate::testing::open(table);
        crate::weights::initialize(&b, &inits, 0);
        let pixels: Vec<f32> = (0..2 * 96).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
        let images = Images { pixels: &pixels, count: 2, channels: 1, height: 8, width: 12 };
        let encode = |visible: VisibleTokens| {
            let embedded = vit.embed(&b, &images);
            let features = vit.encode(&b, embedded, visible, NeededFeatures::All, &mut ForwardContext::evaluate());
            (b.shape(&features), b.read(&features))
        };
        let all: Vec<u32> = (0..12).collect();
        assert_eq!(encode(VisibleTokens::Rows(&all)), encode(VisibleTokens::All));
        // fewer tokens give other features
        let some = encode(VisibleTokens::Rows(&[1, 4, 6, 11]));
        assert_eq!(some.0, [2, 2, 8]);
        assert_ne!(some.1[..8], encode(VisibleTokens::All).1[8..16], "attention is over fewer tokens");

        let maps = vit.features(&b, vit.embed(&b, &images), &[1, 3], &mut ForwardContext::evaluate());
        assert!(maps.iter().all(|map| b.shape(map) == [2, 2, 3, 8]), "maps of {} tokens", maps.len());
        let last = b.read(&b.layer_norm(
            &maps[1],
            match &vit.end {
                End::Norm(norm) | End::PooledNorm(norm) => norm,
            },
        ));
        assert_eq!(last, encode(VisibleTokens::All).1);
        assert_eq!(
            b.read(&maps[0]),
            b.read(&vit.features(&b, vit.embed(&b, &images), &[1], &mut ForwardContext::evaluate())[0])
        );
    }
}
