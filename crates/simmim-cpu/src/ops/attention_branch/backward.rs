//! The backward pass, which goes through the phases in reverse order, chunk by chunk or phase by phase.

use super::super::bias_table::reduce_bias;
use super::super::residual::{ResidualGradients, SavedResidual};
use super::super::{add_bias_gradient, add_gradient, add_weight_gradients};
use super::division::Division;
use super::head::{HeadGradients, HeadRows, attend_head_backward};
use super::layout::{AttentionSizes, collect_rows};
use super::parameters::AttentionParameters;
use super::saved::{AttentionBackward, residual_spec};
use super::scratch::{HeadScratch, RowsScratch};
use super::shared::Shared;
use super::window_order::RowsMut;
use crate::Cpu;
use crate::buffer_pool::Buffer;
use crate::packed_activations::{PackedActivations, PackedActivationsChunk, Side};
use crate::pools::ActivationDtype;
use crate::tape::{Backward, Gradients};
use crate::threads::{divide, split_mut};
use simmim_engine::{QkvBias, Similarity};
use simmim_kernels::dtype::padded;
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::epilogue::{add_strided_column_sums, narrow_rows};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Accumulator, fetch_values, product};
use std::ops::Range;

/// The gradients of parameters from some chunks, in the phases that go by rows.
struct RowsGradients {
    residual: ResidualGradients,
    /// Of the output projection, `[D]`.
    d_output_bias: Vec<f32>,
    /// Of the joint projection, `[3D]`.
    d_qkv_bias: Vec<f32>,
}

/// The gradients of parameters from all tasks.
#[derive(Default)]
struct ParameterGradients {
    of_rows: Vec<RowsGradients>,
    of_heads: Vec<HeadGradients>,
}

/// A task of the phase that goes by heads: some groups of one head.
struct HeadTask<'a, T> {
    head: usize,
    groups: Range<usize>,
    /// The gradients of queries, keys and values, `[3, R/G, E]` for each group.
    d_heads: Vec<&'a mut [T]>,
}

/// The least number of tasks that the heads are divided into, if there are enough groups. Each task has sums of the
/// size of a window's scores, so there should not be many.
const LEAST_HEAD_TASKS: usize = 12;

/// The most tasks that chunks are divided into.
const MOST_CHUNK_TASKS: usize = 64;

/// Values of the position bias's gradient that all tasks may have together, unless there would be fewer than
/// [`LEAST_HEAD_TASKS`] tasks: 64 MiB.
const POSITION_BIAS_SUMS: usize = 16 << 20;

impl<T: ActivationDtype> Backward for AttentionBackward<T> {
    fn name(&self) -> &'static str {
        "attention branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, sizes, Division { chunks, has_whole_windows }) = (&self.branch, self.sizes, self.division);
        let mut d_f = PackedActivations::temporary::<T>(cpu, &chunks, sizes.width, Side::Left);
        let mut d_qkv = PackedActivations::temporary::<T>(cpu, &chunks, 3 * sizes.width, Side::Left);
        let recomputes_a = residual_spec(branch).recomputes_branch_input::<T>();
        let mut recomputed_a = PackedActivations::recomputed::<T>(cpu, &chunks, sizes.width, Side::Right, recomputes_a);
        let ParameterGradients { of_rows, mut of_heads } = {
            let store = cpu.store.borrow();
            let position_bias: &[f32] = self.bias_table.as_ref().map_or(&[], |bias| &bias.expanded);
            let parameters =
                AttentionParameters::read(cpu, &store, branch, position_bias, &self.drop_path_scale, sizes);
            let of_output = cpu.backward_weight::<T>(branch.projection.weight);
            let of_qkv = cpu.backward_weight::<T>(branch.qkv);
            let pass = BackwardPass {
                shared: Shared::new(cpu, chunks, &self.order, &parameters),
                has_position_bias: self.bias_table.is_some(),
                of_output: of_output.get(),
                of_qkv: of_qkv.get(),
                x: self.x.as_ref().map(|x| &x[..]),
                residual: &self.residual,
                qkv: &self.qkv,
                p: &self.p,
            };
            let packed = Operands { d_f: &mut d_f, d_qkv: &mut d_qkv, recomputed_a: &mut recomputed_a };
            match has_whole_windows {
                true => pass.by_chunks(packed, &mut d_output),
                false => pass.by_phases(packed, &mut d_output),
            }
        };
        let mut d_qkv_bias = vec![0.0; 3 * sizes.width];
        for part in &of_rows {
            residual_spec(branch).add_gradients(cpu, &part.residual);
            add_bias_gradient(cpu, &branch.projection, &part.d_output_bias);
            add_scaled(&mut d_qkv_bias, 1.0, &part.d_qkv_bias);
        }
        for part in &of_heads {
            for (d_bias, d_padding) in
                d_qkv_bias.chunks_exact_mut(sizes.width).zip(part.d_padding.chunks_exact(sizes.head_width()))
            {
                add_scaled(&mut d_bias[part.head * sizes.head_width()..][..sizes.head_width()], 1.0, d_padding);
            }
        }
        if let Similarity::Cosine { logit_scale } = branch.similarity {
            let mut d_logit_scale = vec![0.0; sizes.heads];
            of_heads.iter().for_each(|part| d_logit_scale[part.head] += part.d_logit_scale);
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
            of_heads.sort_by_key(|part| part.head); // stable, so that sums keep their order
            let d_bias: Vec<&[f32]> = of_heads.iter().map(|part| &*part.d_position_bias).collect();
            gradients.add(bias.table, reduce_bias(cpu, &d_bias, &branch.bias_index, sizes.heads, bias.rows));
        }
        let of_projection = (branch.projection.weight, &d_f, &self.o);
        let a = if recomputes_a { &recomputed_a } else { &self.a };
        add_weight_gradients::<T>(cpu, &[of_projection, (branch.qkv, &d_qkv, a)]);
        gradients.add(self.input, d_output);
    }
}

/// What the backward pass reads.
struct BackwardPass<'a, T> {
    shared: Shared<'a, T>,
    has_position_bias: bool,
    of_output: Packed<'a>,
    of_qkv: Packed<'a>,
    x: Option<&'a [f32]>,
    residual: &'a SavedResidual<T>,
    qkv: &'a [T],
    p: &'a [T],
}

/// The operands of weight gradients that it writes.
struct Operands<'a> {
    d_f: &'a mut PackedActivations,
    d_qkv: &'a mut PackedActivations,
    recomputed_a: &'a mut PackedActivations,
}

/// The part of a [`BackwardPass`]'s results that belongs to a chunk.
struct ChunkResults<'a> {
    rows: Range<usize>,
    d_f: PackedActivationsChunk<'a>,
    d_qkv: PackedActivationsChunk<'a>,
    recomputed_a: PackedActivationsChunk<'a>,
    d_x: RowsMut<'a>,
}

impl<T: ActivationDtype> BackwardPass<'_, T> {
    /// Each task goes through all phases with one chunk of whole windows after another.
    fn by_chunks(&self, packed: Operands, d_x: &mut [f32]) -> ParameterGradients {
        let Shared { threads, pools, blocks, chunks, order, parameters, .. } = &self.shared;
        let (sizes, ranges) = (parameters.sizes, chunks.ranges());
        let (width, row, row_of_qkv) = (sizes.width, padded::<T>(sizes.width), padded::<T>(3 * sizes.width));
        let sums = if self.has_position_bias { sizes.heads * sizes.scores_len() } else { 0 };
        let most = (POSITION_BIAS_SUMS / sums.max(1)).clamp(LEAST_HEAD_TASKS, MOST_CHUNK_TASKS);
        let parts = divide(ranges.len(), most);
        let mut results = (packed.d_f.split(chunks).into_iter().zip(packed.d_qkv.split(chunks)))
            .zip(packed.recomputed_a.split(chunks))
            .zip(order.split_mut(d_x, &ranges))
            .zip(ranges)
            .map(|((((d_f, d_qkv), recomputed_a), d_x), rows)| ChunkResults { rows, d_f, d_qkv, recomputed_a, d_x });
        let tasks: Vec<Vec<_>> = parts.iter().map(|part| results.by_ref().take(part.len()).collect()).collect();
        let of_tasks = threads.map(tasks, |of_task| {
            let mut of_rows = self.zero_gradients();
            let zeros = |head| HeadGradients::zeros(pools, &sizes, head, self.has_position_bias);
            let mut of_heads: Vec<_> = (0..sizes.heads).map(zeros).collect();
            let mut scratch = RowsScratch::<T>::new(pools, chunks, width, blocks);
            let mut head_scratch = HeadScratch::<T>::new(pools, sizes.head());
            let mut own_d_x = pools.f32.take(order.copy_len(chunks.chunk_rows()));
            let mut d_o = pools.rows::<T>(chunks.chunk_rows(), width);
            let mut d_qkv_rows = pools.rows::<T>(chunks.chunk_rows(), 3 * width);
            for chunk in of_task {
                let ChunkResults { rows, mut d_f, mut d_qkv, mut recomputed_a, mut d_x } = chunk;
                self.fetch_saved(&rows);
                d_x.update(&mut own_d_x, |d_x| {
                    self.output_backward(&rows, d_x, &mut d_f, &mut of_rows, &mut scratch, &mut d_o);
                    for of_head in &mut of_heads {
                        for (i, window) in sizes.windows_of(&rows).enumerate() {
                            let first = i * sizes.window_tokens;
                            let values = &mut d_qkv_rows[first * row_of_qkv + of_head.head * sizes.head_width()..];
                            let out = HeadRows { values, stride: row_of_qkv, part: width };
                            self.head_backward(window, &d_o[first * row..], of_head, out, &mut head_scratch);
                        }
                    }
                    let (d_qkv, a) = (&mut d_qkv, &mut recomputed_a);
                    self.qkv_backward(&rows, &d_qkv_rows, d_qkv, a, &mut of_rows, &mut scratch, d_x);
                });
            }
            (of_rows, of_heads)
        });
        let (of_rows, of_heads): (Vec<_>, Vec<_>) = of_tasks.into_iter().unzip();
        ParameterGradients { of_rows, of_heads: of_heads.into_iter().flatten().collect() }
    }

    /// The tasks of each phase begin when those of the phase before it are done.
    fn by_phases(&self, packed: Operands, d_x: &mut [f32]) -> ParameterGradients {
        let Shared { threads, pools, blocks, chunks, order, parameters, .. } = &self.shared;
        let (sizes, ranges) = (parameters.sizes, chunks.ranges());
        let (width, row) = (sizes.width, padded::<T>(sizes.width));
        let own_d_x = || pools.f32.take(order.copy_len(chunks.chunk_rows()));

        let mut d_o = pools.temporary_rows::<T>(sizes.rows(), width);
        let parts = split_mut(&mut d_o, &ranges, row).into_iter().zip(packed.d_f.split(chunks));
        let d_out = &*d_x;
        let of_rows = threads.map(ranges.iter().zip(parts).collect(), |(rows, (d_o, mut d_f))| {
            let (mut gradients, mut own_d_out) = (self.zero_gradients(), own_d_x());
            let mut scratch = RowsScratch::<T>::new(pools, chunks, width, blocks);
            let d_out = order.read(d_out, rows, &mut own_d_out);
            self.output_backward(rows, d_out, &mut d_f, &mut gradients, &mut scratch, d_o);
            gradients
        });

        let mut d_heads = T::pool(pools).temporary(sizes.rows() * 3 * width);
        let of_heads = threads.map(head_tasks(&sizes, &mut d_heads), |HeadTask { head, groups, d_heads }| {
            let mut scratch = HeadScratch::<T>::new(pools, sizes.head());
            let mut gradients = HeadGradients::zeros(pools, &sizes, head, self.has_position_bias);
            for (group, values) in groups.zip(d_heads) {
                let d_o = &d_o[group * sizes.group_rows() * row..];
                for window in sizes.windows_of_group(group) {
                    let out = HeadRows { values: &mut *values, stride: sizes.head_width(), part: sizes.head_len() };
                    self.head_backward(window, d_o, &mut gradients, out, &mut scratch);
                }
            }
            gradients
        });

        let parts = (packed.d_qkv.split(chunks).into_iter().zip(packed.recomputed_a.split(chunks)))
            .zip(order.split_mut(d_x, &ranges))
            .zip(of_rows); // to which the same rows' other gradients are added
        let of_rows = threads.map(
            ranges.iter().zip(parts).collect(),
            |(rows, (((mut d_qkv, mut a), mut d_x), mut gradients))| {
                let mut own_d_x = own_d_x();
                let mut scratch = RowsScratch::<T>::new(pools, chunks, width, blocks);
                let mut stored = pools.rows::<T>(chunks.chunk_rows(), 3 * width);
                collect_rows(&sizes, &d_heads, 3, rows, &mut stored);
                d_x.update(&mut own_d_x, |d_x| {
                    self.qkv_backward(rows, &stored, &mut d_qkv, &mut a, &mut gradients, &mut scratch, d_x);
                });
                gradients
            },
        );
        ParameterGradients { of_rows, of_heads }
    }

    /// Fetches what the heads of a chunk of whole windows read: a few columns of each row at a time, which the hardware does
    /// not foresee.
    fn fetch_saved(&self, rows: &Range<usize>) {
        let sizes = self.shared.parameters.sizes;
        let (row, windows) = (padded::<T>(3 * sizes.width), sizes.windows_of(rows));
        let p_len = sizes.heads * sizes.p_len::<T>();
        fetch_values(&self.qkv[rows.start * row..rows.end * row]);
        fetch_values(&self.p[windows.start * p_len..windows.end * p_len]);
    }

    fn zero_gradients(&self) -> RowsGradients {
        let parameters = self.shared.parameters;
        let width = parameters.sizes.width;
        RowsGradients {
            residual: parameters.residual.zero_gradients(),
            d_output_bias: vec![0.0; width],
            d_qkv_bias: vec![0.0; 3 * width],
        }
    }

    /// Third phase: from the gradient of the output, `[R, D]`, to that of the heads' outputs, `[R, D]`.
    fn output_backward(
        &self,
        rows: &Range<usize>,
        d_out: &[f32],
        packed_d_f: &mut PackedActivationsChunk,
        gradients: &mut RowsGradients,
        scratch: &mut RowsScratch<T>,
        d_o: &mut [T],
    ) {
        let Shared { blocks, parameters, .. } = &self.shared;
        let (width, count) = (parameters.sizes.width, rows.len());
        let row = padded::<T>(width);
        let d_f = &mut scratch.f[..count * width];
        let (residual, of_residual) = (&parameters.residual, &mut gradients.residual);
        residual.add_branch_backward(d_out, rows, self.residual, of_residual, d_f, &mut scratch.residual);
        add_column_sums(d_f, &mut gradients.d_output_bias);
        narrow_rows(d_f, width, &mut scratch.stored, row);
        let d_f = Matrix::new(&scratch.stored[..count * row], count, width);
        packed_d_f.pack(d_f);
        blocks.product(d_f, self.of_output, Accumulator::Zero, &mut scratch.block, |block, rows, columns| {
            narrow_rows(block, columns.len(), &mut d_o[rows.start * row + columns.left..], row);
        });
    }

    /// Second phase: from the gradient of the heads' outputs in a window's group, `[R/G, D]`, to those of a head's queries,
    /// keys and values in the window.
    fn head_backward(
        &self,
        window: usize,
        d_o: &[T],
        gradients: &mut HeadGradients,
        out: HeadRows<T>,
        scratch: &mut HeadScratch<T>,
    ) {
        let Shared { tile, parameters, .. } = &self.shared;
        let sizes = parameters.sizes;
        let qkv = &self.qkv[sizes.first_row(window) * padded::<T>(3 * sizes.width)..];
        let p = &self.p[sizes.head_index(window, gradients.head) * sizes.p_len::<T>()..][..sizes.p_len::<T>()];
        attend_head_backward(*tile, parameters, window, qkv, p, d_o, gradients, out, scratch);
    }

    /// First phase: from the gradients of queries, keys and values, `[R, 3D]`, to that of the input, which is added to
    /// `d_x`.
    fn qkv_backward(
        &self,
        rows: &Range<usize>,
        d_qkv: &[T],
        packed_d_qkv: &mut PackedActivationsChunk,
        recomputed_a: &mut PackedActivationsChunk,
        gradients: &mut RowsGradients,
        scratch: &mut RowsScratch<T>,
        d_x: &mut [f32],
    ) {
        let Shared { tile, order, parameters, .. } = &self.shared;
        let (width, count) = (parameters.sizes.width, rows.len());
        let (row, residual) = (padded::<T>(3 * width), &parameters.residual);
        let d_qkv = &d_qkv[..count * row];
        add_strided_column_sums(d_qkv, row, &mut gradients.d_qkv_bias);
        let d_qkv = Matrix::new(d_qkv, count, 3 * width);
        packed_d_qkv.pack(d_qkv);
        let d_a = &mut scratch.f[..count * width];
        product(*tile, d_qkv, self.of_qkv, d_a, width, Accumulator::Zero); // [R, D]
        let (first, second) = scratch.residual.split_at_mut(count * width);
        let (x, own) = match self.x {
            Some(x) => (Some(order.read(x, rows, second)), first),
            None => (None, &mut *scratch.residual),
        };
        residual.branch_input_backward(x, d_a, rows, self.residual, &mut gradients.residual, d_x, own, |a| {
            narrow_rows(a, width, &mut scratch.stored, padded::<T>(width));
            recomputed_a.pack(Matrix::new(&scratch.stored, count, width));
        });
    }
}

/// Divides each head's groups among so many tasks that there are about [`LEAST_HEAD_TASKS`] in all, and hands each task
/// the memory for its gradients.
fn head_tasks<'a, T>(sizes: &AttentionSizes, d_heads: &'a mut [T]) -> Vec<HeadTask<'a, T>> {
    let parts = divide(sizes.groups(), LEAST_HEAD_TASKS.div_ceil(sizes.heads));
    let task = |(head, groups): (usize, &Range<usize>)| HeadTask { head, groups: groups.clone(), d_heads: Vec::new() };
    let mut tasks: Vec<_> =
        (0..sizes.heads).flat_map(|head| parts.iter().map(move |groups| (head, groups))).map(task).collect();
    for (item, d_head) in d_heads.chunks_exact_mut(3 * sizes.head_len()).enumerate() {
        let (group, head) = (item / sizes.heads, item % sizes.heads);
        let part = parts.iter().position(|groups| groups.contains(&group)).expect("parts cover all groups");
        tasks[head * parts.len() + part].d_heads.push(d_head);
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::{
        AttentionBranch, Backend, Distance, LayerNorm, Linear, NormOrder, Operations, ParameterTable, Precision,
        Regression, Slot, Windows,
    };
    use simmim_kernels::product::Tile;
    use std::rc::Rc;

    const TOKENS: usize = 8;
    const WIDTH: usize = 6;

    /// The gradients of parameters, and of the input, for a few images that are repeated.
    fn gradients(precision: Precision, repeated: usize) -> (Vec<f32>, Vec<f32>) {
        const IMAGES: usize = 26;
        let mut table = ParameterTable::default();
        let norm = LayerNorm { weight: table.add("norm.w", &[WIDTH]), bias: table.add("norm.b", &[WIDTH]), eps: 1e-5 };
        let position_bias = table.add("table", &[5, 2]);
        let branch = AttentionBranch {
            norm,
            order: NormOrder::Pre,
            heads: 2,
            qkv: table.add("qkv.w", &[3 * WIDTH, WIDTH]),
            qkv_bias: QkvBias::Full(table.add("qkv.b", &[3 * WIDTH])),
            projection: Linear {
                weight: table.add("proj.w", &[WIDTH, WIDTH]),
                bias: Some(table.add("proj.b", &[WIDTH])),
            },
            layer_scale: None,
            similarity: Similarity::ScaledDot,
            windows: Windows {
                tokens: 4,
                slots: Rc::new([6, 5, 0, 7, 1, 2, 3, 4]),
                masks: Rc::new([]),
                mask_of: Rc::new([None; 2]),
            },
            bias_index: (0..16).map(|i| i * 7 % 5).collect(),
            rotary: None,
        };
        let number = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
        let values: Vec<f32> = (0..table.len()).map(number).collect();
        let cpu = Cpu::with_tile(table, precision, 2, Tile::portable());
        cpu.write_slot(Slot::Values, &values);
        cpu.start(true);
        let images = repeated * IMAGES;
        let x: Vec<f32> =
            (0..images).flat_map(|i| (0..TOKENS * WIDTH).map(move |v| number(i % IMAGES * 91 + v))).collect();
        let x = cpu.tensor(&[images, TOKENS, WIDTH], &x);
        let y = cpu.attention_branch(&x, &branch, Some(&cpu.parameter(position_bias)), None);
        let (target, weight) = (vec![0.0; x.data.len()], vec![1.0; images * TOKENS]);
        let loss = Regression { distance: Distance::L2, target: &target, weight: &weight, channels: WIDTH };
        let d_x = cpu.backward_to(&cpu.regression(&y, &loss), &x);
        (cpu.read_slot(Slot::Gradients), d_x)
    }

    #[test]
    fn chunks_of_one_task_add_up() {
        for precision in [Precision::F32, Precision::Bf16] {
            // 4 chunks, and then 68 for 64 tasks, of which the last one is short
            let ((few, d_few), (many, d_many)) = (gradients(precision, 1), gradients(precision, 40));
            let largest = few.iter().fold(0.0f32, |m, d| m.max(d.abs()));
            for (few, many) in few.iter().zip(&many) {
                assert!((few - many / 40.0).abs() <= 1e-5 * largest, "{precision:?}: {few} and {}", many / 40.0);
            }
            assert!(d_many.chunks_exact(d_few.len()).all(|d| d == d_few), "{precision:?}");
        }
    }
}
