//! The table of cases: every operation with the parameters it takes, in three shapes.

use super::numbers;
use crate::operations::{
    Activation, AttentionBranch, CrossEntropy, Distance, Images, Labels, Laplace, LayerNorm, Linear, MlpBranch,
    NormOrder, Operations, PositionMlp, QkvBias, Regression, Rotary, Similarity, SoftLabels, Windows,
};
use crate::parameters::{ParameterId, ParameterTable};
use std::rc::Rc;

/// Width of the tokens of every case, `D`.
const WIDTH: usize = 8;

/// Numbers of images and of tokens: small, many images, many tokens. Tokens form a grid of two rows.
pub(super) const SHAPES: [Shape; 3] =
    [Shape { images: 3, tokens: 6 }, Shape { images: 56, tokens: 6 }, Shape { images: 2, tokens: 154 }];

/// The size of the token tensor that a case takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    images: usize,
    tokens: usize,
}

impl Shape {
    fn rows(self) -> usize {
        self.images * self.tokens
    }

    /// Values of the token tensor.
    pub(super) fn len(self) -> usize {
        self.rows() * WIDTH
    }

    /// `[B, N, D]`
    pub(super) fn as_tokens(self) -> [usize; 3] {
        [self.images, self.tokens, WIDTH]
    }

    /// The same values as small images, `[B, H, W, C]`.
    fn as_images(self) -> [usize; 4] {
        [self.images, 4, self.tokens, 2]
    }

    pub(super) fn is_small(self) -> bool {
        self.len() == SHAPES[0].len()
    }
}

/// The operation under test, applied to an input tensor.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Parameter(ParameterId),
    PatchEmbed { linear: Linear },
    MaskTokens { mask_token: ParameterId },
    PrependTokens { tokens: ParameterId },
    AddPositions { positions: ParameterId },
    Attention { branch: Box<AttentionBranch>, table: Option<ParameterId>, drop_path_scale: Option<Vec<f32>> },
    ContinuousPositionBias(PositionMlp),
    Mlp { branch: MlpBranch, drop_path_scale: Option<Vec<f32>> },
    LayerNorm(LayerNorm),
    Linear(Linear),
    Gelu,
    GatherRows(Vec<u32>),
    MeanTokens,
    Regression(Distance),
    CrossEntropy { channels: usize, classes: usize },
    SoftLabels(Labels),
    Convolution(Linear),
    Relu,
    MaxPool,
    Upsample,
    Add { factor: f32 },
    GumbelSoftmax { temperature: f32 },
    Laplace,
    UniformDivergence,
}

impl Operation {
    /// Applies the operation and reduces its output to a scalar with fixed random weights.
    pub(super) fn objective<B: Operations>(&self, b: &B, x: &B::Tensor, shape: Shape) -> (B::Tensor, B::Tensor) {
        let count = if shape.is_small() { 2 } else { 14 };
        let pixels = numbers(count * 3 * 8 * 12, 77);
        let images = Images { pixels: &pixels, count, channels: 3, height: 8, width: 12 };
        let as_images = || b.reshape(x, &shape.as_images());
        let hidden: Vec<bool> = (0..shape.rows()).map(|i| i % 3 == 0).collect();
        let out = match self {
            Operation::Parameter(id) => b.parameter(*id),
            Operation::PatchEmbed { linear } => b.patch_embed(&images, (4, 2), linear),
            Operation::MaskTokens { mask_token } => b.mask_tokens(x, &hidden, *mask_token),
            Operation::PrependTokens { tokens } => b.prepend_tokens(x, *tokens),
            Operation::AddPositions { positions } => b.add_positions(x, *positions),
            Operation::Attention { branch, table, drop_path_scale } => {
                b.attention_branch(x, branch, table.map(|t| b.parameter(t)).as_ref(), drop_path_scale.as_deref())
            }
            Operation::ContinuousPositionBias(mlp) => b.continuous_position_bias(&numbers(2 * shape.rows(), 4), mlp),
            Operation::Mlp { branch, drop_path_scale } => b.mlp_branch(x, branch, drop_path_scale.as_deref()),
            Operation::LayerNorm(norm) => b.layer_norm(x, norm),
            Operation::Linear(linear) => b.linear(x, linear),
            Operation::Gelu => b.gelu(x),
            Operation::GatherRows(rows) => b.gather_rows(x, rows),
            Operation::MeanTokens => b.mean_tokens(x),
            Operation::Regression(distance) => {
                let rows = shape.rows();
                let (target, weight) = (numbers(rows * 8, 5), numbers(rows * 4, 6));
                let loss = Regression { distance: *distance, target: &target, weight: &weight, channels: 2 };
                return (b.regression(x, &loss), b.regression(x, &loss));
            }
            Operation::CrossEntropy { channels, classes } => {
                let (rows, choices) = (shape.rows(), WIDTH / classes);
                let ids: Vec<u32> = (0..rows * choices).map(|i| (i * 5 % classes) as u32).collect();
                let weight = numbers(rows * choices / channels, 6);
                let loss = CrossEntropy { ids: &ids, weight: &weight, channels: *channels, classes: *classes };
                return (b.cross_entropy(x, &loss), b.cross_entropy(x, &loss));
            }
            Operation::SoftLabels(labels) => {
                let count = shape.len();
                // shares that do not sum to 1 in a row, as those of weighted classes do not
                let target: Vec<f32> = numbers(count, 5).iter().map(|v| 0.5 + 0.5 * v).collect();
                let loss = SoftLabels { labels: *labels, target: &target, weight: &numbers(count, 6) };
                return (b.soft_labels(x, &loss), b.soft_labels(x, &loss));
            }
            Operation::Convolution(linear) => b.convolution(&as_images(), linear),
            Operation::Relu => b.relu(x),
            Operation::MaxPool => b.max_pool(&as_images()),
            Operation::Upsample => b.upsample(&as_images()),
            Operation::Add { factor } => b.add(x, *factor, &b.relu(x)),
            Operation::GumbelSoftmax { temperature } => b.gumbel_softmax(x, &numbers(shape.len(), 8), *temperature),
            Operation::Laplace => {
                let target = numbers(shape.len() / 2, 5);
                let loss = Laplace { target: &target };
                return (b.laplace(x, &loss), b.laplace(x, &loss));
            }
            Operation::UniformDivergence => return (b.uniform_divergence(x), b.uniform_divergence(x)),
        };
        // Σ weight·|out − (−100)| is Σ weight·out up to a constant: every output gets its own gradient
        let len = b.read(&out).len();
        let loss =
            Regression { distance: Distance::L1, target: &vec![-100.0; len], weight: &numbers(len, 9), channels: 1 };
        let scalar = b.regression(&out, &loss);
        (out, scalar)
    }
}

/// An operation with the parameters that it takes.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) table: ParameterTable,
    pub(super) operation: Operation,
}

/// Shifted 2×2 windows over a grid of two rows: with a mask, and with padding where the columns are odd.
fn shifted_windows(shape: Shape) -> Windows {
    let columns = shape.tokens / 2;
    let token = |row: usize, column: usize| {
        if column < columns { (row * columns + column) as u32 } else { shape.tokens as u32 }
    };
    let windows = columns.div_ceil(2);
    let slots = (0..windows).flat_map(|w| [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(y, x)| token(y, 2 * w + x)));
    Windows {
        tokens: 4,
        slots: slots.collect(),
        masks: Rc::new([(0..16).map(|i| if (i / 4 < 2) == (i % 4 < 2) { 0.0 } else { -100.0 }).collect()]),
        mask_of: (0..windows).map(|window| (window + 1 == windows).then_some(0)).collect(),
    }
}

/// All tokens of an image in one window, in the opposite order, with padding before and behind.
fn turned_window(shape: Shape) -> Windows {
    let padding = shape.tokens as u32;
    let slots = [padding].into_iter().chain((0..padding).rev()).chain([padding]);
    Windows { tokens: shape.tokens + 2, slots: slots.collect(), masks: Rc::new([]), mask_of: Rc::new([None]) }
}

/// Windows of two tokens that are above each other, in the opposite order and without padding; the last one is masked.
fn column_windows(shape: Shape) -> Windows {
    let columns = shape.tokens / 2;
    Windows {
        tokens: 2,
        slots: (0..columns).rev().flat_map(|column| [(columns + column) as u32, column as u32]).collect(),
        masks: Rc::new([vec![0.0, -100.0, -100.0, 0.0]]),
        mask_of: (0..columns).map(|window| (window + 1 == columns).then_some(0)).collect(),
    }
}

/// Two windows, one of the even tokens and one of the odd ones, without padding.
fn large_windows(shape: Shape) -> Windows {
    let tokens = shape.tokens as u32;
    Windows {
        tokens: shape.tokens / 2,
        slots: (0..tokens).step_by(2).chain((1..tokens).step_by(2)).collect(),
        masks: Rc::new([]),
        mask_of: Rc::new([None; 2]),
    }
}

fn case(shape: Shape, name: &'static str, build: impl FnOnce(&mut ParameterTable) -> Operation) -> Case {
    let mut table = ParameterTable::default();
    let operation = build(&mut table);
    Case { name, shape, table, operation }
}

/// All operations at one shape.
pub(super) fn cases(shape: Shape) -> Vec<Case> {
    let norm = |t: &mut ParameterTable, width| LayerNorm {
        weight: t.add("norm.w", &[width]),
        bias: t.add("norm.b", &[width]),
        eps: 1e-5,
    };
    let linear = |t: &mut ParameterTable, name: &str, out, inputs, bias: bool| Linear {
        weight: t.add(&format!("{name}.w"), &[out, inputs]),
        bias: bias.then(|| t.add(&format!("{name}.b"), &[out])),
    };
    let convolution = |t: &mut ParameterTable, side, bias: bool| Linear {
        weight: t.add("conv.w", &[5, shape.as_images()[3], side, side]),
        bias: bias.then(|| t.add("conv.b", &[5])),
    };
    let attention = |t: &mut ParameterTable, order, bias: QkvBias, similarity, scaled: bool, windows: Windows| {
        let table = t.add("table", &[5, 2]);
        let tokens = windows.tokens;
        let branch = AttentionBranch {
            norm: norm(t, 8),
            order,
            heads: 2,
            qkv: t.add("qkv.w", &[24, 8]),
            qkv_bias: bias,
            projection: linear(t, "proj", 8, 8, true),
            layer_scale: scaled.then(|| t.add("gamma", &[8])),
            similarity,
            windows,
            bias_index: (0..tokens * tokens).map(|i| (i * 7 % 5) as u32).collect(),
            rotary: None,
        };
        (branch, table)
    };
    let drop_path_scale = || Some((0..shape.images).map(|i| if i % 3 == 1 { 0.0 } else { 1.25 }).collect());
    vec![
        case(shape, "parameter", |t| Operation::Parameter(t.add("p", &[3, 4]))),
        case(shape, "patch embedding", |t| Operation::PatchEmbed { linear: linear(t, "proj", 8, 24, true) }),
        case(shape, "mask tokens", |t| Operation::MaskTokens { mask_token: t.add("mask", &[1, 1, 8]) }),
        case(shape, "prepend a token", |t| Operation::PrependTokens { tokens: t.add("cls", &[1, 1, 8]) }),
        case(shape, "prepend tokens", |t| Operation::PrependTokens { tokens: t.add("registers", &[1, 3, 8]) }),
        case(shape, "add positions", |t| Operation::AddPositions { positions: t.add("pos", &[1, shape.tokens, 8]) }),
        case(shape, "attention, whole image, no bias at all", |t| {
            let (branch, _) = attention(
                t,
                NormOrder::Pre,
                QkvBias::None,
                Similarity::ScaledDot,
                false,
                Windows::whole_image(shape.tokens),
            );
            Operation::Attention { branch: Box::new(branch), table: None, drop_path_scale: None }
        }),
        case(shape, "attention, q and v bias, table, layer scale, drop path", |t| {
            let bias = QkvBias::QueryValue { query: t.add("q", &[8]), value: t.add("v", &[8]) };
            let (branch, table) =
                attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, true, Windows::whole_image(shape.tokens));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: drop_path_scale() }
        }),
        case(shape, "attention, rotary positions of all tokens but the first", |t| {
            let bias = QkvBias::QueryValue { query: t.add("q", &[8]), value: t.add("v", &[8]) };
            let windows = Windows::whole_image(shape.tokens);
            let (mut branch, _) = attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, true, windows);
            let pairs = shape.tokens * WIDTH / branch.heads / 2;
            let angle = |i: usize| if i < WIDTH / branch.heads / 2 { 0.0 } else { (i * i % 7) as f32 };
            branch.rotary = Some(Rotary {
                cosines: (0..pairs).map(|i| angle(i).cos()).collect(),
                sines: (0..pairs).map(|i| angle(i).sin()).collect(),
            });
            Operation::Attention { branch: Box::new(branch), table: None, drop_path_scale: drop_path_scale() }
        }),
        case(shape, "attention, masked windows with padding", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let (branch, table) =
                attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, false, shifted_windows(shape));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: None }
        }),
        case(shape, "attention, post-norm, cosine, masked windows with padding", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let similarity = Similarity::Cosine { logit_scale: t.add("logit", &[2, 1, 1]) };
            let (branch, table) = attention(t, NormOrder::Post, bias, similarity, false, shifted_windows(shape));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: drop_path_scale() }
        }),
        case(shape, "attention, cosine, q and v bias, so that the keys of padding are zero", |t| {
            let bias = QkvBias::QueryValue { query: t.add("q", &[8]), value: t.add("v", &[8]) };
            let similarity = Similarity::Cosine { logit_scale: t.add("logit", &[2, 1, 1]) };
            let (branch, table) = attention(t, NormOrder::Post, bias, similarity, false, shifted_windows(shape));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: None }
        }),
        case(shape, "attention, one window in the opposite order with padding", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let (branch, table) = attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, true, turned_window(shape));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: drop_path_scale() }
        }),
        case(shape, "attention, masked windows in another order than tokens", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let (branch, table) =
                attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, false, column_windows(shape));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: drop_path_scale() }
        }),
        case(shape, "attention, post-norm, cosine, large windows in another order than tokens", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let similarity = Similarity::Cosine { logit_scale: t.add("logit", &[2, 1, 1]) };
            let (branch, table) = attention(t, NormOrder::Post, bias, similarity, true, large_windows(shape));
            Operation::Attention { branch: Box::new(branch), table: Some(table), drop_path_scale: drop_path_scale() }
        }),
        case(shape, "attention, heads of one value, masked windows with padding", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let (mut branch, _) =
                attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, false, shifted_windows(shape));
            branch.heads = WIDTH;
            Operation::Attention { branch: Box::new(branch), table: None, drop_path_scale: drop_path_scale() }
        }),
        case(shape, "mlp, pre-norm", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Pre,
                fc1: linear(t, "fc1", 20, 8, true),
                activation: Activation::Gelu,
                fc2: linear(t, "fc2", 8, 20, true),
                layer_scale: None,
            };
            Operation::Mlp { branch, drop_path_scale: None }
        }),
        case(shape, "mlp, post-norm, layer scale, drop path", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Post,
                fc1: linear(t, "fc1", 20, 8, false),
                activation: Activation::Gelu,
                fc2: linear(t, "fc2", 8, 20, true),
                layer_scale: Some(t.add("gamma", &[8])),
            };
            Operation::Mlp { branch, drop_path_scale: drop_path_scale() }
        }),
        case(shape, "mlp, pre-norm, swiglu, layer scale, drop path", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Pre,
                fc1: linear(t, "fc1", 20, 8, true),
                activation: Activation::SwiGlu,
                fc2: linear(t, "fc2", 8, 10, true),
                layer_scale: Some(t.add("gamma", &[8])),
            };
            Operation::Mlp { branch, drop_path_scale: drop_path_scale() }
        }),
        case(shape, "mlp, post-norm, swiglu", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Post,
                fc1: linear(t, "fc1", 20, 8, false),
                activation: Activation::SwiGlu,
                fc2: linear(t, "fc2", 8, 10, true),
                layer_scale: None,
            };
            Operation::Mlp { branch, drop_path_scale: None }
        }),
        case(shape, "continuous position bias", |t| {
            Operation::ContinuousPositionBias(PositionMlp {
                fc1_weight: t.add("fc1.w", &[20, 2]),
                fc1_bias: t.add("fc1.b", &[20]),
                fc2_weight: t.add("fc2.w", &[3, 20]),
            })
        }),
        case(shape, "layer norm", |t| Operation::LayerNorm(norm(t, 8))),
        case(shape, "linear with bias", |t| Operation::Linear(linear(t, "head", 5, 8, true))),
        case(shape, "linear without bias", |t| Operation::Linear(linear(t, "head", 5, 8, false))),
        case(shape, "gelu", |_| Operation::Gelu),
        case(shape, "gather rows", |_| {
            Operation::GatherRows((0..shape.rows() as u32).rev().filter(|row| row % 3 != 1).collect())
        }),
        case(shape, "mean of tokens", |_| Operation::MeanTokens),
        case(shape, "regression l1", |_| Operation::Regression(Distance::L1)),
        case(shape, "regression l2", |_| Operation::Regression(Distance::L2)),
        case(shape, "regression smooth l1", |_| Operation::Regression(Distance::SmoothL1 { beta: 0.7 })),
        case(shape, "cross-entropy, one choice a row", |_| Operation::CrossEntropy { channels: 1, classes: 8 }),
        case(shape, "cross-entropy, weights of positions", |_| Operation::CrossEntropy { channels: 1, classes: 2 }),
        case(shape, "cross-entropy, weights shared by channels", |_| Operation::CrossEntropy {
            channels: 2,
            classes: 2,
        }),
        case(shape, "soft labels, one class", |_| Operation::SoftLabels(Labels::One)),
        case(shape, "soft labels, many classes", |_| Operation::SoftLabels(Labels::Many)),
        case(shape, "convolution 1×1", |t| Operation::Convolution(convolution(t, 1, true))),
        case(shape, "convolution 3×3 without bias", |t| Operation::Convolution(convolution(t, 3, false))),
        case(shape, "convolution 7×7, larger than the image", |t| Operation::Convolution(convolution(t, 7, true))),
        case(shape, "relu", |_| Operation::Relu),
        case(shape, "max pool", |_| Operation::MaxPool),
        case(shape, "upsample", |_| Operation::Upsample),
        case(shape, "add", |_| Operation::Add { factor: -0.3 }),
        case(shape, "gumbel softmax", |_| Operation::GumbelSoftmax { temperature: 0.4 }),
        case(shape, "laplace", |_| Operation::Laplace),
        case(shape, "uniform divergence", |_| Operation::UniformDivergence),
    ]
}
