//! From the gradient of the output to that of the input, the phases in reverse.

use super::super::bias::reduce_bias;
use super::super::blocks::Blocks;
use super::super::frame::FrameSums;
use super::super::{add_bias_gradient, add_gradient, add_weight_gradients};
use super::shared::{Attention, HeadRows, MAX_LOGIT_SCALE, RowsScratch, Weights, collect_rows, frame_spec};
use crate::backend::{QkvBias, Similarity};
use crate::cpu::Cpu;
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::{Stack, Stored};
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::threads::split_mut;
use simmim_kernels::attention::attend_backward;
use simmim_kernels::element::padded;
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::heads::{HeadColumns, RowScale, gather, scale_backward, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Start, product};
use simmim_kernels::stored::{add_column_sums_of, narrow_rows};

/// One worker's gradients of parameters.
struct Sums {
    frame: FrameSums,
    /// `[D]`
    d_projection_bias: Vec<f32>,
    /// `[3D]`
    d_qkv_bias: Vec<f32>,
}

/// One worker's gradients of what the heads read beside their rows.
struct HeadSums {
    /// From padding tokens, whose projection is the bias alone, `[3D]`.
    d_padding: Vec<f32>,
    /// `[A, M, M]`
    d_position_bias: Buffer<f32>,
    /// `[A]`
    d_logit_scale: Vec<f32>,
}

impl<E: Stored> Backward for Attention<E> {
    fn name(&self) -> &'static str {
        "attention branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, sizes, chunks) = (&self.branch, self.sizes, self.chunks);
        let block_height = cpu.tile.height();
        let mut d_f = Stack::new::<E>(&cpu.shelves, &chunks, sizes.width, block_height, true);
        let mut d_qkv = Stack::new::<E>(&cpu.shelves, &chunks, 3 * sizes.width, block_height, true);
        let (of_leaving, of_heads, of_entering) = {
            let store = cpu.store.borrow();
            let position_bias = self.position_bias.as_ref().map(|(_, _, bias)| bias);
            let weights = Weights::<E>::read(cpu, &store, branch, position_bias, &self.keep, sizes);
            let (d_o, of_leaving) = self.to_d_o(cpu, &weights, &d_output, &mut d_f);
            let (d_heads, of_heads) = self.to_d_heads(cpu, &weights, &d_o);
            let of_entering = self.to_d_x(cpu, &weights, &d_heads, &mut d_qkv, &mut d_output);
            (of_leaving, of_heads, of_entering)
        };
        let mut d_qkv_bias = vec![0.0; 3 * sizes.width];
        for sums in of_leaving.iter().chain(&of_entering) {
            frame_spec(branch).add_gradients(cpu, &sums.frame);
            add_scaled(&mut d_qkv_bias, 1.0, &sums.d_qkv_bias);
            add_bias_gradient(cpu, &branch.projection, &sums.d_projection_bias);
        }
        for sums in &of_heads {
            add_scaled(&mut d_qkv_bias, 1.0, &sums.d_padding);
            if let Similarity::Cosine { logit_scale } = branch.similarity {
                add_gradient(cpu, logit_scale, &sums.d_logit_scale);
            }
        }
        match branch.qkv_bias {
            QkvBias::None => {}
            QkvBias::Full(id) => add_gradient(cpu, id, &d_qkv_bias),
            QkvBias::QueryValue { query, value } => {
                add_gradient(cpu, query, &d_qkv_bias[..sizes.width]);
                add_gradient(cpu, value, &d_qkv_bias[2 * sizes.width..]);
            }
        }
        if let Some((table, rows, _)) = &self.position_bias {
            let d_bias: Vec<&[f32]> = of_heads.iter().map(|sums| &*sums.d_position_bias).collect();
            gradients.add(*table, reduce_bias(cpu, &d_bias, &branch.bias_index, sizes.heads, *rows));
        }
        let of_projection = (branch.projection.weight, &d_f, &self.o);
        add_weight_gradients::<E>(cpu, &[of_projection, (branch.qkv, &d_qkv, &self.a)]);
        gradients.add(self.input, d_output);
    }
}

impl<E: Stored> Attention<E> {
    fn sums(&self, weights: &Weights<E>) -> Sums {
        Sums {
            frame: weights.frame.sums(),
            d_projection_bias: vec![0.0; self.sizes.width],
            d_qkv_bias: vec![0.0; 3 * self.sizes.width],
        }
    }

    /// Third phase: the gradient of the output → that of the heads' outputs, `[rows, D]`.
    fn to_d_o(&self, cpu: &Cpu, weights: &Weights<E>, d_out: &[f32], d_f: &mut Stack) -> (Buffer<E>, Vec<Sums>) {
        let (width, chunks, blocks) = (self.sizes.width, self.chunks, Blocks::new(cpu));
        let (groups, row) = (chunks.groups(), padded::<E>(width));
        let mut d_o = cpu.shelves.rows::<E>(self.sizes.rows(), width);
        let packed = cpu.backward_weight::<E>(self.branch.projection.weight);
        let (weight, tile, kept) = (packed.get(), cpu.tile, &self.frame);
        let parts = split_mut(&mut d_o, &groups, row)
            .into_iter()
            .zip(d_f.split(&chunks))
            .map(|part| (part, RowsScratch::<E>::new(cpu, &chunks, width, &blocks), self.sums(weights)));
        let sums = cpu.threads.map(
            groups.iter().zip(parts).collect(),
            |(group, ((d_o, mut packed), mut scratch, mut sums))| {
                for (chunk, rows) in chunks.of(group.clone()).enumerate() {
                    let count = rows.len();
                    let d_out = &d_out[rows.start * width..rows.end * width];
                    let d_f = &mut scratch.f[..count * width];
                    weights.frame.leave_backward(d_out, &rows, kept, &mut sums.frame, d_f, &mut scratch.rows);
                    add_column_sums(d_f, &mut sums.d_projection_bias);
                    narrow_rows(d_f, width, &mut scratch.stored, row);
                    let d_f = Matrix::new(&scratch.stored[..count * row], count, width);
                    packed.pack(chunk, d_f);
                    let d_o = &mut d_o[(rows.start - group.start) * row..][..count * row];
                    for columns in blocks.of(weight) {
                        let block = &mut scratch.block[..count * columns.len()];
                        product(tile, d_f, columns.weight, block, columns.len(), Start::Zero);
                        if count > 0 {
                            narrow_rows(block, columns.len(), &mut d_o[columns.left..], row);
                        }
                    }
                }
                sums
            },
        );
        (d_o, sums)
    }

    /// Second phase: gradients of the heads' outputs, `[rows, D]` → of q, k and v, `[B, A, 3, N, E]`.
    fn to_d_heads(&self, cpu: &Cpu, weights: &Weights<E>, d_o: &[E]) -> (Buffer<E>, Vec<HeadSums>) {
        let (sizes, tile) = (self.sizes, cpu.tile);
        let has_position_bias = self.position_bias.is_some();
        let item_len = 3 * sizes.head_len();
        let mut d_heads = E::shelf(&cpu.shelves).take(sizes.images * sizes.heads * item_len);
        let groups = cpu.threads.groups(sizes.images * sizes.heads);
        let parts = split_mut(&mut d_heads, &groups, item_len).into_iter().map(|part| {
            let position = if has_position_bias { sizes.heads * sizes.scores_len() } else { 0 };
            let sums = HeadSums {
                d_padding: vec![0.0; 3 * sizes.width],
                d_position_bias: cpu.shelves.f32.zeros(position),
                d_logit_scale: vec![0.0; sizes.heads],
            };
            (part, HeadRows::<E>::new(cpu, sizes.head()), sums)
        });
        let (qkv, p): (&[E], &[E]) = (&self.qkv, &self.p);
        let no_padding = vec![E::default(); sizes.head_width()]; // nothing reads the output of padding
        let sums = cpu.threads.map(groups.iter().zip(parts).collect(), |(group, (d_heads, mut rows, mut sums))| {
            let scores_len = sizes.head().scores_len::<E>();
            for (i, item) in group.clone().enumerate() {
                let (image, head) = (item / sizes.heads, item % sizes.heads);
                let scales = weights.scales(head);
                let row = padded::<E>(sizes.width);
                let d_o = HeadColumns {
                    rows: &d_o[image * sizes.tokens * row + head * sizes.head_width()..],
                    stride: row,
                    width: sizes.head_width(),
                    tokens: sizes.tokens,
                    padding: &no_padding,
                };
                for window in 0..sizes.windows {
                    let slots = weights.slots(window);
                    for (part, scale) in scales.into_iter().enumerate() {
                        gather(weights.columns(qkv, image, part, head), slots, scale, &mut rows.stored[part]);
                    }
                    gather(d_o, slots, RowScale::By(1.0), &mut rows.stored[3]);
                    let p = &p[item * sizes.p_len::<E>() + window * scores_len..][..scores_len];
                    let d_position = has_position_bias
                        .then(|| &mut sums.d_position_bias[head * sizes.scores_len()..][..sizes.scores_len()]);
                    let ([q, k, v, d_o], [d_q, d_k, d_v]) = (&rows.stored, &mut rows.dense);
                    let products = &mut rows.products;
                    attend_backward(tile, sizes.head(), q, k, v, p, d_o, d_q, d_k, d_v, d_position, products);
                    for (part, (d, scale)) in rows.dense.iter_mut().zip(scales).enumerate() {
                        let d_log = scale_backward(weights.columns(qkv, image, part, head), slots, scale, d);
                        let is_below_bound = weights.logit_scale.is_some_and(|logits| logits[head] < MAX_LOGIT_SCALE);
                        if part == 0 && is_below_bound {
                            sums.d_logit_scale[head] += d_log;
                        }
                        let out = &mut d_heads[i * item_len + part * sizes.head_len()..][..sizes.head_len()];
                        let padding = &mut sums.d_padding[part * sizes.width + head * sizes.head_width()..];
                        scatter(d, sizes.head_width(), slots, out, &mut padding[..sizes.head_width()]);
                    }
                }
            }
            sums
        });
        (d_heads, sums)
    }

    /// First phase: gradients of q, k and v → of the input, which is added to `d_x`.
    fn to_d_x(&self, cpu: &Cpu, weights: &Weights<E>, d_heads: &[E], d_qkv: &mut Stack, d_x: &mut [f32]) -> Vec<Sums> {
        let (sizes, chunks, blocks) = (self.sizes, self.chunks, Blocks::new(cpu));
        let (width, groups, row) = (sizes.width, chunks.groups(), padded::<E>(3 * sizes.width));
        let packed = cpu.backward_weight::<E>(self.branch.qkv);
        let (weight, tile, kept, x): (_, _, _, &[f32]) = (packed.get(), cpu.tile, &self.frame, &self.x);
        let parts = split_mut(d_x, &groups, width).into_iter().zip(d_qkv.split(&chunks)).map(|part| {
            let rows = cpu.shelves.rows::<E>(chunks.chunk_rows(), 3 * width);
            (part, RowsScratch::<E>::new(cpu, &chunks, width, &blocks), rows, self.sums(weights))
        });
        cpu.threads.map(
            groups.iter().zip(parts).collect(),
            |(group, ((d_x, mut packed), mut scratch, mut stored, mut sums))| {
                for (chunk, rows) in chunks.of(group.clone()).enumerate() {
                    let count = rows.len();
                    let stored = &mut stored[..count * row];
                    collect_rows(&sizes, d_heads, 3, &rows, stored);
                    add_column_sums_of(stored, row, &mut sums.d_qkv_bias);
                    let d_qkv = Matrix::new(stored, count, 3 * width);
                    packed.pack(chunk, d_qkv);
                    let d_a = &mut scratch.f[..count * width];
                    product(tile, d_qkv, weight, d_a, width, Start::Zero); // [R, D]
                    let x = &x[rows.start * width..rows.end * width];
                    let d_x = &mut d_x[(rows.start - group.start) * width..][..count * width];
                    weights.frame.enter_backward(x, d_a, &rows, kept, &mut sums.frame, d_x);
                }
                sums
            },
        )
    }
}
