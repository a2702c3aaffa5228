//! What every backend must do: one table of cases for all operations, and the rules of training around them.
//!
//! A backend calls these functions from its tests. Outputs must equal those of [`Reference`], gradients the finite
//! differences of it, and devices that differ only in their number of threads must agree to the bit. To add an operation,
//! add a case.
//!
//! Every case runs in three shapes: a small one, all of whose derivatives are checked; many images of few tokens; and few
//! images of many tokens. The larger two have more than 300 rows, so that a backend which divides rows into chunks has
//! several, whose boundaries lie between images in one shape and within them in the other. Of those a sample of
//! derivatives is checked.

use crate::backend::{Backend, OptimizerStep, Slot, StepSize};
use crate::collective::InProcess;
use crate::device::Device;
use crate::operations::{
    AttentionBranch, CrossEntropy, Distance, Images, Labels, Laplace, LayerNorm, Linear, MlpBranch, NormOrder,
    Operations, PositionMlp, Precision, QkvBias, Regression, Similarity, SoftLabels, Windows,
};
use crate::parameters::{ParameterId, ParameterTable};
use crate::reference::Reference;
use std::rc::Rc;

/// Numbers in `[-1, 1)` that look random and are the same in every run.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Width of the tokens of every case, `D`.
const WIDTH: usize = 8;

/// Numbers of images and of tokens: small, many images, many tokens. Tokens form a grid of two rows.
const SHAPES: [Shape; 3] =
    [Shape { images: 3, tokens: 6 }, Shape { images: 56, tokens: 6 }, Shape { images: 2, tokens: 154 }];

/// Derivatives that are checked of each tensor of a large case.
const SAMPLES: usize = 5;

/// Half the distance of a finite difference.
const STEP: f64 = 1e-5;

/// The size of the token tensor that a case takes.
#[derive(Clone, Copy, Debug)]
struct Shape {
    images: usize,
    tokens: usize,
}

impl Shape {
    fn rows(self) -> usize {
        self.images * self.tokens
    }

    /// Values of the token tensor.
    fn len(self) -> usize {
        self.rows() * WIDTH
    }

    /// `[B, N, D]`
    fn as_tokens(self) -> [usize; 3] {
        [self.images, self.tokens, WIDTH]
    }

    /// The same values as small images, `[B, H, W, C]`.
    fn as_images(self) -> [usize; 4] {
        [self.images, 4, self.tokens, 2]
    }

    fn is_small(self) -> bool {
        self.len() == SHAPES[0].len()
    }
}

/// The operation under test, applied to an input tensor.
#[derive(Clone, Debug)]
enum Operation {
    Parameter(ParameterId),
    PatchEmbed { linear: Linear },
    MaskTokens { mask_token: ParameterId },
    PrependToken { token: ParameterId },
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
    fn objective<B: Operations>(&self, b: &B, x: &B::Tensor, shape: Shape) -> (B::Tensor, B::Tensor) {
        let count = if shape.is_small() { 2 } else { 14 };
        let pixels = numbers(count * 3 * 8 * 12, 77);
        let images = Images { pixels: &pixels, count, channels: 3, height: 8, width: 12 };
        let as_images = || b.reshape(x, &shape.as_images());
        let hidden: Vec<bool> = (0..shape.rows()).map(|i| i % 3 == 0).collect();
        let out = match self {
            Operation::Parameter(id) => b.parameter(*id),
            Operation::PatchEmbed { linear } => b.patch_embed(&images, (4, 2), linear),
            Operation::MaskTokens { mask_token } => b.mask_tokens(x, &hidden, *mask_token),
            Operation::PrependToken { token } => b.prepend_token(x, *token),
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
struct Case {
    name: &'static str,
    shape: Shape,
    table: ParameterTable,
    operation: Operation,
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

fn case(shape: Shape, name: &'static str, build: impl FnOnce(&mut ParameterTable) -> Operation) -> Case {
    let mut table = ParameterTable::default();
    let operation = build(&mut table);
    Case { name, shape, table, operation }
}

/// All operations at one shape.
fn cases(shape: Shape) -> Vec<Case> {
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
        };
        (branch, table)
    };
    let drop_path_scale = || Some((0..shape.images).map(|i| if i % 3 == 1 { 0.0 } else { 1.25 }).collect());
    vec![
        case(shape, "parameter", |t| Operation::Parameter(t.add("p", &[3, 4]))),
        case(shape, "patch embedding", |t| Operation::PatchEmbed { linear: linear(t, "proj", 8, 24, true) }),
        case(shape, "mask tokens", |t| Operation::MaskTokens { mask_token: t.add("mask", &[1, 1, 8]) }),
        case(shape, "prepend token", |t| Operation::PrependToken { token: t.add("cls", &[1, 1, 8]) }),
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
        case(shape, "mlp, pre-norm", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Pre,
                fc1: linear(t, "fc1", 20, 8, true),
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
                fc2: linear(t, "fc2", 8, 20, true),
                layer_scale: Some(t.add("gamma", &[8])),
            };
            Operation::Mlp { branch, drop_path_scale: drop_path_scale() }
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

/// What one backend makes of a case.
#[derive(PartialEq)]
struct Found {
    output: Vec<f32>,
    d_input: Vec<f32>,
    d_values: Vec<f32>,
}

/// What the reference makes of it: the output, and some derivatives with their indices.
struct Expected {
    output: Vec<f64>,
    d_input: Vec<(usize, f64)>,
    d_values: Vec<(usize, f64)>,
}

impl Case {
    fn input(&self) -> Vec<f32> {
        numbers(self.shape.len(), 2)
    }

    fn open<D: Device>(&self, device: &D, precision: Precision) -> D::Backend {
        let b = device.open(self.table.clone(), precision);
        b.write_slot(Slot::Values, &numbers(self.table.len(), 1));
        b
    }

    /// Output, and gradients of the input and of the parameters.
    fn run<B: Backend>(&self, b: &B) -> Found {
        b.clear_gradients();
        b.start(true);
        let x = b.tensor(&self.shape.as_tokens(), &self.input());
        let (output, scalar) = self.operation.objective(b, &x, self.shape);
        let output = b.read(&output);
        let d_input = b.backward_to(&scalar, &x);
        Found { output, d_input, d_values: b.read_slot(Slot::Gradients) }
    }

    /// The objective, recorded.
    fn scalar<B: Backend>(&self, b: &B) -> B::Tensor {
        b.start(true);
        let x = b.tensor(&self.shape.as_tokens(), &self.input());
        self.operation.objective(b, &x, self.shape).1
    }

    fn expected(&self) -> Expected {
        let mut reference =
            Reference::new(self.table.clone(), numbers(self.table.len(), 1).iter().map(|v| *v as f64).collect());
        let mut input: Vec<f64> = self.input().iter().map(|v| *v as f64).collect();
        let at = |reference: &Reference, input: &[f64]| {
            let x = reference.tensor_f64(&self.shape.as_tokens(), input.to_vec());
            self.operation.objective(reference, &x, self.shape)
        };
        let output = at(&reference, &input).0.data().to_vec();
        let slope = |up: f64, down: f64| (up - down) / (2.0 * STEP);
        let mut d_input = Vec::new();
        for i in self.samples(0..input.len()) {
            let mut moved = |by: f64| {
                let before = input[i];
                input[i] += by;
                let scalar = at(&reference, &input).1.data()[0];
                input[i] = before;
                scalar
            };
            d_input.push((i, slope(moved(STEP), moved(-STEP))));
        }
        let mut d_values = Vec::new();
        for parameter in self.table.iter() {
            for i in self.samples(parameter.range.clone()) {
                let mut moved = |by: f64| {
                    let before = reference.values_mut()[i];
                    reference.values_mut()[i] = before + by;
                    let scalar = at(&reference, &input).1.data()[0];
                    reference.values_mut()[i] = before;
                    scalar
                };
                d_values.push((i, slope(moved(STEP), moved(-STEP))));
            }
        }
        Expected { output, d_input, d_values }
    }

    /// All indices of a tensor, or some of a large case's, the first and the last among them.
    fn samples(&self, range: std::ops::Range<usize>) -> Vec<usize> {
        let len = range.len();
        if self.shape.is_small() || len <= SAMPLES {
            return range.collect();
        }
        (0..SAMPLES).map(|i| range.start + i * (len - 1) / (SAMPLES - 1)).collect()
    }
}

/// Asserts that every expected number is found, to `tolerance` of the largest of all that were found.
#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: impl IntoIterator<Item = (usize, f64)>, tolerance: f64) {
    let scale = found.iter().fold(1e-3f64, |m, v| m.max(v.abs() as f64));
    for (i, e) in expected {
        let g = found[i] as f64;
        assert!((g - e).abs() <= tolerance * scale, "{what} at {i}: got {g}, expected {e}, scale {scale}");
    }
}

/// Every operation equals the reference to `tolerance`, forward and backward, and all of `devices`, which differ only in
/// their number of threads, give the same bits. Segments that are recomputed give the bits of those that are not.
///
/// # Panics
/// If something differs; the message names the case.
pub fn operations<D: Device>(devices: &[D], precision: Precision, tolerance: f64) {
    for case in SHAPES.into_iter().flat_map(cases) {
        let name = format!("{}, {:?}, {precision:?}", case.name, case.shape);
        let backends: Vec<D::Backend> = devices.iter().map(|device| case.open(device, precision)).collect();
        let found = case.run(&backends[0]);
        let expected = case.expected();
        assert_eq!(found.output.len(), expected.output.len(), "{name}: lengths of the output differ");
        let output = expected.output.into_iter().enumerate();
        assert_close(&format!("{name}: output"), &found.output, output, tolerance);
        assert_close(&format!("{name}: gradient of the input"), &found.d_input, expected.d_input, tolerance);
        for parameter in case.table.iter() {
            let range = parameter.range.clone();
            let of_parameter = expected.d_values.iter().filter(|(i, _)| range.contains(i));
            let shifted = of_parameter.map(|(i, d)| (i - range.start, *d));
            let what = format!("{name}: gradient of {}", parameter.name);
            assert_close(&what, &found.d_values[range.clone()], shifted, tolerance);
        }
        for (b, device) in backends.iter().zip(devices).skip(1) {
            assert!(case.run(b) == found, "{name}: {} threads give other bits", device.threads());
        }

        let (b, operation, shape) = (&backends[0], case.operation.clone(), case.shape);
        b.clear_gradients();
        b.start(true);
        let x = b.tensor(&shape.as_tokens(), &case.input());
        let scalar = b.recompute(&x, Box::new(move |b, x| operation.objective(b, x, shape).1));
        let d_input = b.backward_to(&scalar, &x);
        let same = d_input == found.d_input && b.read_slot(Slot::Gradients) == found.d_values;
        assert!(same, "{name}: recomputed gradients have other bits");
    }
}

/// Gradients add up over backward passes, over ranks, and over both.
///
/// # Panics
/// If they do not; the message names the case.
pub fn gradients_add_up<D: Device + Sync>(device: &D) {
    for shape in SHAPES {
        for (index, case) in cases(shape).into_iter().enumerate() {
            let name = format!("{}, {shape:?}", case.name);
            let b = case.open(device, Precision::F32);
            let once = case.run(&b).d_values;
            let times = |factor: f64| once.iter().map(move |v| factor * *v as f64).enumerate();
            b.backward(&case.scalar(&b));
            assert_close(&name, &b.read_slot(Slot::Gradients), times(2.0), 1e-5);

            // each rank one pass of its own, then one that is reduced
            let of_rank = |mut rank: InProcess| {
                let case = cases(shape).swap_remove(index); // a case cannot be sent: windows are shared within a thread
                let b = case.open(device, Precision::F32);
                b.backward(&case.scalar(&b));
                b.backward_and_reduce(&case.scalar(&b), &mut rank).expect("no rank leaves");
                b.read_slot(Slot::Gradients)
            };
            let of_ranks: Vec<Vec<f32>> = std::thread::scope(|scope| {
                let running: Vec<_> =
                    InProcess::ranks(2).into_iter().map(|rank| scope.spawn(|| of_rank(rank))).collect();
                running.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
            });
            assert!(of_ranks[0] == of_ranks[1], "{name}: ranks differ");
            assert_close(&format!("{name}, two ranks"), &of_ranks[0], times(4.0), 1e-5);
        }
    }
}

/// A step scales, clips and updates as AdamW does, leaves everything alone when the norm is not finite, and the next
/// forward pass sees the new values. The average follows, and is exchanged with the values and back.
///
/// # Panics
/// If something differs.
pub fn steps<D: Device>(device: &D, precision: Precision) {
    // a weight of many values, whose number of outputs is no multiple of any tile
    let (outputs, inputs, rows) = (1003, 200, 5);
    let mut table = ParameterTable::default();
    let linear = Linear { weight: table.add("weight", &[outputs, inputs]), bias: Some(table.add("bias", &[outputs])) };
    let forward = |b: &D::Backend, records: bool| {
        b.start(records);
        let x = b.tensor(&[rows, inputs], &numbers(rows * inputs, 2));
        let y = b.linear(&x, &linear);
        let (target, weight) = (vec![0.0; rows * outputs], vec![1.0; rows * outputs]);
        let loss = Regression { distance: Distance::L2, target: &target, weight: &weight, channels: 1 };
        let loss = b.regression(&y, &loss);
        (b.read(&y), loss)
    };
    let open = |values: &[f32]| {
        let b = device.open(table.clone(), precision);
        b.write_slot(Slot::Values, values);
        b
    };
    let first = numbers(table.len(), 1);
    let b = open(&first);
    let step_sizes = [StepSize { lr: 0.1, weight_decay: 0.1 }, StepSize { lr: 0.02, weight_decay: 0.0 }];
    let step = |number| OptimizerStep {
        number,
        betas: (0.9, 0.99),
        eps: 1e-8,
        gradient_scale: 0.25,
        clip_norm: Some(3.0),
        step_sizes: &step_sizes,
    };
    let mut values: Vec<f64> = first.iter().map(|v| *v as f64).collect();
    let (mut m, mut v) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    for number in 1..=3 {
        b.clear_gradients();
        let (before, loss) = forward(&b, true);
        b.backward(&loss);
        let gradients: Vec<f64> = b.read_slot(Slot::Gradients).iter().map(|g| 0.25 * *g as f64).collect();
        let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
        let found = b.read(&b.step(&step(number)))[0] as f64;
        assert!((found - norm).abs() < 1e-5 * norm && norm > 3.0, "norm {found}, expected {norm}");
        let clip = 3.0 / (norm + 1e-6);
        for (parameter, size) in table.iter().zip(&step_sizes) {
            for i in parameter.range.clone() {
                let g = clip * gradients[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (m_hat, v_hat) =
                    (m[i] / (1.0 - 0.9f64.powi(number as i32)), v[i] / (1.0 - 0.99f64.powi(number as i32)));
                values[i] -= size.lr as f64 * size.weight_decay as f64 * values[i];
                values[i] -= size.lr as f64 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        let stepped = b.read_slot(Slot::Values);
        assert_close("values after a step", &stepped, values.iter().copied().enumerate(), 1e-5);
        let after = forward(&b, false).0;
        assert!(after != before && after == forward(&open(&stepped), false).0, "{precision:?}: stale weights");
    }

    let kept = [Slot::Values, Slot::FirstMoment, Slot::SecondMoment].map(|slot| b.read_slot(slot));
    assert_close("first moment", &kept[1], m.iter().copied().enumerate(), 1e-5);
    assert_close("second moment", &kept[2], v.iter().copied().enumerate(), 1e-5);
    let mut broken = b.read_parameter(Slot::Gradients, linear.weight);
    broken[7] = f32::NAN;
    b.write_parameter(Slot::Gradients, linear.weight, &broken);
    assert!(!b.read(&b.step(&step(4)))[0].is_finite(), "a gradient that is not a number shows in the norm");
    let now = [Slot::Values, Slot::FirstMoment, Slot::SecondMoment].map(|slot| b.read_slot(slot));
    assert!(now == kept, "a step without a finite norm changes nothing");

    let half: Vec<f32> = kept[0].iter().map(|v| 0.5 * v).collect();
    b.write_slot(Slot::Average, &half);
    b.update_average(0.75);
    let expected = kept[0].iter().map(|v| 0.625 * *v as f64).enumerate();
    let average = b.read_slot(Slot::Average);
    assert_close("average", &average, expected, 1e-6);
    b.swap_average();
    assert!(b.read_slot(Slot::Values) == average && b.read_slot(Slot::Average) == kept[0]);
    assert!(forward(&b, false).0 == forward(&open(&average), false).0, "{precision:?}: stale weights after a swap");
    b.swap_average();
    assert!(b.read_slot(Slot::Values) == kept[0] && b.read_slot(Slot::Average) == average);
}
