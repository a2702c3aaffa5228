//! The vision transformer of the paper: BEiT's variant of ViT (arXiv:2010.11929, arXiv:2106.08254).
//!
//! Class token, relative position bias (one table shared by all blocks, or one per block) or absolute
//! positions, biases of queries and values but not of keys, layer scale, pre-norm. Names, layouts and
//! initialisation follow microsoft/SimMIM, `models/vision_transformer.py`.

use super::pass::drop_rate;
use super::resize::{resize_bias_table, resize_positions};
use super::{BlockKept, Encode, EncoderSpec, Fit, Offered, Pass, Role, WeightInit, plain_name};
use crate::build::{Builder, Init};
use crate::error::Result;
use crate::recipe::{at_least_one, within, wrong};
use serde::{Deserialize, Serialize};
use simmim_engine::{
    AttentionBranch, Images, LayerNorm, Linear, MlpBranch, NormOrder, Operations, Parameter, ParameterId, QkvBias,
    Similarity, Windows,
};
use std::rc::Rc;

/// Scale and shift of every norm is guarded by this.
const NORM_EPS: f32 = 1e-6;

/// Factor on a classification head's first weights (microsoft/SimMIM, `models/vision_transformer.py`, `init_scale`).
const HEAD_SCALE: f32 = 0.001;

/// The table that all blocks share.
const SHARED_TABLE: &str = "rel_pos_bias.relative_position_bias_table";

/// Rows of a table of relative positions that belong to the class token.
const CLASS_ROWS: usize = 3;

/// Standard deviation and cut of initial weights: the official code cuts at one standard deviation.
const WEIGHT_STD: f32 = 0.02;

/// Sizes and variants of a vision transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Width of a token, `D`.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads, `A`; divides the width.
    pub heads: usize,
    /// Hidden width of the MLP as a multiple of the width.
    pub mlp_ratio: f64,
    /// Whether queries and values have a bias (keys never do).
    pub qkv_bias: bool,
    /// Initial layer scale; 0 for none.
    pub layer_scale: f32,
    /// Whether a table of absolute positions is added to the tokens.
    pub absolute_positions: bool,
    /// Relative position bias of the attention scores.
    pub position_bias: PositionBias,
    /// Drop-path rate of the last block; rises linearly from 0.
    pub drop_path: f32,
    /// How the weights of linear layers are drawn.
    #[serde(default)]
    pub init: WeightInit,
}

/// Relative position bias of a vision transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionBias {
    /// None.
    None,
    /// One table for all blocks: the paper's pre-training.
    Shared,
    /// One table per block: the paper's fine-tuning.
    PerBlock,
}

impl VitConfig {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// Names the first recipe key whose value does not fit.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [
            ("encoder.patch_px", self.patch_px),
            ("encoder.width", self.width),
            ("encoder.depth", self.depth),
            ("encoder.heads", self.heads),
        ] {
            at_least_one(key, value)?;
        }
        if !self.width.is_multiple_of(self.heads) {
            let expected = format!("expected a divisor of `encoder.width`, {}", self.width);
            return Err(wrong("encoder.heads", self.heads, expected, None));
        }
        within("encoder.mlp_ratio", self.mlp_ratio, 1.0 / self.width as f64, 64.0)?;
        within("encoder.layer_scale", self.layer_scale as f64, 0.0, 100.0)?;
        within("encoder.drop_path", self.drop_path as f64, 0.0, 0.99)
    }

    fn hidden(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }
}

/// A vision transformer's parameters.
#[derive(Clone, Debug)]
pub struct Vit {
    config: VitConfig,
    image_px: (usize, usize),
    channels: usize,
    patch_embed: Linear,
    class_token: ParameterId,
    positions: Option<ParameterId>,
    shared_bias: Option<ParameterId>,
    blocks: Vec<Block>,
    end: End,
}

/// What follows the last block.
#[derive(Clone, Debug)]
enum End {
    /// A norm of every token: pre-training.
    Norm(LayerNorm),
    /// Nothing; the mean of the patch tokens is normed: fine-tuning.
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
    /// Adds the parameters of a vision transformer to `builder`, under the official names.
    pub fn new(
        config: &VitConfig,
        role: Role,
        image_px: (usize, usize),
        channels: usize,
        builder: &mut Builder,
    ) -> Self {
        let (width, patch) = (config.width, config.patch_px);
        let grid = (image_px.0 / patch, image_px.1 / patch);
        let patches = grid.0 * grid.1;
        let bias_index: Rc<[u32]> = relative_position_index(grid).into();
        let bias_shape = [relative_positions(grid), config.heads];
        builder.scope(role.scope(), |b| {
            let class_token = b.add("cls_token", &[1, 1, width], normal(1.0));
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
                        // the output layers of both branches shrink with depth (`fix_init_weight`)
                        let shrink = 1.0 / (2.0 * (i + 1) as f32).sqrt();
                        let (hidden, draw) =
                            (config.hidden(), |outputs, inputs| config.init.rule(normal(1.0), outputs, inputs));
                        let gamma = |b: &mut Builder, name| {
                            (config.layer_scale > 0.0)
                                .then(|| b.add(name, &[width], Init::Constant(config.layer_scale)))
                        };
                        let zeros = Init::Constant(0.0);
                        let gamma_1 = gamma(b, "gamma_1");
                        let gamma_2 = gamma(b, "gamma_2");
                        let norm1 = b.layer_norm("norm1", width, NORM_EPS);
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
                            let projection = b.linear("proj", width, width, draw(width, width).scaled(shrink));
                            (qkv_bias, table, qkv, projection)
                        });
                        let norm2 = b.layer_norm("norm2", width, NORM_EPS);
                        let (fc1, fc2) = b.scope("mlp", |b| {
                            (
                                b.linear("fc1", hidden, width, draw(hidden, width)),
                                b.linear("fc2", width, hidden, draw(width, hidden).scaled(shrink)),
                            )
                        });
                        Block {
                            attention: AttentionBranch {
                                norm: norm1,
                                order: NormOrder::Pre,
                                heads: config.heads,
                                qkv,
                                qkv_bias,
                                projection,
                                layer_scale: gamma_1,
                                similarity: Similarity::ScaledDot,
                                windows: Windows::whole_image(patches + 1),
                                bias_index: Rc::clone(&bias_index),
                            },
                            bias_table,
                            mlp: MlpBranch { norm: norm2, order: NormOrder::Pre, fc1, fc2, layer_scale: gamma_2 },
                            drop_rate: drop_rate(config.drop_path, i, config.depth),
                        }
                    })
                })
                .collect();
            let end = match role {
                Role::Pretrain => End::Norm(b.layer_norm("norm", width, NORM_EPS)),
                Role::Classify => End::PooledNorm(b.layer_norm("fc_norm", width, NORM_EPS)),
            };
            Self {
                config: config.clone(),
                image_px,
                channels,
                patch_embed,
                class_token,
                positions,
                shared_bias,
                blocks,
                end,
            }
        })
    }
}

/// Weights and tokens, cut as the official code cuts them.
fn normal(factor: f32) -> Init {
    Init::Normal { std: WEIGHT_STD, cut: WEIGHT_STD, factor }
}

impl Vit {
    fn grid(&self) -> (usize, usize) {
        (self.image_px.0 / self.config.patch_px, self.image_px.1 / self.config.patch_px)
    }

    fn patches(&self) -> usize {
        self.grid().0 * self.grid().1
    }

    /// A table of relative positions, whose last three rows belong to the class token and stay as they are.
    fn fit_bias_table(&self, parameter: &Parameter, offered: &Offered) -> Fit {
        let ([rows, heads], own) = (offered.shape, &parameter.shape) else { return Fit::Other };
        if *heads != own[1] {
            return Fit::Anew(format!("it is for {heads} heads, not {}", own[1]));
        }
        let offsets = |grid: (usize, usize)| (2 * grid.0 - 1, 2 * grid.1 - 1);
        let known = offered.grid.map(offsets).filter(|(y, x)| y * x + CLASS_ROWS == *rows);
        let side = (rows - CLASS_ROWS).isqrt();
        let square = (side * side + CLASS_ROWS == *rows && side % 2 == 1).then_some((side, side));
        match known.or(square) {
            None => Fit::Anew(format!("the grid of its {rows} rows is not known")),
            Some(from) if from == offsets(self.grid()) => Fit::Same,
            Some(from) => {
                let (table, class_rows) = offered.values.split_at((rows - CLASS_ROWS) * heads);
                let mut resized = resize_bias_table(table, from, offsets(self.grid()));
                resized.extend(class_rows);
                Fit::Resized(resized)
            }
        }
    }

    /// A table of absolute positions, whose first row belongs to the class token and stays as it is.
    fn fit_positions(&self, parameter: &Parameter, offered: &Offered) -> Fit {
        let [1, rows, width] = *offered.shape else { return Fit::Other };
        if width != parameter.shape[2] {
            return Fit::Other;
        }
        match offered.grid_of(rows - 1) {
            None => Fit::Anew(format!("the grid of its {rows} rows is not known")),
            Some(from) if from == self.grid() => Fit::Same,
            Some(from) => {
                let (class_row, table) = offered.values.split_at(width);
                Fit::Resized([class_row, &resize_positions(table, from, self.grid())].concat())
            }
        }
    }

    /// Tokens through the first `blocks` blocks.
    ///
    /// # Shapes
    /// `[B, N, D]` → `[B, 1 + N, D]`.
    fn run<B: Operations>(&self, b: &B, tokens: B::Tensor, blocks: usize, pass: &mut Pass) -> B::Tensor {
        let mut x = b.prepend_token(&tokens, self.class_token); // [B, 1 + N, D]
        if let Some(positions) = self.positions {
            x = b.add_positions(&x, positions);
        }
        let shared = self.shared_bias.map(|id| b.parameter(id)); // [T, A]
        for block in &self.blocks[..blocks] {
            let keep = [(); 2].map(|()| pass.keep(block.drop_rate));
            let (block, shared) = (block.clone(), shared.clone());
            x = pass.through(b, &x, move |b, x| {
                let table = block.bias_table.map(|id| b.parameter(id)).or_else(|| shared.clone());
                let x = b.attention_branch(x, &block.attention, table.as_ref(), keep[0].as_deref());
                b.mlp_branch(&x, &block.mlp, keep[1].as_deref())
            });
        }
        x
    }

    /// Tokens without the class token.
    ///
    /// # Shapes
    /// `[B, 1 + N, D]` → `[B, N, D]`.
    fn patch_tokens<B: Operations>(&self, b: &B, x: &B::Tensor) -> B::Tensor {
        let (images, n) = (b.shape(x)[0], self.patches() as u32);
        let patches: Vec<u32> = (0..images as u32).flat_map(|i| (1..=n).map(move |t| i * (n + 1) + t)).collect();
        b.reshape(&b.gather_rows(x, &patches), &[images, n as usize, self.config.width]) // [B, N, D]
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

    fn encode<B: Operations>(&self, b: &B, tokens: B::Tensor, pass: &mut Pass) -> B::Tensor {
        let x = self.run(b, tokens, self.config.depth, pass); // [B, 1 + N, D]
        match &self.end {
            End::Norm(norm) => self.patch_tokens(b, &b.layer_norm(&x, norm)),
            End::PooledNorm(_) => self.patch_tokens(b, &x),
        }
    }

    fn encode_until<B: Operations>(&self, b: &B, tokens: B::Tensor, block: usize, pass: &mut Pass) -> B::Tensor {
        let x = self.run(b, tokens, block, pass); // [B, 1 + N, D]
        self.patch_tokens(b, &x)
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
            "cls_token" | "mask_token" | "pos_embed" => 0,
            _ if name.starts_with("patch_embed.") => 0,
            _ => match name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok()) {
                Some(block) => block + 1,
                None => self.config.depth + 1,
            },
        }
    }

    fn is_exempt_from_decay(&self, parameter: &str) -> bool {
        matches!(plain_name(parameter), "pos_embed" | "cls_token")
    }

    fn is_position_or_mask(&self, parameter: &str) -> bool {
        plain_name(parameter) == "mask_token" || parameter.ends_with("relative_position_bias_table")
    }

    fn flops(&self) -> f64 {
        let c = &self.config;
        let (n, d) = (self.patches() as f64, c.width as f64);
        let tokens = n + 1.0;
        let embed = 2.0 * n * d * (self.channels * c.patch_px * c.patch_px) as f64;
        let products = 2.0 * tokens * d * (4.0 * d + 2.0 * c.hidden() as f64);
        let attention = 4.0 * tokens * tokens * d;
        embed + c.depth as f64 * (products + attention)
    }

    fn blocks_kept(&self) -> Vec<BlockKept> {
        let (c, tokens) = (&self.config, self.patches() + 1);
        let scores = c.heads * tokens * tokens;
        vec![BlockKept::new(tokens, c.width, c.hidden(), scores, c.layer_scale > 0.0, false); c.depth]
    }

    fn known_as(&self, parameter: &str) -> Vec<String> {
        let name = plain_name(parameter).to_owned();
        match name.ends_with(".attn.relative_position_bias_table") {
            true => vec![SHARED_TABLE.into(), name], // a shared table is copied to every block
            false => vec![name],
        }
    }

    fn fit(&self, parameter: &Parameter, offered: &Offered) -> Fit {
        match plain_name(&parameter.name) {
            "pos_embed" => self.fit_positions(parameter, offered),
            name if name.ends_with("relative_position_bias_table") => self.fit_bias_table(parameter, offered),
            _ => offered.unresized(parameter),
        }
    }
}

/// Rows of a relative position bias table over an `h × w` grid: one per offset, and three for the
/// class token.
fn relative_positions((h, w): (usize, usize)) -> usize {
    (2 * h - 1) * (2 * w - 1) + CLASS_ROWS
}

/// For each pair of tokens (class token first) its row in the bias table, `[1 + N, 1 + N]`.
///
/// The last three rows are: class token to patch, patch to class token, class token to itself.
fn relative_position_index((h, w): (usize, usize)) -> Vec<u32> {
    let rows = relative_positions((h, w));
    let n = h * w;
    let pair = |i: usize, j: usize| match (i, j) {
        (0, 0) => rows - 1,
        (0, _) => rows - 3,
        (_, 0) => rows - 2,
        (i, j) => {
            let ((y1, x1), (y2, x2)) = (((i - 1) / w, (i - 1) % w), ((j - 1) / w, (j - 1) % w));
            (y1 + h - 1 - y2) * (2 * w - 1) + x1 + w - 1 - x2
        }
    };
    (0..=n).flat_map(|i| (0..=n).map(move |j| pair(i, j) as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_two_by_one_grid_is_that_of_the_official_code() {
        // offsets −1, 0, 1 are rows 0, 1, 2; class token rows 3, 4, 5
        assert_eq!(relative_position_index((2, 1)), [5, 3, 3, 4, 1, 0, 4, 2, 1]);
    }

    #[test]
    fn first_weights_fit_their_layer_only_where_asked() {
        let config = |init| VitConfig {
            patch_px: 4,
            width: 64,
            depth: 1,
            heads: 2,
            mlp_ratio: 4.0,
            qkv_bias: true,
            layer_scale: 0.0,
            absolute_positions: true,
            position_bias: PositionBias::None,
            drop_path: 0.0,
            init,
        };
        let deviations = |init| {
            let mut builder = Builder::default();
            Vit::new(&config(init), Role::Pretrain, (32, 32), 3, &mut builder);
            let (table, inits) = builder.finish();
            let values = crate::build::initial_values(&table, &inits, 0);
            let of = |name: &str| {
                let parameter = table.iter().find(|p| p.name.ends_with(name)).unwrap();
                let values = &values[parameter.range.clone()];
                (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
            };
            let layers = ["patch_embed.proj.weight", "qkv.weight", "attn.proj.weight", "fc1.weight", "fc2.weight"];
            (layers.map(of), of("pos_embed"))
        };
        let is_near = |found: f32, expected: f32| (found / expected - 1.0).abs() < 0.05;
        let cut = 0.54 * WEIGHT_STD; // what a normal that is cut at one deviation keeps
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
    fn a_wide_grid_uses_every_row_of_its_table() {
        let (grid, mut used) = ((2, 3), [false; 3 * 5 + 3]);
        relative_position_index(grid).iter().for_each(|row| used[*row as usize] = true);
        assert!(used.iter().all(|u| *u));
    }
}
