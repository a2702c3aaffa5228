//! The forward pass, chunk by chunk or phase by phase.

use super::super::bias_table::expand_bias;
use super::super::residual::{SavedResidual, SavedResidualChunk};
use super::division::Division;
use super::head::{Place, attend_head};
use super::layout::{AttentionSizes, collect_rows};
use super::parameters::AttentionParameters;
use super::saved::{AttentionBackward, SavedBias, residual_spec};
use super::scratch::{HeadScratch, RowsScratch};
use super::shared::Shared;
use super::window_order::{RowsMut, WindowOrder};
use crate::packed_activations::{PackedActivations, PackedActivationsChunk, Side, split_saved};
use crate::pools::ActivationDtype;
use crate::threads::{divide, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::{AttentionBranch, Precision};
use simmim_kernels::dtype::{Bf16, padded};
use simmim_kernels::epilogue::narrow_rows;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Accumulator, product};
use std::ops::Range;
use std::rc::Rc;

pub(crate) fn forward(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    drop_path_scale: Option<&[f32]>,
) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, branch, bias_table, drop_path_scale),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, branch, bias_table, drop_path_scale),
    }
}

/// The most tasks that the heads of all windows are divided into. The tasks have no sums, so many of them cost nothing.
const MOST_HEAD_TASKS: usize = 64;

fn forward_in<T: ActivationDtype>(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    drop_path_scale: Option<&[f32]>,
) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    assert_eq!(width % branch.heads, 0, "{} heads do not divide width {width}", branch.heads);
    let (windows, window_tokens) = (branch.windows.count(), branch.windows.tokens);
    let sizes = AttentionSizes { images, tokens, windows, window_tokens, width, heads: branch.heads };
    let order = WindowOrder::new(&branch.windows, &sizes);
    let drop_path_scale = drop_path_scale.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let is_recording = cpu.is_recording();
    let division = Division::new::<T>(cpu, &sizes);
    let Division { chunks, has_whole_windows } = division;

    let mut saved_residual = residual_spec(branch).allocate_saved::<T>(cpu, sizes.rows());
    let packed = |is_saved| PackedActivations::saved::<T>(cpu, &chunks, width, Side::Right, is_saved);
    let recomputes_a = residual_spec(branch).recomputes_branch_input::<T>();
    let (mut saved_a, mut saved_o) = (packed(is_recording && !recomputes_a), packed(is_recording));
    let of_all = |len: usize, is_needed: bool| if is_needed { len } else { 0 };
    let p_len = sizes.heads * sizes.p_len::<T>();
    let mut saved_p = T::pool(&cpu.pools).take(of_all(sizes.all_windows() * p_len, is_recording));
    // a chunk of whole windows needs only its own rows
    let mut qkv = cpu.pools.rows::<T>(of_all(sizes.rows(), is_recording || !has_whole_windows), 3 * width);
    let bias_table = bias_table.map(|table| SavedBias {
        table: table.node,
        rows: table.rows(),
        expanded: expand_bias(cpu, table, &branch.bias_index, branch.heads),
    });
    let mut out = cpu.pools.f32.take(x.data.len());
    {
        let store = cpu.store.borrow();
        let position_bias: &[f32] = bias_table.as_ref().map_or(&[], |bias| &bias.expanded);
        let parameters = AttentionParameters::read(cpu, &store, branch, position_bias, &drop_path_scale, sizes);
        let of_qkv = cpu.forward_weight::<T>(branch.qkv);
        let of_output = cpu.forward_weight::<T>(branch.projection.weight);
        let forward = Forward {
            shared: Shared::new(cpu, chunks, &order, &parameters),
            of_qkv: of_qkv.get(),
            of_output: of_output.get(),
            x: &x.data,
        };
        let results = Results {
            residual: &mut saved_residual,
            a: &mut saved_a,
            qkv: &mut qkv,
            p: &mut saved_p,
            o: &mut saved_o,
            out: &mut out,
        };
        match has_whole_windows {
            true => forward.by_chunks(results),
            false => forward.by_phases(results),
        }
    }
    cpu.output_with_parameters(branch.parameters(), &x.shape, out, || AttentionBackward {
        branch: branch.clone(),
        input: x.node,
        drop_path_scale,
        x: T::RECOMPUTES.then(|| Rc::clone(&x.data)),
        bias_table,
        sizes,
        order,
        division,
        residual: saved_residual,
        a: saved_a,
        qkv,
        p: saved_p,
        o: saved_o,
    })
}

/// What the forward pass reads.
struct Forward<'a, T> {
    shared: Shared<'a, T>,
    of_qkv: Packed<'a>,
    of_output: Packed<'a>,
    x: &'a [f32],
}

/// What it writes: what is saved for backward, and the output.
struct Results<'a, T> {
    residual: &'a mut SavedResidual<T>,
    a: &'a mut PackedActivations,
    /// Empty if each chunk needs only its own rows.
    qkv: &'a mut [T],
    p: &'a mut [T],
    o: &'a mut PackedActivations,
    out: &'a mut [f32],
}

/// The part of [`Results`] that belongs to a chunk.
struct ChunkResults<'a, T> {
    rows: Range<usize>,
    residual: SavedResidualChunk<'a, T>,
    a: PackedActivationsChunk<'a>,
    qkv: &'a mut [T],
    p: &'a mut [T],
    o: PackedActivationsChunk<'a>,
    out: RowsMut<'a>,
}

impl<T: ActivationDtype> Forward<'_, T> {
    /// Each task goes through all phases with a chunk of whole windows.
    fn by_chunks(&self, results: Results<T>) {
        let Shared { threads, pools, tile, blocks, chunks, order, parameters } = &self.shared;
        let (sizes, ranges) = (parameters.sizes, chunks.ranges());
        let (width, row_of_qkv) = (sizes.width, padded::<T>(3 * sizes.width));
        let p_len = sizes.heads * sizes.p_len::<T>();
        let windows: Vec<_> = ranges.iter().map(|rows| sizes.windows_of(rows)).collect();
        let residuals = results.residual.split(&ranges, width).into_iter();
        let tasks = (residuals.zip(results.a.split(chunks)))
            .zip(split_saved(results.qkv, &ranges, row_of_qkv))
            .zip(split_saved(results.p, &windows, p_len))
            .zip(results.o.split(chunks))
            .zip(order.split_mut(results.out, &ranges))
            .zip(ranges)
            .map(|((((((residual, a), qkv), p), o), out), rows)| ChunkResults { rows, residual, a, qkv, p, o, out });
        threads.map(tasks.collect(), |mut chunk| {
            let mut scratch = RowsScratch::<T>::new(pools, chunks, width, blocks);
            let mut head_scratch = HeadScratch::new(pools, sizes.head());
            let (mut own_qkv, mut own_x) = (None, pools.f32.take(order.copy_len(chunks.chunk_rows())));
            let x = order.read(self.x, &chunk.rows, &mut own_x);
            let qkv = match chunk.qkv.is_empty() {
                true => &mut **own_qkv.insert(pools.rows::<T>(chunks.chunk_rows(), 3 * width)),
                false => chunk.qkv,
            };
            self.rows_to_qkv(chunk.rows.len(), x, &mut chunk.residual, &mut chunk.a, &mut scratch, qkv);
            let row = padded::<T>(width);
            let mut o = pools.rows::<T>(chunks.chunk_rows(), width);
            for head in 0..sizes.heads {
                for (i, window) in sizes.windows_of(&chunk.rows).enumerate() {
                    let (first, p_len) = (i * sizes.window_tokens, sizes.p_len::<T>());
                    let p = of_saved(chunk.p, i * sizes.heads + head, p_len);
                    let out = (&mut o[first * row + head * sizes.head_width()..], row);
                    let (place, qkv) = (Place { window, head }, &qkv[first * row_of_qkv..]);
                    attend_head(*tile, parameters, place, qkv, p, out, &mut head_scratch);
                }
            }
            self.output(&chunk.rows, x, &o, &mut chunk.residual, &mut chunk.o, &mut scratch, &mut chunk.out);
        });
    }

    /// The tasks of each phase begin when those of the phase before it are done.
    fn by_phases(&self, results: Results<T>) {
        let Shared { threads, pools, tile, blocks, chunks, order, parameters } = &self.shared;
        let (sizes, ranges) = (parameters.sizes, chunks.ranges());
        let (width, row_of_qkv) = (sizes.width, padded::<T>(3 * sizes.width));
        let own_x = || pools.f32.take(order.copy_len(chunks.chunk_rows()));

        let parts = (results.residual.split(&ranges, width).into_iter().zip(results.a.split(chunks))).zip(split_mut(
            results.qkv,
            &ranges,
            row_of_qkv,
        ));
        threads.map(ranges.iter().zip(parts).collect(), |(rows, ((mut residual, mut a), qkv))| {
            let mut scratch = RowsScratch::<T>::new(pools, chunks, width, blocks);
            let mut own_x = own_x();
            let x = order.read(self.x, rows, &mut own_x);
            self.rows_to_qkv(rows.len(), x, &mut residual, &mut a, &mut scratch, qkv);
        });

        let mut heads = T::pool(pools).temporary(sizes.rows() * width); // [G, A, R/G, E]
        let (qkv, p_len): (&[T], _) = (results.qkv, sizes.p_len::<T>());
        let parts = divide(sizes.groups() * sizes.heads, MOST_HEAD_TASKS);
        let tasks = (parts.iter().zip(split_mut(&mut heads, &parts, sizes.head_len()))).zip(split_saved(
            results.p,
            &parts,
            sizes.group_windows() * p_len,
        ));
        threads.map(tasks.collect(), |((part, heads), p)| {
            let mut scratch = HeadScratch::new(pools, sizes.head());
            let mut count = 0..;
            for (item, values) in part.clone().zip(heads.chunks_exact_mut(sizes.head_len())) {
                let (group, head) = (item / sizes.heads, item % sizes.heads);
                let qkv = &qkv[group * sizes.group_rows() * row_of_qkv..];
                for (window, i) in sizes.windows_of_group(group).zip(&mut count) {
                    let (p, out) = (of_saved(p, i, p_len), (&mut *values, sizes.head_width()));
                    attend_head(*tile, parameters, Place { window, head }, qkv, p, out, &mut scratch);
                }
            }
        });

        let parts = (results.residual.split(&ranges, width).into_iter().zip(results.o.split(chunks)))
            .zip(order.split_mut(results.out, &ranges));
        threads.map(ranges.iter().zip(parts).collect(), |(rows, ((mut residual, mut packed_o), mut out))| {
            let mut scratch = RowsScratch::<T>::new(pools, chunks, width, blocks);
            let (mut own_x, mut o) = (own_x(), pools.rows::<T>(chunks.chunk_rows(), width));
            collect_rows(&sizes, &heads, 1, rows, &mut o);
            let x = order.read(self.x, rows, &mut own_x);
            self.output(rows, x, &o, &mut residual, &mut packed_o, &mut scratch, &mut out);
        });
    }

    /// First phase: the norm and the joint projection, `[R, D]` → `[R, 3D]`.
    fn rows_to_qkv(
        &self,
        count: usize,
        x: &[f32],
        residual: &mut SavedResidualChunk<T>,
        packed_a: &mut PackedActivationsChunk,
        scratch: &mut RowsScratch<T>,
        qkv: &mut [T],
    ) {
        let Shared { blocks, parameters, .. } = &self.shared;
        let width = parameters.sizes.width;
        let (row, stride) = (padded::<T>(width), padded::<T>(3 * width));
        let a = parameters.residual.branch_input(x, residual, &mut scratch.residual); // [R, D]
        narrow_rows(a, width, &mut scratch.stored, row);
        let a = Matrix::new(&scratch.stored[..count * row], count, width);
        packed_a.pack(a);
        let accumulator = Accumulator::Bias(&parameters.qkv_bias);
        blocks.product(a, self.of_qkv, accumulator, &mut scratch.block, |block, rows, columns| {
            let queries = width.saturating_sub(columns.left).min(columns.len());
            if queries > 0 && parameters.query_factor != 1.0 {
                let rows = block.chunks_exact_mut(columns.len());
                rows.for_each(|row| row[..queries].iter_mut().for_each(|q| *q *= parameters.query_factor));
            }
            narrow_rows(block, columns.len(), &mut qkv[rows.start * stride + columns.left..], stride);
        });
    }

    /// Third phase: the output projection and the residual, from the heads' outputs `o`, `[R, D]`.
    fn output(
        &self,
        rows: &Range<usize>,
        x: &[f32],
        o: &[T],
        residual: &mut SavedResidualChunk<T>,
        packed_o: &mut PackedActivationsChunk,
        scratch: &mut RowsScratch<T>,
        out: &mut RowsMut,
    ) {
        let Shared { tile, parameters, .. } = &self.shared;
        let (width, count) = (parameters.sizes.width, rows.len());
        let o = Matrix::new(&o[..count * padded::<T>(width)], count, width);
        packed_o.pack(o);
        let f = &mut scratch.f[..count * width];
        product(*tile, o, self.of_output, f, width, parameters.projection_accumulator); // [R, D]
        let (of_residual, copy) = scratch.residual.split_at_mut(count * width);
        out.write(copy, |out| parameters.residual.add_branch(x, f, rows, residual, of_residual, out));
    }
}

/// Item `index` of what is saved, `len` values each, or nothing if nothing is saved.
fn of_saved<T>(saved: &mut [T], index: usize, len: usize) -> &mut [T] {
    match saved.is_empty() {
        true => saved,
        false => &mut saved[index * len..][..len],
    }
}
