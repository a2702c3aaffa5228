//! The specification: every operation in plain f64 loops, forward only.
//!
//! Nothing here is fast, and no code is shared with a backend. A backend is right when its outputs equal these and its
//! gradients equal the finite differences of these.

mod images;

use crate::operations::{
    Activation, AttentionBranch, CrossEntropy, Distance, Images, Labels, Laplace, LayerNorm, Linear, MlpBranch,
    NormOrder, Operations, PositionMlp, QkvBias, Regression, Rotary, Segment, Similarity, SoftLabels,
};
use crate::parameters::{ParameterId, ParameterTable};
use std::rc::Rc;

/// Runs operations in f64; see the module's documentation.
pub struct Reference {
    table: ParameterTable,
    values: Vec<f64>,
}

/// A tensor of [`Reference`].
#[derive(Clone, Debug)]
pub struct ReferenceTensor {
    shape: Vec<usize>,
    data: Rc<Vec<f64>>,
}

impl ReferenceTensor {
    /// The values, row-major.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    fn width(&self) -> usize {
        *self.shape.last().expect("a tensor has at least one axis")
    }

    fn tokens_shape(&self) -> (usize, usize, usize) {
        match self.shape[..] {
            [images, tokens, width] => (images, tokens, width),
            _ => panic!("expected [B, N, D], got {:?}", self.shape),
        }
    }
}

fn tensor(shape: &[usize], data: Vec<f64>) -> ReferenceTensor {
    assert_eq!(shape.iter().product::<usize>(), data.len(), "values do not fill shape {shape:?}");
    ReferenceTensor { shape: shape.to_vec(), data: Rc::new(data) }
}

impl Reference {
    /// A reference for the parameters of `table` with the given values.
    pub fn new(table: ParameterTable, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), table.len(), "one value per parameter element");
        Self { table, values }
    }

    /// All parameter values; write to them to take finite differences.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// A tensor that keeps f64 precision.
    pub fn tensor_f64(&self, shape: &[usize], data: Vec<f64>) -> ReferenceTensor {
        tensor(shape, data)
    }

    fn value(&self, id: ParameterId) -> &[f64] {
        &self.values[self.table.get(id).range.clone()]
    }

    fn project(&self, row: &[f64], weight: ParameterId, bias: impl Fn(usize) -> f64) -> Vec<f64> {
        let outputs = self.table.get(weight).shape[0];
        let weight = self.value(weight);
        let output = |o: usize| (0..row.len()).map(|i| row[i] * weight[o * row.len() + i]).sum::<f64>() + bias(o);
        (0..outputs).map(output).collect()
    }

    fn linear_row(&self, row: &[f64], linear: &Linear) -> Vec<f64> {
        self.project(row, linear.weight, |o| linear.bias.map_or(0.0, |b| self.value(b)[o]))
    }

    fn norm_row(&self, row: &[f64], norm: &LayerNorm) -> Vec<f64> {
        let count = row.len() as f64;
        let mean = row.iter().sum::<f64>() / count;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let rstd = 1.0 / (variance + norm.eps as f64).sqrt();
        let (weight, bias) = (self.value(norm.weight), self.value(norm.bias));
        (0..row.len()).map(|i| (row[i] - mean) * rstd * weight[i] + bias[i]).collect()
    }

    /// `x + drop_path_scale·scale·f(x)` with the norm in front of `f` or behind it, image by image.
    fn residual(
        &self,
        x: &ReferenceTensor,
        norm: &LayerNorm,
        order: NormOrder,
        layer_scale: Option<ParameterId>,
        drop_path_scale: Option<&[f32]>,
        f: impl Fn(&[f64]) -> Vec<f64>,
    ) -> ReferenceTensor {
        let (images, tokens, width) = x.tokens_shape();
        let mut out = x.data.to_vec();
        let normalize =
            |rows: &[f64]| -> Vec<f64> { rows.chunks(width).flat_map(|row| self.norm_row(row, norm)).collect() };
        for image in 0..images {
            let span = image * tokens * width..(image + 1) * tokens * width;
            let x = &x.data[span.clone()];
            let branch = match order {
                NormOrder::Pre => f(&normalize(x)),
                NormOrder::Post => normalize(&f(x)),
            };
            let drop_path_scale = drop_path_scale.map_or(1.0, |k| k[image] as f64);
            for (i, out) in out[span].iter_mut().enumerate() {
                *out += drop_path_scale * layer_scale.map_or(1.0, |s| self.value(s)[i % width]) * branch[i];
            }
        }
        tensor(&x.shape, out)
    }

    fn attention(&self, a: &[f64], branch: &AttentionBranch, table: Option<&[f64]>) -> Vec<f64> {
        let width = self.value(branch.norm.weight).len();
        let (tokens, head_width) = (a.len() / width, width / branch.heads);
        let bias = |o: usize| match branch.qkv_bias {
            QkvBias::None => 0.0,
            QkvBias::Full(id) => self.value(id)[o],
            QkvBias::QueryValue { query, .. } if o < width => self.value(query)[o],
            QkvBias::QueryValue { .. } if o < 2 * width => 0.0,
            QkvBias::QueryValue { value, .. } => self.value(value)[o - 2 * width],
        };
        // one row more than tokens: padding, a token of zeros
        let padded = a.chunks(width).map(<[f64]>::to_vec).chain([vec![0.0; width]]);
        let qkv: Vec<Vec<f64>> = padded.map(|row| self.project(&row, branch.qkv, bias)).collect();
        let windows = &branch.windows;
        let turned = |token: usize, part: &[f64]| rotated(part, branch.rotary.as_ref(), token);
        let mut o = vec![0.0; a.len()];
        for window in 0..windows.count() {
            let slots = &windows.slots[window * windows.tokens..][..windows.tokens];
            for head in 0..branch.heads {
                let part = |slot: usize, part: usize| {
                    &qkv[slots[slot] as usize][part * width + head * head_width..][..head_width]
                };
                for i in 0..windows.tokens {
                    let scores: Vec<f64> = (0..windows.tokens)
                        .map(|j| {
                            let (q, k) = (turned(slots[i] as usize, part(i, 0)), turned(slots[j] as usize, part(j, 1)));
                            let (q, k) = (q.as_slice(), k.as_slice());
                            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                            let similarity = match branch.similarity {
                                Similarity::ScaledDot => dot(q, k) / (head_width as f64).sqrt(),
                                Similarity::Cosine { logit_scale } => {
                                    let scale = self.value(logit_scale)[head].min(100f64.ln()).exp();
                                    // the key of a padding token may be zero: as PyTorch's `normalize`
                                    let norm = |x: &[f64]| dot(x, x).sqrt().max(1e-12);
                                    scale * dot(q, k) / (norm(q) * norm(k))
                                }
                            };
                            let pair = i * windows.tokens + j;
                            let position =
                                table.map_or(0.0, |t| t[branch.bias_index[pair] as usize * branch.heads + head]);
                            let mask = windows.mask_of[window].map_or(0.0, |m| windows.masks[m as usize][pair] as f64);
                            similarity + position + mask
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                    if (slots[i] as usize) < tokens {
                        for e in 0..head_width {
                            let mixed =
                                (0..windows.tokens).map(|j| (scores[j] - largest).exp() / total * part(j, 2)[e]);
                            o[slots[i] as usize * width + head * head_width + e] = mixed.sum();
                        }
                    }
                }
            }
        }
        o.chunks(width).flat_map(|row| self.linear_row(row, &branch.projection)).collect()
    }
}

/// A query or key of a token, turned by rotary positions: a product of complex numbers, of which value `i` is the real and value
/// `i + E/2` the imaginary part.
fn rotated(row: &[f64], rotary: Option<&Rotary>, token: usize) -> Vec<f64> {
    let Some(rotary) = rotary else { return row.to_vec() };
    let half = row.len() / 2;
    let angle = |e: usize| (rotary.cosines[token * half + e] as f64, rotary.sines[token * half + e] as f64);
    let real = (0..half).map(|e| row[e] * angle(e).0 - row[half + e] * angle(e).1);
    let imaginary = (0..half).map(|e| row[half + e] * angle(e).0 + row[e] * angle(e).1);
    real.chain(imaginary).collect()
}

/// `silu` of every first half, times the second half.
fn swiglu(row: &[f64]) -> Vec<f64> {
    let (gates, values) = row.split_at(row.len() / 2);
    gates.iter().zip(values).map(|(gate, value)| gate / (1.0 + (-gate).exp()) * value).collect()
}

/// The exact GELU, with erf by its Maclaurin series (|x| < 8 keeps 1e-9).
fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    if z.abs() > 5.5 {
        return if x > 0.0 { x } else { 0.0 };
    }
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    0.5 * x * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
}

impl Operations for Reference {
    type Tensor = ReferenceTensor;

    fn tensor(&self, shape: &[usize], data: &[f32]) -> ReferenceTensor {
        tensor(shape, data.iter().map(|v| *v as f64).collect())
    }

    fn shape(&self, x: &ReferenceTensor) -> Vec<usize> {
        x.shape.clone()
    }

    fn read(&self, x: &ReferenceTensor) -> Vec<f32> {
        x.data.iter().map(|v| *v as f32).collect()
    }

    fn reshape(&self, x: &ReferenceTensor, shape: &[usize]) -> ReferenceTensor {
        tensor(shape, x.data.to_vec())
    }

    fn parameter(&self, id: ParameterId) -> ReferenceTensor {
        tensor(&self.table.get(id).shape, self.value(id).to_vec())
    }

    fn patch_embed(&self, images: &Images, patch: (usize, usize), linear: &Linear) -> ReferenceTensor {
        let (rows, columns) = (images.height / patch.0, images.width / patch.1);
        let mut out = Vec::new();
        for image in 0..images.count {
            let pixel =
                |c: usize, y: usize, x: usize| images.image(image)[(c * images.height + y) * images.width + x] as f64;
            for n in 0..rows * columns {
                let (top, left) = (n / columns * patch.0, n % columns * patch.1);
                let mut values = Vec::new();
                for c in 0..images.channels {
                    for i in 0..patch.0 {
                        values.extend((0..patch.1).map(|j| pixel(c, top + i, left + j)));
                    }
                }
                out.extend(self.linear_row(&values, linear));
            }
        }
        tensor(&[images.count, rows * columns, self.table.get(linear.weight).shape[0]], out)
    }

    fn mask_tokens(&self, x: &ReferenceTensor, hidden: &[bool], mask_token: ParameterId) -> ReferenceTensor {
        let rows = x.data.chunks(x.width()).zip(hidden);
        let out = rows.flat_map(|(row, hidden)| if *hidden { self.value(mask_token).to_vec() } else { row.to_vec() });
        tensor(&x.shape, out.collect())
    }

    fn prepend_tokens(&self, x: &ReferenceTensor, tokens: ParameterId) -> ReferenceTensor {
        let (images, others, width) = x.tokens_shape();
        let first = self.value(tokens);
        let out = x.data.chunks(others * width).flat_map(|image| [first, image].concat());
        tensor(&[images, first.len() / width + others, width], out.collect())
    }

    fn add_positions(&self, x: &ReferenceTensor, positions: ParameterId) -> ReferenceTensor {
        let positions = self.value(positions);
        let out = x.data.iter().enumerate().map(|(i, v)| v + positions[i % positions.len()]);
        tensor(&x.shape, out.collect())
    }

    fn attention_branch(
        &self,
        x: &ReferenceTensor,
        branch: &AttentionBranch,
        bias_table: Option<&ReferenceTensor>,
        drop_path_scale: Option<&[f32]>,
    ) -> ReferenceTensor {
        let table = bias_table.map(|t| t.data.as_slice());
        self.residual(x, &branch.norm, branch.order, branch.layer_scale, drop_path_scale, |a| {
            self.attention(a, branch, table)
        })
    }

    fn continuous_position_bias(&self, offsets: &[f32], mlp: &PositionMlp) -> ReferenceTensor {
        let row = |offset: &[f32]| {
            let offset = [offset[0] as f64, offset[1] as f64];
            let hidden = self.project(&offset, mlp.fc1_weight, |o| self.value(mlp.fc1_bias)[o]);
            let hidden: Vec<f64> = hidden.iter().map(|v| v.max(0.0)).collect();
            self.project(&hidden, mlp.fc2_weight, |_| 0.0)
        };
        let logits = offsets.chunks(2).flat_map(row);
        let bias = logits.map(|v| 16.0 / (1.0 + (-v).exp())).collect();
        tensor(&[offsets.len() / 2, self.table.get(mlp.fc2_weight).shape[0]], bias)
    }

    fn mlp_branch(&self, x: &ReferenceTensor, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> ReferenceTensor {
        let width = x.width();
        self.residual(x, &branch.norm, branch.order, branch.layer_scale, drop_path_scale, |a| {
            let row = |row: &[f64]| {
                let first = self.linear_row(row, &branch.fc1);
                let hidden: Vec<f64> = match branch.activation {
                    Activation::Gelu => first.into_iter().map(gelu).collect(),
                    Activation::SwiGlu => swiglu(&first),
                };
                self.linear_row(&hidden, &branch.fc2)
            };
            a.chunks(width).flat_map(row).collect()
        })
    }

    fn recompute(&self, x: &ReferenceTensor, segment: Segment<Self>) -> ReferenceTensor {
        segment(self, x)
    }

    fn frozen(&self, x: &ReferenceTensor, segment: Segment<Self>) -> ReferenceTensor {
        segment(self, x)
    }

    fn layer_norm(&self, x: &ReferenceTensor, norm: &LayerNorm) -> ReferenceTensor {
        tensor(&x.shape, x.data.chunks(x.width()).flat_map(|row| self.norm_row(row, norm)).collect())
    }

    fn linear(&self, x: &ReferenceTensor, linear: &Linear) -> ReferenceTensor {
        let out: Vec<f64> = x.data.chunks(x.width()).flat_map(|row| self.linear_row(row, linear)).collect();
        let mut shape = x.shape.clone();
        *shape.last_mut().expect("a tensor has at least one axis") = self.table.get(linear.weight).shape[0];
        tensor(&shape, out)
    }

    fn gelu(&self, x: &ReferenceTensor) -> ReferenceTensor {
        tensor(&x.shape, x.data.iter().map(|v| gelu(*v)).collect())
    }

    fn gather_rows(&self, x: &ReferenceTensor, rows: &[u32]) -> ReferenceTensor {
        let width = x.width();
        let out = rows.iter().flat_map(|row| x.data[*row as usize * width..][..width].to_vec());
        tensor(&[rows.len(), width], out.collect())
    }

    fn mean_tokens(&self, x: &ReferenceTensor) -> ReferenceTensor {
        let (images, tokens, width) = x.tokens_shape();
        let mean = |image: &[f64], i: usize| (0..tokens).map(|t| image[t * width + i]).sum::<f64>() / tokens as f64;
        let rows = x.data.chunks(tokens * width).flat_map(|image| (0..width).map(move |i| mean(image, i)));
        tensor(&[images, width], rows.collect())
    }

    fn regression(&self, prediction: &ReferenceTensor, loss: &Regression) -> ReferenceTensor {
        let per_channel = prediction.width() / loss.channels;
        let term = |(i, (p, t)): (usize, (&f64, &f32))| {
            let weight = loss.weight[i / prediction.width() * per_channel + i % per_channel] as f64;
            let e = p - *t as f64;
            weight
                * match loss.distance {
                    Distance::L1 => e.abs(),
                    Distance::L2 => e * e,
                    Distance::SmoothL1 { beta } if e.abs() < beta as f64 => 0.5 * e * e / beta as f64,
                    Distance::SmoothL1 { beta } => e.abs() - 0.5 * beta as f64,
                }
        };
        let sum: f64 = prediction.data.iter().zip(loss.target).enumerate().map(term).sum();
        tensor(&[1], vec![sum])
    }

    fn cross_entropy(&self, logits: &ReferenceTensor, loss: &CrossEntropy) -> ReferenceTensor {
        let choices = logits.width() / loss.classes;
        let positions = choices / loss.channels;
        let term = |(i, (logits, id)): (usize, (&[f64], &u32))| {
            let weight = loss.weight[i / choices * positions + i % positions] as f64;
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|v| (v - largest).exp()).sum();
            weight * (largest + total.ln() - logits[*id as usize])
        };
        let sum: f64 = logits.data.chunks(loss.classes).zip(loss.ids).enumerate().map(term).sum();
        tensor(&[1], vec![sum])
    }

    fn soft_labels(&self, logits: &ReferenceTensor, loss: &SoftLabels) -> ReferenceTensor {
        let row = |(i, logits): (usize, &[f64])| {
            let total: f64 = logits.iter().map(|v| v.exp()).sum();
            let term = |(k, v): (usize, &f64)| {
                let at = i * logits.len() + k;
                let (target, weight) = (loss.target[at] as f64, loss.weight[at] as f64);
                weight
                    * match loss.labels {
                        Labels::One => -target * (v.exp() / total).ln(),
                        Labels::Many => {
                            let p = 1.0 / (1.0 + (-v).exp());
                            -target * p.ln() - (1.0 - target) * (1.0 - p).ln()
                        }
                    }
            };
            logits.iter().enumerate().map(term).sum::<f64>()
        };
        let sum: f64 = logits.data.chunks(logits.width()).enumerate().map(row).sum();
        tensor(&[1], vec![sum])
    }

    fn convolution(&self, x: &ReferenceTensor, linear: &Linear) -> ReferenceTensor {
        let weight = self.table.get(linear.weight);
        let (outputs, side) = (weight.shape[0], weight.shape[2]);
        let (images, height, width, channels) = images::image_shape(&x.shape);
        let bias = |o: usize| linear.bias.map_or(0.0, |b| self.value(b)[o]);
        let sizes = (images, height, width, channels);
        let out = images::convolution(&x.data, sizes, self.value(linear.weight), side, bias);
        tensor(&[images, height, width, outputs], out)
    }

    fn relu(&self, x: &ReferenceTensor) -> ReferenceTensor {
        tensor(&x.shape, x.data.iter().map(|v| v.max(0.0)).collect())
    }

    fn max_pool(&self, x: &ReferenceTensor) -> ReferenceTensor {
        let (images, height, width, channels) = images::image_shape(&x.shape);
        let out = images::max_pool(&x.data, (images, height, width, channels));
        tensor(&[images, height / 2, width / 2, channels], out)
    }

    fn upsample(&self, x: &ReferenceTensor) -> ReferenceTensor {
        let (images, height, width, channels) = images::image_shape(&x.shape);
        let out = images::upsample(&x.data, (images, height, width, channels));
        tensor(&[images, 2 * height, 2 * width, channels], out)
    }

    fn add(&self, x: &ReferenceTensor, factor: f32, y: &ReferenceTensor) -> ReferenceTensor {
        tensor(&x.shape, x.data.iter().zip(y.data.iter()).map(|(x, y)| x + factor as f64 * y).collect())
    }

    fn gumbel_softmax(&self, logits: &ReferenceTensor, noise: &[f32], temperature: f32) -> ReferenceTensor {
        let noisy = logits.data.iter().zip(noise).map(|(v, n)| (v + *n as f64) / temperature as f64);
        tensor(&logits.shape, images::softmax(&noisy.collect::<Vec<_>>(), logits.width()))
    }

    fn laplace(&self, prediction: &ReferenceTensor, loss: &Laplace) -> ReferenceTensor {
        let sum = images::laplace(&prediction.data, loss.target, prediction.width() / 2);
        tensor(&[1], vec![sum])
    }

    fn uniform_divergence(&self, logits: &ReferenceTensor) -> ReferenceTensor {
        tensor(&[1], vec![images::uniform_divergence(&logits.data, logits.width())])
    }
}
