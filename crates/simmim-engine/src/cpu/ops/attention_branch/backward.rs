//! From the gradient of the output to that of the input, the phases in reverse.

use super::super::bias::reduce_bias;
use super::super::blocks::Blocks;
use super::super::frame::FrameSums;
use super::super::{add_bias_gradient, add_gradient, add_weight_gradients};
use super::shared::{Attention, HeadRows, MAX_LOGIT_SCALE, RowsScratch, Sizes, Weights, collect_rows, frame_spec};
use crate::backend::{QkvBias, Similarity};
use crate::cpu::Cpu;
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::{Stack, Stored};
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::threads::{divide, split_mut};
use simmim_kernels::attention::attend_backward;
use simmim_kernels::element::padded;
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::heads::{HeadColumns, RowScale, gather, scale_backward, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Start, product};
use simmim_kernels::stored::{add_column_sums_of, narrow_rows};
use std::ops::Range;

/// A chunk's gradients of parameters, in one of the two phases that go by rows.
struct Sums {
    frame: FrameSums,
    /// Of the phase's layer: output projection `[D]`, joint projection `[3D]`.
    d_bias: Vec<f32>,
}

/// Images of one head.
struct HeadTask<'a, E> {
    head: usize,
    images: Range<usize>,
    /// Of each image, `[3, N, E]`.
    d_heads: Vec<&'a mut [E]>,
}

/// Gradients of what a head reads beside its rows, from some of the images.
struct HeadSums {
    head: usize,
    /// From padding tokens, whose projection is the bias alone, `[3, E]`.
    d_padding: Vec<f32>,
    /// `[M, M]`
    d_position_bias: Buffer<f32>,
    d_logit_scale: f32,
}

/// Tasks that the heads are divided into, at least, if there are as many images: each adds up scores of its own.
const HEAD_TASKS: usize = 12;

impl<E: Stored> Backward for Attention<E> {
    fn name(&self) -> &'static str {
        "attention branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, sizes, chunks) = (&self.branch, self.sizes, self.chunks);
        let block_height = cpu.tile.height();
        let mut d_f = Stack::temporary::<E>(&cpu.shelves, &chunks, sizes.width, block_height);
        let mut d_qkv = Stack::temporary::<E>(&cpu.shelves, &chunks, 3 * sizes.width, block_height);
        let mut a_again = Stack::again::<E>(&cpu.shelves, &chunks, sizes.width, cpu.tile.width());
        let (of_leaving, of_heads, of_entering) = {
            let store = cpu.store.borrow();
            let position_bias = self.position_bias.as_ref().map(|(_, _, bias)| bias);
            let weights = Weights::<E>::read(cpu, &store, branch, position_bias, &self.keep, sizes);
            let (d_o, of_leaving) = self.to_d_o(cpu, &weights, &d_output, &mut d_f);
            let (d_heads, of_heads) = self.to_d_heads(cpu, &weights, &d_o);
            let of_entering = self.to_d_x(cpu, &weights, &d_heads, &mut d_qkv, &mut a_again, &mut d_output);
            (of_leaving, of_heads, of_entering)
        };
        let mut d_qkv_bias = vec![0.0; 3 * sizes.width];
        for sums in &of_leaving {
            frame_spec(branch).add_gradients(cpu, &sums.frame);
            add_bias_gradient(cpu, &branch.projection, &sums.d_bias);
        }
        for sums in &of_entering {
            frame_spec(branch).add_gradients(cpu, &sums.frame);
            add_scaled(&mut d_qkv_bias, 1.0, &sums.d_bias);
        }
        let mut d_logit_scale = vec![0.0; sizes.heads];
        for sums in &of_heads {
            for (part, d) in sums.d_padding.chunks_exact(sizes.head_width()).enumerate() {
                let first = part * sizes.width + sums.head * sizes.head_width();
                add_scaled(&mut d_qkv_bias[first..][..d.len()], 1.0, d);
            }
            d_logit_scale[sums.head] += sums.d_logit_scale;
        }
        if let Similarity::Cosine { logit_scale } = branch.similarity {
            add_gradient(cpu, logit_scale, &d_logit_scale);
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
        let a = if E::COMPUTES_AGAIN { &a_again } else { &self.a };
        add_weight_gradients::<E>(cpu, &[of_projection, (branch.qkv, &d_qkv, a)]);
        gradients.add(self.input, d_output);
    }
}

impl<E: Stored> Attention<E> {
    /// Third phase: the gradient of the output → that of the heads' outputs, `[rows, D]`.
    fn to_d_o(&self, cpu: &Cpu, weights: &Weights<E>, d_out: &[f32], d_f: &mut Stack) -> (Buffer<E>, Vec<Sums>) {
        let (width, chunks, blocks) = (self.sizes.width, self.chunks, Blocks::new(cpu));
        let (ranges, row) = (chunks.ranges(), padded::<E>(width));
        let mut d_o = cpu.shelves.temporary_rows::<E>(self.sizes.rows(), width);
        let packed = cpu.backward_weight::<E>(self.branch.projection.weight);
        let (weight, tile, kept, shelves) = (packed.get(), cpu.tile, &self.frame, &cpu.shelves);
        let parts = split_mut(&mut d_o, &ranges, row).into_iter().zip(d_f.split(&chunks));
        let sums = cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, (d_o, mut packed))| {
            let mut sums = Sums { frame: weights.frame.sums(), d_bias: vec![0.0; width] };
            let mut scratch = RowsScratch::<E>::new(shelves, &chunks, width, &blocks);
            let count = rows.len();
            let d_out = &d_out[rows.start * width..rows.end * width];
            let d_f = &mut scratch.f[..count * width];
            weights.frame.leave_backward(d_out, rows, kept, &mut sums.frame, d_f, &mut scratch.rows);
            add_column_sums(d_f, &mut sums.d_bias);
            narrow_rows(d_f, width, &mut scratch.stored, row);
            let d_f = Matrix::new(&scratch.stored[..count * row], count, width);
            packed.pack(d_f);
            for columns in blocks.of(weight) {
                let block = &mut scratch.block[..count * columns.len()];
                product(tile, d_f, columns.weight, block, columns.len(), Start::Zero);
                narrow_rows(block, columns.len(), &mut d_o[columns.left..], row);
            }
            sums
        });
        (d_o, sums)
    }

    /// Second phase: gradients of the heads' outputs, `[rows, D]` → of q, k and v, `[B, A, 3, N, E]`.
    fn to_d_heads(&self, cpu: &Cpu, weights: &Weights<E>, d_o: &[E]) -> (Buffer<E>, Vec<HeadSums>) {
        let (sizes, tile, shelves) = (self.sizes, cpu.tile, &cpu.shelves);
        let has_position_bias = self.position_bias.is_some();
        let mut d_heads = E::shelf(shelves).temporary(sizes.images * sizes.heads * 3 * sizes.head_len());
        let tasks = head_tasks(&sizes, &mut d_heads);
        let (qkv, p): (&[E], &[E]) = (&self.qkv, &self.p);
        let no_padding = vec![E::default(); sizes.head_width()]; // nothing reads the output of padding
        let sums = cpu.threads.map(tasks, |HeadTask { head, images, d_heads }| {
            let (scores_len, row) = (sizes.head().scores_len::<E>(), padded::<E>(sizes.width));
            let (scales, gradient_scales) = (weights.scales(head), weights.gradient_scales(head));
            let mut rows = HeadRows::<E>::new(shelves, sizes.head());
            let mut sums = HeadSums {
                head,
                d_padding: vec![0.0; 3 * sizes.head_width()],
                d_position_bias: shelves.f32.zeros(if has_position_bias { sizes.scores_len() } else { 0 }),
                d_logit_scale: 0.0,
            };
            let is_below_bound = weights.logit_scale.is_some_and(|logits| logits[head] < MAX_LOGIT_SCALE);
            for (image, d_heads) in images.zip(d_heads) {
                let d_o = HeadColumns {
                    rows: &d_o[image * sizes.tokens * row + head * sizes.head_width()..],
                    stride: row,
                    width: sizes.head_width(),
                    tokens: sizes.tokens,
                    padding: &no_padding,
                };
                let p = &p[(image * sizes.heads + head) * sizes.p_len::<E>()..];
                for window in 0..sizes.windows {
                    let slots = weights.slots(window);
                    for (part, scale) in scales.into_iter().enumerate() {
                        gather(weights.columns(qkv, image, part, head), slots, scale, &mut rows.stored[part]);
                    }
                    gather(d_o, slots, RowScale::By(1.0), &mut rows.stored[3]);
                    let p = &p[window * scores_len..][..scores_len];
                    let d_position = has_position_bias.then_some(&mut *sums.d_position_bias);
                    let ([q, k, v, d_o], [d_q, d_k, d_v]) = (&rows.stored, &mut rows.dense);
                    let products = &mut rows.products;
                    attend_backward(tile, sizes.head(), q, k, v, p, d_o, d_q, d_k, d_v, d_position, products);
                    for (part, (d, scale)) in rows.dense.iter_mut().zip(gradient_scales).enumerate() {
                        let d_log = scale_backward(weights.columns(qkv, image, part, head), slots, scale, d);
                        if part == 0 && is_below_bound {
                            sums.d_logit_scale += d_log;
                        }
                        let out = &mut d_heads[part * sizes.head_len()..][..sizes.head_len()];
                        let padding = &mut sums.d_padding[part * sizes.head_width()..][..sizes.head_width()];
                        scatter(d, sizes.head_width(), slots, out, padding);
                    }
                }
            }
            sums
        });
        (d_heads, sums)
    }

    /// First phase: gradients of q, k and v → of the input, which is added to `d_x`.
    fn to_d_x(
        &self,
        cpu: &Cpu,
        weights: &Weights<E>,
        d_heads: &[E],
        d_qkv: &mut Stack,
        a_again: &mut Stack,
        d_x: &mut [f32],
    ) -> Vec<Sums> {
        let (sizes, chunks) = (self.sizes, self.chunks);
        let (width, ranges, row) = (sizes.width, chunks.ranges(), padded::<E>(3 * sizes.width));
        let packed = cpu.backward_weight::<E>(self.branch.qkv);
        let (weight, tile, kept, x): (_, _, _, &[f32]) = (packed.get(), cpu.tile, &self.frame, &self.x);
        let parts = split_mut(d_x, &ranges, width).into_iter().zip(d_qkv.split(&chunks)).zip(a_again.split(&chunks));
        let shelves = &cpu.shelves;
        cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, ((d_x, mut packed), mut a_again))| {
            let mut sums = Sums { frame: weights.frame.sums(), d_bias: vec![0.0; 3 * width] };
            let (mut d_a, mut stored) =
                (shelves.f32.take(rows.len() * width), shelves.rows::<E>(chunks.chunk_rows(), 3 * width));
            let count = rows.len();
            let stored = &mut stored[..count * row];
            collect_rows(&sizes, d_heads, 3, rows, stored);
            add_column_sums_of(stored, row, &mut sums.d_bias);
            let d_qkv = Matrix::new(stored, count, 3 * width);
            packed.pack(d_qkv);
            product(tile, d_qkv, weight, &mut d_a, width, Start::Zero); // [R, D]
            let x = &x[rows.start * width..rows.end * width];
            if E::COMPUTES_AGAIN {
                let (mut room, mut a) = (shelves.f32.take(count * width), shelves.rows::<E>(count, width));
                narrow_rows(weights.frame.enter_again(x, &mut room), width, &mut a, padded::<E>(width));
                a_again.pack(Matrix::new(&a, count, width));
            }
            weights.frame.enter_backward(x, &d_a, rows, kept, &mut sums.frame, d_x);
            sums
        })
    }
}

/// Each head's images in about as many parts as there are tasks wanted, and where their gradients go.
fn head_tasks<'a, E>(sizes: &Sizes, d_heads: &'a mut [E]) -> Vec<HeadTask<'a, E>> {
    let parts = divide(sizes.images, HEAD_TASKS.div_ceil(sizes.heads));
    let task = |(head, images): (usize, &Range<usize>)| HeadTask { head, images: images.clone(), d_heads: Vec::new() };
    let mut tasks: Vec<_> =
        (0..sizes.heads).flat_map(|head| parts.iter().map(move |images| (head, images))).map(task).collect();
    for (item, d_head) in d_heads.chunks_exact_mut(3 * sizes.head_len()).enumerate() {
        let (image, head) = (item / sizes.heads, item % sizes.heads);
        let part = parts.iter().position(|images| images.contains(&image)).expect("parts cover all images");
        tasks[head * parts.len() + part].d_heads.push(d_head);
    }
    tasks
}
