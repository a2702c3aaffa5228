//! From the gradient of the output to that of the input.

use super::super::blocks::Blocks;
use super::super::frame::{Frame, FrameKept, FrameSums};
use super::super::{add_bias_gradient, add_weight_gradients};
use super::shared::{Mlp, Scratch, frame_spec};
use crate::cpu::Cpu;
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::{Shelves, Stack, StackPart, Stored};
use crate::cpu::tape::{Backward, Gradients};
use crate::cpu::threads::split_mut;
use simmim_kernels::element::padded;
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Start, Tile, product};
use simmim_kernels::stored::{gelu_rows, multiply_rows, narrow_rows};
use std::ops::Range;

/// Room for what a chunk of the backward pass computes again.
struct Again<E> {
    /// `[R, columns of a block]`
    input: Buffer<f32>,
    /// `[R, columns of a block]`
    slope: Buffer<E>,
    /// `[R, hidden]`
    hidden: Buffer<E>,
}

impl<E: Stored> Again<E> {
    fn new(shelves: &Shelves, rows: usize, inner: usize, blocks: &Blocks) -> Self {
        let rows = if E::COMPUTES_AGAIN { rows } else { 0 };
        Self {
            input: shelves.f32.take(rows * blocks.columns()),
            slope: E::shelf(shelves).take(rows * blocks.columns()),
            hidden: shelves.rows(rows, inner),
        }
    }
}

/// A chunk's rows of the gradients.
struct BackwardTask<'a> {
    rows: Range<usize>,
    d_x: &'a mut [f32],
    d_f: StackPart<'a>,
    d_hidden: StackPart<'a>,
    a_again: StackPart<'a>,
    hidden_again: StackPart<'a>,
}

/// A chunk's gradients of parameters.
struct Sums {
    frame: FrameSums,
    d_b1: Vec<f32>,
    d_b2: Vec<f32>,
}

impl<E: Stored> Backward for Mlp<E> {
    fn name(&self) -> &'static str {
        "mlp branch"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let (branch, chunks) = (self.branch, self.chunks);
        let [width, inner] = cpu.table.get(branch.fc2.weight).shape[..] else { panic!("a weight is [out, in]") };
        let ranges = chunks.ranges();
        let mut d_f = Stack::temporary::<E>(&cpu.shelves, &chunks, width, cpu.tile.height());
        let mut d_hidden = Stack::temporary::<E>(&cpu.shelves, &chunks, inner, cpu.tile.height());
        let again = |columns| Stack::again::<E>(&cpu.shelves, &chunks, columns, cpu.tile.width());
        let (mut a_again, mut hidden_again) = (again(width), again(inner));
        let (w1, w2) = (cpu.backward_weight::<E>(branch.fc1.weight), cpu.backward_weight::<E>(branch.fc2.weight));
        let blocks = Blocks::new(cpu);
        let sums = {
            let store = cpu.store.borrow();
            let frame = frame_spec(&branch).frame(&store, &self.keep, self.tokens);
            let parts = split_mut(&mut d_output, &ranges, width)
                .into_iter()
                .zip(d_f.split(&chunks))
                .zip(d_hidden.split(&chunks))
                .zip(a_again.split(&chunks))
                .zip(hidden_again.split(&chunks));
            let tasks =
                ranges.into_iter().zip(parts).map(|(rows, ((((d_x, d_f), d_hidden), a_again), hidden_again))| {
                    BackwardTask { rows, d_x, d_f, d_hidden, a_again, hidden_again }
                });
            let (x, kept, gelu): (&[f32], _, &[E]) = (&self.x, &self.frame, &self.gelu);
            let (w1, w2, tile, shelves) = (w1.get(), w2.get(), cpu.tile, &cpu.shelves);
            cpu.threads.map(tasks.collect(), |task| {
                let scratch = Scratch::new(shelves, chunks.chunk_rows(), width, inner, &blocks);
                let again = Again::new(shelves, chunks.chunk_rows(), inner, &blocks);
                input_gradients(tile, &frame, &blocks, (w1, w2), x, kept, gelu, task, scratch, again)
            })
        };
        for sums in &sums {
            frame_spec(&branch).add_gradients(cpu, &sums.frame);
            add_bias_gradient(cpu, &branch.fc1, &sums.d_b1);
            add_bias_gradient(cpu, &branch.fc2, &sums.d_b2);
        }
        let (a, hidden) = if E::COMPUTES_AGAIN { (&a_again, &hidden_again) } else { (&self.a, &self.hidden) };
        let (of_fc1, of_fc2) = ((branch.fc1.weight, &d_hidden, a), (branch.fc2.weight, &d_f, hidden));
        add_weight_gradients::<E>(cpu, &[of_fc2, of_fc1]);
        gradients.add(self.input, d_output);
    }
}

/// Turns a chunk's `d_x` from the gradient of the output into that of the input, and packs the gradients of
/// both layers' outputs for the weight gradients, as well as their inputs if they were not kept.
fn input_gradients<E: Stored>(
    tile: Tile,
    frame: &Frame,
    blocks: &Blocks,
    (w1, w2): (Packed, Packed),
    x: &[f32],
    kept: &FrameKept<E>,
    gelu: &[E],
    task: BackwardTask,
    scratch: Scratch<E>,
    mut again: Again<E>,
) -> Sums {
    let (width, inner) = (frame.width(), w2.columns());
    let mut sums = Sums { frame: frame.sums(), d_b1: vec![0.0; inner], d_b2: vec![0.0; width] };
    let BackwardTask { rows, d_x, d_f: mut packed_d_f, d_hidden: mut packed_d_hidden, mut a_again, mut hidden_again } =
        task;
    let Scratch { rows: mut scratch, f: mut d_f, mut block, mut a, hidden: mut d_hidden } = scratch;
    let count = rows.len();
    let x = &x[rows.start * width..rows.end * width];
    if E::COMPUTES_AGAIN {
        narrow_rows(frame.enter_again(x, &mut scratch), width, &mut a, padded::<E>(width));
        a_again.pack(Matrix::new(&a[..count * padded::<E>(width)], count, width));
    }
    let d_f = &mut d_f[..count * width];
    frame.leave_backward(d_x, &rows, kept, &mut sums.frame, d_f, &mut scratch);
    add_column_sums(d_f, &mut sums.d_b2);
    narrow_rows(d_f, width, &mut a, padded::<E>(width));
    let stored = Matrix::new(&a[..count * padded::<E>(width)], count, width);
    packed_d_f.pack(stored);
    for columns in blocks.of(w2) {
        let block = &mut block[..count * columns.len()];
        product(tile, stored, columns.weight, block, columns.len(), Start::Zero); // [R, columns of hidden]
        let of_gelu = &gelu[rows.start * inner + count * columns.left..][..block.len()];
        let slope = match E::COMPUTES_AGAIN {
            true => {
                let (input, slope) = (&mut again.input[..block.len()], &mut again.slope[..block.len()]);
                E::widen(of_gelu, input);
                gelu_rows(input, columns.len(), &mut again.hidden[columns.left..], padded::<E>(inner), slope);
                slope
            }
            false => of_gelu,
        };
        let (out, sums) = (&mut d_hidden[columns.left..], &mut sums.d_b1[columns.left..]);
        multiply_rows(block, slope, columns.len(), out, padded::<E>(inner), sums);
    }
    let stored = Matrix::new(&d_hidden[..count * padded::<E>(inner)], count, inner);
    packed_d_hidden.pack(stored);
    if E::COMPUTES_AGAIN {
        hidden_again.pack(Matrix::new(&again.hidden[..count * padded::<E>(inner)], count, inner));
    }
    product(tile, stored, w1, d_f, width, Start::Zero); // the gradient of the entered rows, [R, D]
    frame.enter_backward(x, d_f, &rows, kept, &mut sums.frame, d_x);
    sums
}
