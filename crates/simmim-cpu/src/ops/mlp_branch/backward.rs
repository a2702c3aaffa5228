//! The backward pass.

use super::super::column_blocks::ColumnBlocks;
use super::super::residual::{ResidualGradients, ResidualWrapper, SavedResidual};
use super::super::{add_bias_gradient, add_weight_gradients};
use super::saved::{MlpBackward, residual_spec};
use super::scratch::{MlpScratch, RecomputeScratch};
use crate::Cpu;
use crate::buffer_pool::Buffer;
use crate::packed_activations::{PackedActivations, PackedActivationsChunk, Side};
use crate::pools::ActivationDtype;
use crate::tape::{Backward, Gradients};
use crate::threads::split_mut;
use simmim_kernels::dtype::padded;
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::epilogue::{gelu_backward_rows, gelu_rows, narrow_rows};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Accumulator, Tile, fetch_values, product};
use std::ops::Range;

/// A chunk: its rows of the gradients, and of what is recomputed.
struct BackwardTask<'a> {
    rows: Range<usize>,
    d_x: &'a mut [f32],
    d_f: PackedActivationsChunk<'a>,
    d_hidden: PackedActivationsChunk<'a>,
    recomputed_a: PackedActivationsChunk<'a>,
    recomputed_hidden: PackedActivationsChunk<'a>,
}

/// The gradients of parameters from one chunk.
struct MlpGradients {
    residual: ResidualGradients,
    d_b1: Vec<f32>,
    d_b2: Vec<f32>,
}

impl<T: ActivationDtype> Backward for MlpBackward<T> {
    fn name(&self) -> &'static str {
        "mlp branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, chunks) = (self.branch, self.chunks);
        let [width, hidden_width] = cpu.table.get(branch.fc2.weight).shape[..] else { panic!("a weight is [out, in]") };
        let ranges = chunks.ranges();
        let mut d_f = PackedActivations::temporary::<T>(cpu, &chunks, width, Side::Left);
        let mut d_hidden = PackedActivations::temporary::<T>(cpu, &chunks, hidden_width, Side::Left);
        let recomputed = |columns, is_recomputed| {
            PackedActivations::recomputed::<T>(cpu, &chunks, columns, Side::Right, is_recomputed)
        };
        let recomputes_a = residual_spec(&branch).recomputes_branch_input::<T>();
        let (mut recomputed_a, mut recomputed_hidden) =
            (recomputed(width, recomputes_a), recomputed(hidden_width, T::RECOMPUTES));
        let (w1, w2) = (cpu.backward_weight::<T>(branch.fc1.weight), cpu.backward_weight::<T>(branch.fc2.weight));
        let blocks = ColumnBlocks::new::<T>(cpu);
        let of_chunks = {
            let store = cpu.store.borrow();
            let residual = residual_spec(&branch).read(&store, &self.drop_path_scale, self.tokens);
            let parts = split_mut(&mut d_output, &ranges, width)
                .into_iter()
                .zip(d_f.split(&chunks))
                .zip(d_hidden.split(&chunks))
                .zip(recomputed_a.split(&chunks))
                .zip(recomputed_hidden.split(&chunks));
            let tasks = ranges.into_iter().zip(parts).map(
                |(rows, ((((d_x, d_f), d_hidden), recomputed_a), recomputed_hidden))| BackwardTask {
                    rows,
                    d_x,
                    d_f,
                    d_hidden,
                    recomputed_a,
                    recomputed_hidden,
                },
            );
            let (x, saved, gelu): (_, _, &[T]) = (self.x.as_ref().map(|x| &x[..]), &self.residual, &self.gelu);
            let (w1, w2, tile, pools) = (w1.get(), w2.get(), cpu.tile, &cpu.pools);
            cpu.threads.map(tasks.collect(), |task| {
                let scratch = MlpScratch::new(pools, chunks.chunk_rows(), width, hidden_width, &blocks);
                let recompute = RecomputeScratch::new(pools, chunks.chunk_rows(), hidden_width, &blocks);
                chunk_backward(tile, &residual, &blocks, (w1, w2), x, saved, gelu, task, scratch, recompute)
            })
        };
        for of_chunk in &of_chunks {
            residual_spec(&branch).add_gradients(cpu, &of_chunk.residual);
            add_bias_gradient(cpu, &branch.fc1, &of_chunk.d_b1);
            add_bias_gradient(cpu, &branch.fc2, &of_chunk.d_b2);
        }
        let a = if recomputes_a { &recomputed_a } else { &self.a };
        let hidden = if T::RECOMPUTES { &recomputed_hidden } else { &self.hidden };
        let (of_fc1, of_fc2) = ((branch.fc1.weight, &d_hidden, a), (branch.fc2.weight, &d_f, hidden));
        add_weight_gradients::<T>(cpu, &[of_fc2, of_fc1]);
        gradients.add(self.input, d_output);
    }
}

/// Replaces a chunk's `d_x`, which is the gradient of the output, by that of the input. Packs the gradients of both
/// layers' outputs for the weight gradients, and the layers' inputs as well if they are recomputed.
fn chunk_backward<T: ActivationDtype>(
    tile: Tile,
    residual: &ResidualWrapper,
    blocks: &ColumnBlocks,
    (w1, w2): (Packed, Packed),
    x: Option<&[f32]>,
    saved: &SavedResidual<T>,
    gelu: &[T],
    mut task: BackwardTask,
    mut scratch: MlpScratch<T>,
    mut recompute: RecomputeScratch<T>,
) -> MlpGradients {
    let (width, hidden_width) = (residual.width(), w2.columns());
    let mut gradients =
        MlpGradients { residual: residual.zero_gradients(), d_b1: vec![0.0; hidden_width], d_b2: vec![0.0; width] };
    let (rows, d_x) = (task.rows, task.d_x);
    let count = rows.len();
    let d_f = &mut scratch.f[..count * width];
    residual.add_branch_backward(d_x, &rows, saved, &mut gradients.residual, d_f, &mut scratch.residual);
    add_column_sums(d_f, &mut gradients.d_b2);
    narrow_rows(d_f, width, &mut scratch.a, padded::<T>(width));
    let stored = Matrix::new(&scratch.a[..count * padded::<T>(width)], count, width);
    task.d_f.pack(stored);
    let stride = padded::<T>(hidden_width);
    let hidden = &mut scratch.hidden;
    blocks.product(stored, w2, Accumulator::Zero, &mut scratch.block, |block, part, columns| {
        let first = rows.start * hidden_width + count * columns.left + part.start * columns.len();
        let (of_gelu, place) = (&gelu[first..][..block.len()], part.start * stride + columns.left);
        if let Some(next) = gelu.get(first + count * columns.len()..) {
            fetch_values(&next[..block.len().min(next.len())]); // the same rows of the next columns
        }
        let slope = match T::RECOMPUTES {
            true => {
                let (input, slope) = (&mut recompute.gelu_input[..block.len()], &mut recompute.slope[..block.len()]);
                T::widen(of_gelu, input);
                gelu_rows(input, columns.len(), &mut recompute.hidden[place..], stride, slope);
                slope
            }
            false => of_gelu,
        };
        let sums = &mut gradients.d_b1[columns.left..];
        gelu_backward_rows(block, slope, columns.len(), &mut hidden[place..], stride, sums);
    });
    let stored = Matrix::new(&scratch.hidden[..count * padded::<T>(hidden_width)], count, hidden_width);
    task.d_hidden.pack(stored);
    if T::RECOMPUTES {
        let hidden = &recompute.hidden[..count * padded::<T>(hidden_width)];
        task.recomputed_hidden.pack(Matrix::new(hidden, count, hidden_width));
    }
    product(tile, stored, w1, d_f, width, Accumulator::Zero); // the gradient of the branch's input, [R, D]
    let (x, of_residual) = (x.map(|x| &x[rows.start * width..rows.end * width]), &mut gradients.residual);
    residual.branch_input_backward(x, d_f, &rows, saved, of_residual, d_x, &mut scratch.residual, |a| {
        narrow_rows(a, width, &mut scratch.a, padded::<T>(width));
        task.recomputed_a.pack(Matrix::new(&scratch.a[..count * padded::<T>(width)], count, width));
    });
    gradients
}
