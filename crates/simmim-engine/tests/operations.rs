//! One table of cases for every operation: each backend's outputs equal the reference's, and its
//! gradients equal finite differences of the reference.
//!
//! To check another backend, run [`check`] with it; to add an operation, add a case.

use simmim_engine::{
    AttentionBranch, Backend, Cpu, CrossEntropy, Distance, Images, Labels, Laplace, LayerNorm, Linear, MlpBranch,
    NormOrder, Operations, ParameterId, ParameterTable, PositionMlp, Precision, QkvBias, Reference, Regression,
    Similarity, Slot, SoftLabels, StepSize, Update, Windows,
};
use std::rc::Rc;

/// Numbers in `[-1, 1)` that look random and are the same in every run.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Sizes of the token tensor that most cases take.
const TOKENS: [usize; 3] = [3, 6, 8];

/// The same values as small images, `[B, H, W, C]`.
const IMAGES: [usize; 4] = [3, 4, 6, 2];

/// The operation under test, applied to an input tensor.
#[derive(Clone, Debug)]
enum Operation {
    Parameter(ParameterId),
    PatchEmbed { linear: Linear },
    Hide { mask_token: ParameterId },
    PrependToken { token: ParameterId },
    AddPositions { positions: ParameterId },
    Attention { branch: Box<AttentionBranch>, table: Option<ParameterId>, keep: Option<Vec<f32>> },
    ContinuousPositionBias(PositionMlp),
    Mlp { branch: MlpBranch, keep: Option<Vec<f32>> },
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
    fn objective<B: Operations>(&self, b: &B, x: &B::Tensor) -> (B::Tensor, B::Tensor) {
        let pixels = numbers(2 * 3 * 8 * 12, 77);
        let images = Images { pixels: &pixels, count: 2, channels: 3, height: 8, width: 12 };
        let as_images = || b.reshape(x, &IMAGES);
        let hidden: Vec<bool> = (0..TOKENS[0] * TOKENS[1]).map(|i| i % 3 == 0).collect();
        let out = match self {
            Operation::Parameter(id) => b.parameter(*id),
            Operation::PatchEmbed { linear } => b.patch_embed(&images, (4, 2), linear),
            Operation::Hide { mask_token } => b.hide(x, &hidden, *mask_token),
            Operation::PrependToken { token } => b.prepend_token(x, *token),
            Operation::AddPositions { positions } => b.add_positions(x, *positions),
            Operation::Attention { branch, table, keep } => {
                b.attention_branch(x, branch, table.map(|t| b.parameter(t)).as_ref(), keep.as_deref())
            }
            Operation::ContinuousPositionBias(mlp) => b.continuous_position_bias(&numbers(2 * 7, 4), mlp),
            Operation::Mlp { branch, keep } => b.mlp_branch(x, branch, keep.as_deref()),
            Operation::LayerNorm(norm) => b.layer_norm(x, norm),
            Operation::Linear(linear) => b.linear(x, linear),
            Operation::Gelu => b.gelu(x),
            Operation::GatherRows(rows) => b.gather_rows(x, rows),
            Operation::MeanTokens => b.mean_tokens(x),
            Operation::Regression(distance) => {
                let rows = TOKENS[0] * TOKENS[1];
                let (target, weight) = (numbers(rows * 8, 5), numbers(rows * 4, 6));
                let loss =
                    Regression { distance: *distance, target: &target, weight: &weight, channels: 2, denominator: 3.5 };
                return (b.regression(x, &loss), b.regression(x, &loss));
            }
            Operation::CrossEntropy { channels, classes } => {
                let (rows, choices) = (TOKENS[0] * TOKENS[1], TOKENS[2] / classes);
                let ids: Vec<u32> = (0..rows * choices).map(|i| (i * 5 % classes) as u32).collect();
                let weight = numbers(rows * choices / channels, 6);
                let loss = CrossEntropy {
                    ids: &ids,
                    weight: &weight,
                    channels: *channels,
                    classes: *classes,
                    denominator: 3.5,
                };
                return (b.cross_entropy(x, &loss), b.cross_entropy(x, &loss));
            }
            Operation::SoftLabels(labels) => {
                let count = TOKENS.iter().product();
                // shares that do not sum to 1 in a row, as those of weighted classes do not
                let target: Vec<f32> = numbers(count, 5).iter().map(|v| 0.5 + 0.5 * v).collect();
                let loss =
                    SoftLabels { labels: *labels, target: &target, weight: &numbers(count, 6), denominator: 3.5 };
                return (b.soft_labels(x, &loss), b.soft_labels(x, &loss));
            }
            Operation::Convolution(linear) => b.convolution(&as_images(), linear),
            Operation::Relu => b.relu(x),
            Operation::MaxPool => b.max_pool(&as_images()),
            Operation::Upsample => b.upsample(&as_images()),
            Operation::Add { factor } => b.add(x, *factor, &b.relu(x)),
            Operation::GumbelSoftmax { temperature } => {
                b.gumbel_softmax(x, &numbers(TOKENS.iter().product(), 8), *temperature)
            }
            Operation::Laplace => {
                let target = numbers(TOKENS.iter().product::<usize>() / 2, 5);
                let loss = Laplace { target: &target, denominator: 3.5 };
                return (b.laplace(x, &loss), b.laplace(x, &loss));
            }
            Operation::UniformDivergence => return (b.uniform_divergence(x, 3.5), b.uniform_divergence(x, 3.5)),
        };
        // Σ weight·|out − (−100)| is Σ weight·out up to a constant: every output gets its own gradient
        let len = b.read(&out).len();
        let loss = Regression {
            distance: Distance::L1,
            target: &vec![-100.0; len],
            weight: &numbers(len, 9),
            channels: 1,
            denominator: 1.0,
        };
        let scalar = b.regression(&out, &loss);
        (out, scalar)
    }
}

struct Case {
    name: &'static str,
    table: ParameterTable,
    operation: Operation,
}

fn case(name: &'static str, build: impl FnOnce(&mut ParameterTable) -> Operation) -> Case {
    let mut table = ParameterTable::default();
    let operation = build(&mut table);
    Case { name, table, operation }
}

/// Shifted 2×2 windows over a 2×3 grid: with padding slots and a mask.
fn padded_windows() -> Windows {
    let padding = 6;
    Windows {
        tokens: 4,
        slots: Rc::new([0, 1, 3, 4, 2, padding, 5, padding]),
        masks: Rc::new([(0..16).map(|i| if (i / 4 < 2) == (i % 4 < 2) { 0.0 } else { -100.0 }).collect()]),
        mask_of: Rc::new([None, Some(0)]),
    }
}

fn cases() -> Vec<Case> {
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
        weight: t.add("conv.w", &[5, IMAGES[3], side, side]),
        bias: bias.then(|| t.add("conv.b", &[5])),
    };
    let attention = |t: &mut ParameterTable, order, bias: QkvBias, similarity, scaled: bool, windows: Windows| {
        let table = t.add("table", &[5, 2]);
        let tokens = windows.tokens;
        AttentionBranch {
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
        }
        .pipe(|branch| (branch, table))
    };
    let keep = Some(vec![1.25, 0.0, 1.25]);
    vec![
        case("parameter", |t| Operation::Parameter(t.add("p", &[3, 4]))),
        case("patch embedding", |t| Operation::PatchEmbed { linear: linear(t, "proj", 8, 24, true) }),
        case("hide", |t| Operation::Hide { mask_token: t.add("mask", &[1, 1, 8]) }),
        case("prepend token", |t| Operation::PrependToken { token: t.add("cls", &[1, 1, 8]) }),
        case("add positions", |t| Operation::AddPositions { positions: t.add("pos", &[1, 6, 8]) }),
        case("attention, whole image, no bias at all", |t| {
            let (branch, _) =
                attention(t, NormOrder::Pre, QkvBias::None, Similarity::ScaledDot, false, Windows::whole_image(6));
            Operation::Attention { branch: Box::new(branch), table: None, keep: None }
        }),
        case("attention, q and v bias, table, layer scale, drop path", |t| {
            let bias = QkvBias::QueryValue { query: t.add("q", &[8]), value: t.add("v", &[8]) };
            let (branch, table) =
                attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, true, Windows::whole_image(6));
            Operation::Attention { branch: Box::new(branch), table: Some(table), keep: keep.clone() }
        }),
        case("attention, masked windows with padding", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let (branch, table) = attention(t, NormOrder::Pre, bias, Similarity::ScaledDot, false, padded_windows());
            Operation::Attention { branch: Box::new(branch), table: Some(table), keep: None }
        }),
        case("attention, post-norm, cosine, masked windows with padding", |t| {
            let bias = QkvBias::Full(t.add("b", &[24]));
            let similarity = Similarity::Cosine { logit_scale: t.add("logit", &[2, 1, 1]) };
            let (branch, table) = attention(t, NormOrder::Post, bias, similarity, false, padded_windows());
            Operation::Attention { branch: Box::new(branch), table: Some(table), keep: keep.clone() }
        }),
        case("attention, cosine, q and v bias, so that the keys of padding are zero", |t| {
            let bias = QkvBias::QueryValue { query: t.add("q", &[8]), value: t.add("v", &[8]) };
            let similarity = Similarity::Cosine { logit_scale: t.add("logit", &[2, 1, 1]) };
            let (branch, table) = attention(t, NormOrder::Post, bias, similarity, false, padded_windows());
            Operation::Attention { branch: Box::new(branch), table: Some(table), keep: None }
        }),
        case("mlp, pre-norm", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Pre,
                fc1: linear(t, "fc1", 20, 8, true),
                fc2: linear(t, "fc2", 8, 20, true),
                layer_scale: None,
            };
            Operation::Mlp { branch, keep: None }
        }),
        case("mlp, post-norm, layer scale, drop path", |t| {
            let branch = MlpBranch {
                norm: norm(t, 8),
                order: NormOrder::Post,
                fc1: linear(t, "fc1", 20, 8, false),
                fc2: linear(t, "fc2", 8, 20, true),
                layer_scale: Some(t.add("gamma", &[8])),
            };
            Operation::Mlp { branch, keep: keep.clone() }
        }),
        case("continuous position bias", |t| {
            Operation::ContinuousPositionBias(PositionMlp {
                fc1_weight: t.add("fc1.w", &[20, 2]),
                fc1_bias: t.add("fc1.b", &[20]),
                fc2_weight: t.add("fc2.w", &[3, 20]),
            })
        }),
        case("layer norm", |t| Operation::LayerNorm(norm(t, 8))),
        case("linear with bias", |t| Operation::Linear(linear(t, "head", 5, 8, true))),
        case("linear without bias", |t| Operation::Linear(linear(t, "head", 5, 8, false))),
        case("gelu", |_| Operation::Gelu),
        case("gather rows", |_| Operation::GatherRows(vec![4, 0, 17])),
        case("mean of tokens", |_| Operation::MeanTokens),
        case("regression l1", |_| Operation::Regression(Distance::L1)),
        case("regression l2", |_| Operation::Regression(Distance::L2)),
        case("regression smooth l1", |_| Operation::Regression(Distance::SmoothL1 { beta: 0.7 })),
        case("cross-entropy, one choice a row", |_| Operation::CrossEntropy { channels: 1, classes: 8 }),
        case("cross-entropy, weights of positions", |_| Operation::CrossEntropy { channels: 1, classes: 2 }),
        case("cross-entropy, weights shared by channels", |_| Operation::CrossEntropy { channels: 2, classes: 2 }),
        case("soft labels, one class", |_| Operation::SoftLabels(Labels::One)),
        case("soft labels, many classes", |_| Operation::SoftLabels(Labels::Many)),
        case("convolution 1×1", |t| Operation::Convolution(convolution(t, 1, true))),
        case("convolution 3×3 without bias", |t| Operation::Convolution(convolution(t, 3, false))),
        case("convolution 7×7, larger than the image", |t| Operation::Convolution(convolution(t, 7, true))),
        case("relu", |_| Operation::Relu),
        case("max pool", |_| Operation::MaxPool),
        case("upsample", |_| Operation::Upsample),
        case("add", |_| Operation::Add { factor: -0.3 }),
        case("gumbel softmax", |_| Operation::GumbelSoftmax { temperature: 0.4 }),
        case("laplace", |_| Operation::Laplace),
        case("uniform divergence", |_| Operation::UniformDivergence),
    ]
}

trait Pipe: Sized {
    fn pipe<R>(self, f: impl FnOnce(Self) -> R) -> R {
        f(self)
    }
}
impl<T> Pipe for T {}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths differ");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((*g as f64 - e).abs() <= tolerance * scale, "{what} at {i}: got {g}, expected {e}, scale {scale}");
    }
}

/// Checks one case on one backend: output, gradient of the input, gradient of every parameter.
fn check(case: &Case, precision: Precision, threads: usize, tolerance: f64) {
    let values = numbers(case.table.len(), 1);
    let input = numbers(TOKENS.iter().product(), 2);
    let Case { name, table, operation } = case;

    let cpu = Cpu::new(table.clone(), precision, threads);
    cpu.write_slot(Slot::Values, &values);
    cpu.start(true);
    let x = cpu.tensor(&TOKENS, &input);
    let (out, scalar) = operation.objective(&cpu, &x);
    let out = cpu.read(&out);
    let d_input = cpu.backward_with_gradient_of(&scalar, &x);
    let d_values = cpu.read_slot(Slot::Gradients);

    let mut reference = Reference::new(table.clone(), values.iter().map(|v| *v as f64).collect());
    let at = |reference: &Reference, input: Vec<f64>| {
        let x = reference.tensor_f64(&TOKENS, input);
        operation.objective(reference, &x)
    };
    let input: Vec<f64> = input.iter().map(|v| *v as f64).collect();
    let (expected, _) = at(&reference, input.clone());
    assert_close(&format!("{name}: output"), &out, expected.data(), tolerance);

    let step = 1e-5;
    let slope = |up: f64, down: f64| (up - down) / (2.0 * step);
    let scalar_of = |reference: &Reference, input: Vec<f64>| at(reference, input).1.data()[0];
    let expected: Vec<f64> = (0..input.len())
        .map(|i| {
            let moved = |by: f64| {
                let mut input = input.clone();
                input[i] += by;
                scalar_of(&reference, input)
            };
            slope(moved(step), moved(-step))
        })
        .collect();
    assert_close(&format!("{name}: gradient of the input"), &d_input, &expected, tolerance);

    for parameter in table.iter() {
        let expected: Vec<f64> = parameter
            .range
            .clone()
            .map(|i| {
                let kept = reference.values_mut()[i];
                reference.values_mut()[i] = kept + step;
                let up = scalar_of(&reference, input.clone());
                reference.values_mut()[i] = kept - step;
                let down = scalar_of(&reference, input.clone());
                reference.values_mut()[i] = kept;
                slope(up, down)
            })
            .collect();
        let what = format!("{name}: gradient of {}", parameter.name);
        assert_close(&what, &d_values[parameter.range.clone()], &expected, tolerance);
    }
}

#[test]
fn every_operation_equals_the_reference_in_f32() {
    for case in cases() {
        for threads in [1, 2, 3] {
            check(&case, Precision::F32, threads, 2e-5);
        }
    }
}

#[test]
fn every_operation_is_near_the_reference_in_bf16() {
    for case in cases() {
        check(&case, Precision::Bf16, 2, 5e-2); // bf16 keeps 8 bits: 4e-3 per operand, several in a row
    }
}

#[test]
fn an_update_leaves_panels_of_the_new_values() {
    // a weight of several pieces, whose outputs are no whole panels of any tile
    let (outputs, inputs) = (1003, 200);
    let mut table = ParameterTable::default();
    let linear = Linear { weight: table.add("weight", &[outputs, inputs]), bias: Some(table.add("bias", &[outputs])) };
    for precision in [Precision::F32, Precision::Bf16] {
        let forward = |cpu: &Cpu, records: bool| {
            cpu.start(records);
            let x = cpu.tensor(&[5, inputs], &numbers(5 * inputs, 2));
            let y = cpu.linear(&x, &linear);
            let loss = Regression {
                distance: Distance::L2,
                target: &vec![0.0; 5 * outputs],
                weight: &vec![1.0; 5 * outputs],
                channels: 1,
                denominator: 5.0,
            };
            let loss = cpu.regression(&y, &loss);
            (cpu.read(&y), loss)
        };
        let updated = Cpu::new(table.clone(), precision, 2);
        updated.write_slot(Slot::Values, &numbers(table.len(), 1));
        let (before, loss) = forward(&updated, true);
        updated.backward(&loss);
        let step = StepSize { lr: 0.1, weight_decay: 0.1 };
        let update = Update { number: 1, betas: (0.9, 0.99), eps: 1e-8, gradient_scale: 1.0, steps: &[step; 2] };
        updated.update(&update);
        let fresh = Cpu::new(table.clone(), precision, 2);
        fresh.write_slot(Slot::Values, &updated.read_slot(Slot::Values));
        let after = forward(&updated, false).0;
        assert!(after != before && after == forward(&fresh, false).0, "{precision:?}");
    }
}

#[test]
fn gradients_add_up_over_backward_passes() {
    let case = cases().into_iter().find(|c| c.name == "mlp, pre-norm").unwrap();
    let cpu = Cpu::new(case.table.clone(), Precision::F32, 2);
    cpu.write_slot(Slot::Values, &numbers(case.table.len(), 1));
    let mut after = Vec::new();
    for _ in 0..2 {
        cpu.start(true);
        let x = cpu.tensor(&TOKENS, &numbers(TOKENS.iter().product(), 2));
        let (_, scalar) = case.operation.objective(&cpu, &x);
        cpu.backward(&scalar);
        after.push(cpu.read_slot(Slot::Gradients));
    }
    let twice: Vec<f64> = after[0].iter().map(|v| 2.0 * *v as f64).collect();
    assert_close("gradients", &after[1], &twice, 1e-6);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for case in cases() {
        for precision in [Precision::F32, Precision::Bf16] {
            let results = [1, 2, 5].map(|threads| {
                let cpu = Cpu::new(case.table.clone(), precision, threads);
                cpu.write_slot(Slot::Values, &numbers(case.table.len(), 1));
                cpu.start(true);
                let x = cpu.tensor(&TOKENS, &numbers(TOKENS.iter().product(), 2));
                let (out, scalar) = case.operation.objective(&cpu, &x);
                let d_input = cpu.backward_with_gradient_of(&scalar, &x);
                let norm = cpu.gradient_norm();
                (cpu.read(&out), d_input, cpu.read_slot(Slot::Gradients), norm)
            });
            assert!(results[0] == results[1] && results[0] == results[2], "{}", case.name);
        }
    }
}

#[test]
fn what_is_computed_again_has_the_same_gradients_bit_for_bit() {
    for case in cases() {
        let cpu = Cpu::new(case.table.clone(), Precision::Bf16, 2);
        cpu.write_slot(Slot::Values, &numbers(case.table.len(), 1));
        let mut gradients = Vec::new();
        for recomputes in [false, true] {
            cpu.clear_gradients();
            cpu.start(true);
            let x = cpu.tensor(&TOKENS, &numbers(TOKENS.iter().product(), 2));
            let operation = case.operation.clone();
            let scalar = match recomputes {
                false => operation.objective(&cpu, &x).1,
                true => cpu.recompute(&x, Box::new(move |b, x| operation.objective(b, x).1)),
            };
            let d_x = cpu.backward_with_gradient_of(&scalar, &x);
            gradients.push((d_x, cpu.read_slot(Slot::Gradients)));
        }
        assert!(gradients[0] == gradients[1], "{}", case.name);
    }
}
