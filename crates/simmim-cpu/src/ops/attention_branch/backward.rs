//! The backward pass, which goes through the phases in reverse order.

use super::super::bias_table::reduce_bias;
use super::super::column_blocks::ColumnBlocks;
use super::super::residual::ResidualGradients;
use super::super::{add_bias_gradient, add_gradient, add_weight_gradients};
use super::layout::{AttentionSizes, collect_rows};
use super::parameters::AttentionParameters;
use super::saved::{AttentionBackward, residual_spec};
use super::scratch::{HeadScratch, RowsScratch};
use crate::Cpu;
use crate::buffer_pool::Buffer;
use crate::packed_activations::{PackedActivations, Side};
use crate::pools::ActivationDtype;
use crate::tape::{Backward, Gradients};
use crate::threads::{divide, split_mut};
use simmim_engine::{QkvBias, Similarity};
use simmim_kernels::attention::attend_backward;
use simmim_kernels::dtype::padded;
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::epilogue::{add_strided_column_sums, narrow_rows};
use simmim_kernels::heads::{HeadColumns, RowScale, gather, scale_backward, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Accumulator, product};
use simmim_kernels::rotary::Turn;
use std::ops::Range;

/// The gradients of parameters from one chunk, in one of the two phases that go by rows.
struct RowsGradients {
    residual: ResidualGradients,
    /// Of the phase's layer: `[D]` for the output projection, `[3D]` for the joint projection.
    d_bias: Vec<f32>,
}

/// A task of the phase that goes by heads: some images of one head.
struct HeadTask<'a, T> {
    head: usize,
    images: Range<usize>,
    /// The gradients of queries, keys and values, `[3, N, E]` for each image.
    d_heads: Vec<&'a mut [T]>,
}

/// The gradients of parameters from one [`HeadTask`].
struct HeadGradients {
    head: usize,
    /// The gradient of the joint projection's bias from padding, whose projection is that bias, `[3, E]`.
    d_padding: Vec<f32>,
    /// `[M, M]`; empty if there is no position bias.
    d_position_bias: Buffer<f32>,
    d_logit_scale: f32,
}

/// The least number of tasks that the heads are divided into, if there are enough images. Each task has sums of the
/// size of a window's scores, so there should not be many.
const LEAST_HEAD_TASKS: usize = 12;

impl<T: ActivationDtype> Backward for AttentionBackward<T> {
    fn name(&self) -> &'static str {
        "attention branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, sizes, chunks) = (&self.branch, self.sizes, self.chunks);
        let mut d_f = PackedActivations::temporary::<T>(cpu, &chunks, sizes.width, Side::Left);
        let mut d_qkv = PackedActivations::temporary::<T>(cpu, &chunks, 3 * sizes.width, Side::Left);
        let mut recomputed_a = PackedActivations::recomputed::<T>(cpu, &chunks, sizes.width, Side::Right);
        let (of_output, of_heads, of_qkv) = {
            let store = cpu.store.borrow();
            let position_bias: &[f32] = self.bias_table.as_ref().map_or(&[], |bias| &bias.expanded);
            let parameters =
                AttentionParameters::read(cpu, &store, branch, position_bias, &self.drop_path_scale, sizes);
            let (d_o, of_output) = self.output_backward(cpu, &parameters, &d_output, &mut d_f);
            let (d_heads, of_heads) = self.heads_backward(cpu, &parameters, &d_o);
            let of_qkv = self.qkv_backward(cpu, &parameters, &d_heads, &mut d_qkv, &mut recomputed_a, &mut d_output);
            (of_output, of_heads, of_qkv)
        };
        let mut d_qkv_bias = vec![0.0; 3 * sizes.width];
        for of_chunk in &of_output {
            residual_spec(branch).add_gradients(cpu, &of_chunk.residual);
            add_bias_gradient(cpu, &branch.projection, &of_chunk.d_bias);
        }
        for of_chunk in &of_qkv {
            residual_spec(branch).add_gradients(cpu, &of_chunk.residual);
            add_scaled(&mut d_qkv_bias, 1.0, &of_chunk.d_bias);
        }
        let mut d_logit_scale = vec![0.0; sizes.heads];
        for of_task in &of_heads {
            for (part, d) in of_task.d_padding.chunks_exact(sizes.head_width()).enumerate() {
                let first = part * sizes.width + of_task.head * sizes.head_width();
                add_scaled(&mut d_qkv_bias[first..][..d.len()], 1.0, d);
            }
            d_logit_scale[of_task.head] += of_task.d_logit_scale;
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
        if let Some(bias) = &self.bias_table {
            let d_bias: Vec<&[f32]> = of_heads.iter().map(|of_task| &*of_task.d_position_bias).collect();
            gradients.add(bias.table, reduce_bias(cpu, &d_bias, &branch.bias_index, sizes.heads, bias.rows));
        }
        let of_projection = (branch.projection.weight, &d_f, &self.o);
        let a = if T::RECOMPUTES { &recomputed_a } else { &self.a };
        add_weight_gradients::<T>(cpu, &[of_projection, (branch.qkv, &d_qkv, a)]);
        gradients.add(self.input, d_output);
    }
}

impl<T: ActivationDtype> AttentionBackward<T> {
    /// Third phase: from the gradient of the output to that of the heads' outputs, `[rows, D]`.
    fn output_backward(
        &self,
        cpu: &Cpu,
        parameters: &AttentionParameters<T>,
        d_out: &[f32],
        d_f: &mut PackedActivations,
    ) -> (Buffer<T>, Vec<RowsGradients>) {
        let (width, chunks, blocks) = (self.sizes.width, self.chunks, ColumnBlocks::new::<T>(cpu));
        let (ranges, row) = (chunks.ranges(), padded::<T>(width));
        let mut d_o = cpu.pools.temporary_rows::<T>(self.sizes.rows(), width);
        let packed = cpu.backward_weight::<T>(self.branch.projection.weight);
        let (weight, saved, pools) = (packed.get(), &self.residual, &cpu.pools);
        let parts = split_mut(&mut d_o, &ranges, row).into_iter().zip(d_f.split(&chunks));
        let of_chunks = cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, (d_o, mut packed_d_f))| {
            let mut gradients =
                RowsGradients { residual: parameters.residual.zero_gradients(), d_bias: vec![0.0; width] };
            let mut scratch = RowsScratch::<T>::new(pools, &chunks, width, &blocks);
            let count = rows.len();
            let d_out = &d_out[rows.start * width..rows.end * width];
            let d_f = &mut scratch.f[..count * width];
            let (residual, of_residual) = (&parameters.residual, &mut gradients.residual);
            residual.add_branch_backward(d_out, rows, saved, of_residual, d_f, &mut scratch.residual);
            add_column_sums(d_f, &mut gradients.d_bias);
            narrow_rows(d_f, width, &mut scratch.stored, row);
            let d_f = Matrix::new(&scratch.stored[..count * row], count, width);
            packed_d_f.pack(d_f);
            blocks.product(d_f, weight, Accumulator::Zero, &mut scratch.block, |block, rows, columns| {
                narrow_rows(block, columns.len(), &mut d_o[rows.start * row + columns.left..], row);
            });
            gradients
        });
        (d_o, of_chunks)
    }

    /// Second phase: from the gradient of the heads' outputs, `[rows, D]`, to those of queries, keys and values,
    /// `[B, A, 3, N, E]`.
    fn heads_backward(
        &self,
        cpu: &Cpu,
        parameters: &AttentionParameters<T>,
        d_o: &[T],
    ) -> (Buffer<T>, Vec<HeadGradients>) {
        let (sizes, tile, pools) = (self.sizes, cpu.tile, &cpu.pools);
        let has_position_bias = self.bias_table.is_some();
        let mut d_heads = T::pool(pools).temporary(sizes.images * sizes.heads * 3 * sizes.head_len());
        let tasks = head_tasks(&sizes, &mut d_heads);
        let (qkv, p): (&[T], &[T]) = (&self.qkv, &self.p);
        let no_gradient = vec![T::default(); sizes.head_width()]; // nothing reads the output of padding
        let of_tasks = cpu.threads.map(tasks, |HeadTask { head, images, d_heads }| {
            let (scores_len, row) = (sizes.head().scores_len::<T>(), padded::<T>(sizes.width));
            let (scales, gradient_scales) = (parameters.scales(head), parameters.gradient_scales(head));
            let mut scratch = HeadScratch::<T>::new(pools, sizes.head());
            let mut gradients = HeadGradients {
                head,
                d_padding: vec![0.0; 3 * sizes.head_width()],
                d_position_bias: pools.f32.zeros(if has_position_bias { sizes.scores_len() } else { 0 }),
                d_logit_scale: 0.0,
            };
            let has_free_logit_scale = parameters.has_free_logit_scale(head);
            for (image, d_heads) in images.zip(d_heads) {
                let d_o = HeadColumns {
                    rows: &d_o[image * sizes.tokens * row + head * sizes.head_width()..],
                    stride: row,
                    width: sizes.head_width(),
                    tokens: sizes.tokens,
                    padding: &no_gradient,
                };
                let p = &p[(image * sizes.heads + head) * sizes.p_len::<T>()..];
                for window in 0..sizes.windows {
                    let slots = parameters.slots(window);
                    for (part, scale) in scales.into_iter().enumerate() {
                        gather(parameters.columns(qkv, image, part, head), slots, scale, &mut scratch.stored[part]);
                    }
                    gather(d_o, slots, RowScale::By(1.0), &mut scratch.stored[3]);
                    let row_of_head = padded::<T>(sizes.head_width());
                    for rows in &mut scratch.stored[..2] {
                        parameters.rotate(rows, row_of_head, window, Turn::Forth);
                    }
                    let p = &p[window * scores_len..][..scores_len];
                    let d_bias = has_position_bias.then_some(&mut *gradients.d_position_bias);
                    let ([q, k, v, d_o], [d_q, d_k, d_v]) = (&scratch.stored, &mut scratch.dense);
                    let attention = &mut scratch.attention;
                    attend_backward(tile, sizes.head(), q, k, v, p, d_o, d_q, d_k, d_v, d_bias, attention);
                    for (part, (d, scale)) in scratch.dense.iter_mut().zip(gradient_scales).enumerate() {
                        if part < 2 {
                            parameters.rotate(d, sizes.head_width(), window, Turn::Back);
                        }
                        let d_log = scale_backward(parameters.columns(qkv, image, part, head), slots, scale, d);
                        if part == 0 && has_free_logit_scale {
                            gradients.d_logit_scale += d_log;
                        }
                        let out = &mut d_heads[part * sizes.head_len()..][..sizes.head_len()];
                        let padding = &mut gradients.d_padding[part * sizes.head_width()..][..sizes.head_width()];
                        scatter(d, sizes.head_width(), slots, out, padding);
                    }
                }
            }
            gradients
        });
        (d_heads, of_tasks)
    }

    /// First phase: from the gradients of queries, keys and values to that of the input, which is added to `d_x`.
    fn qkv_backward(
        &self,
        cpu: &Cpu,
        parameters: &AttentionParameters<T>,
        d_heads: &[T],
        d_qkv: &mut PackedActivations,
        recomputed_a: &mut PackedActivations,
        d_x: &mut [f32],
    ) -> Vec<RowsGradients> {
        let (sizes, chunks) = (self.sizes, self.chunks);
        let (width, ranges, row) = (sizes.width, chunks.ranges(), padded::<T>(3 * sizes.width));
        let packed = cpu.backward_weight::<T>(self.branch.qkv);
        let (weight, tile, saved, x): (_, _, _, &[f32]) = (packed.get(), cpu.tile, &self.residual, &self.x);
        let parts =
            split_mut(d_x, &ranges, width).into_iter().zip(d_qkv.split(&chunks)).zip(recomputed_a.split(&chunks));
        let pools = &cpu.pools;
        cpu.threads.map(ranges.iter().zip(parts).collect(), |(rows, ((d_x, mut packed_d_qkv), mut recomputed_a))| {
            let residual = &parameters.residual;
            let mut gradients = RowsGradients { residual: residual.zero_gradients(), d_bias: vec![0.0; 3 * width] };
            let (mut d_a, mut stored) =
                (pools.f32.take(rows.len() * width), pools.rows::<T>(chunks.chunk_rows(), 3 * width));
            let count = rows.len();
            let stored = &mut stored[..count * row];
            collect_rows(&sizes, d_heads, 3, rows, stored);
            add_strided_column_sums(stored, row, &mut gradients.d_bias);
            let d_qkv = Matrix::new(stored, count, 3 * width);
            packed_d_qkv.pack(d_qkv);
            product(tile, d_qkv, weight, &mut d_a, width, Accumulator::Zero); // [R, D]
            let x = &x[rows.start * width..rows.end * width];
            if T::RECOMPUTES {
                let (mut scratch, mut a) = (pools.f32.take(count * width), pools.rows::<T>(count, width));
                narrow_rows(residual.recomputed_branch_input(x, &mut scratch), width, &mut a, padded::<T>(width));
                recomputed_a.pack(Matrix::new(&a, count, width));
            }
            residual.branch_input_backward(x, &d_a, rows, saved, &mut gradients.residual, d_x);
            gradients
        })
    }
}

/// Divides each head's images among so many tasks that there are about [`LEAST_HEAD_TASKS`] in all, and hands each task
/// the memory for its gradients.
fn head_tasks<'a, T>(sizes: &AttentionSizes, d_heads: &'a mut [T]) -> Vec<HeadTask<'a, T>> {
    let parts = divide(sizes.images, LEAST_HEAD_TASKS.div_ceil(sizes.heads));
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
