//! The MLP half of a block, a chunk of rows at a time from the norm to the residual.

use super::blocks::Blocks;
use super::frame::{Frame, FrameKept, FrameKeptPart, FrameSpec, FrameSums};
use super::{add_bias_gradient, add_weight_gradients};
use crate::backend::{MlpBranch, Precision};
use crate::cpu::buffers::Buffer;
use crate::cpu::chunks::Chunks;
use crate::cpu::kept::{Shelves, Stack, StackPart, Stored, split_kept};
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::element::{Bf16, padded};
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Start, Tile, product};
use simmim_kernels::stored::{gelu_rows, multiply_rows, narrow_rows};
use std::ops::Range;
use std::rc::Rc;

struct Mlp<E> {
    branch: MlpBranch,
    input: NodeId,
    keep: Vec<f32>,
    tokens: usize,
    x: Rc<Buffer<f32>>,
    chunks: Chunks,
    frame: FrameKept<E>,
    /// Input of the first layer, `[rows, D]`, unless it is computed again.
    a: Stack,
    /// Slope of the GELU, or its input if it is computed again, `[rows, hidden]`, block by block of each chunk.
    gelu: Buffer<E>,
    /// Input of the second layer, `[rows, hidden]`, unless it is computed again.
    hidden: Stack,
}

fn frame_spec(branch: &MlpBranch) -> FrameSpec {
    FrameSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, branch: &MlpBranch, keep: Option<&[f32]>) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, branch, keep),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, branch, keep),
    }
}

/// A chunk's rows of everything.
struct Task<'a, E> {
    rows: Range<usize>,
    out: &'a mut [f32],
    frame: FrameKeptPart<'a, E>,
    a: StackPart<'a>,
    gelu: &'a mut [E],
    hidden: StackPart<'a>,
}

/// Room for a chunk.
struct Scratch<E> {
    /// `[2, R, D]`
    rows: Buffer<f32>,
    /// `[R, D]`
    f: Buffer<f32>,
    /// `[R, columns of a block]`
    block: Buffer<f32>,
    /// `[R, D]`
    a: Buffer<E>,
    /// `[R, hidden]`
    hidden: Buffer<E>,
}

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

impl<E: Stored> Scratch<E> {
    fn new(shelves: &Shelves, rows: usize, width: usize, inner: usize, blocks: &Blocks) -> Self {
        Self {
            rows: shelves.f32.take(2 * rows * width),
            f: shelves.f32.take(rows * width),
            block: shelves.f32.take(rows * blocks.columns()),
            a: shelves.rows(rows, width),
            hidden: shelves.rows(rows, inner),
        }
    }
}

fn forward_in<E: Stored>(cpu: &Cpu, x: &CpuTensor, branch: &MlpBranch, keep: Option<&[f32]>) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    let rows = images * tokens;
    let inner = cpu.table.get(branch.fc1.weight).shape[0];
    let keep = keep.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let (tile, is_recording) = (cpu.tile, cpu.is_recording());
    let chunks = cpu.chunks::<E>(rows, width.max(inner));
    let (ranges, blocks, shelves) = (chunks.ranges(), Blocks::new(cpu), &cpu.shelves);

    let mut out = cpu.shelves.f32.take(x.data.len());
    let mut frame_kept = frame_spec(branch).keep::<E>(cpu, rows);
    let stack =
        |columns| Stack::kept::<E>(&cpu.shelves, &chunks, columns, tile.width(), is_recording && !E::COMPUTES_AGAIN);
    let (mut a_kept, mut hidden_kept) = (stack(width), stack(inner));
    let mut gelu_kept = E::shelf(&cpu.shelves).take(if is_recording { rows * inner } else { 0 });
    let (w1, w2) = (cpu.forward_weight::<E>(branch.fc1.weight), cpu.forward_weight::<E>(branch.fc2.weight));
    {
        let store = cpu.store.borrow();
        let frame = frame_spec(branch).frame(&store, &keep, tokens);
        let start = |bias: Option<_>| bias.map_or(Start::Zero, |b| Start::Bias(store.value(b)));
        let (b1, b2) = (start(branch.fc1.bias), start(branch.fc2.bias));
        let (w1, w2, data): (_, _, &[f32]) = (w1.get(), w2.get(), &x.data);
        let parts = split_mut(&mut out, &ranges, width)
            .into_iter()
            .zip(frame_kept.split(&ranges, width))
            .zip(a_kept.split(&chunks))
            .zip(split_kept(&mut gelu_kept, &ranges, inner))
            .zip(hidden_kept.split(&chunks));
        let tasks = ranges.into_iter().zip(parts).map(|(rows, ((((out, frame), a), gelu), hidden))| Task {
            rows,
            out,
            frame,
            a,
            gelu,
            hidden,
        });
        cpu.threads.map(tasks.collect(), |mut task| {
            let Scratch { rows: mut scratch, mut f, mut block, mut a, mut hidden } =
                Scratch::<E>::new(shelves, chunks.chunk_rows(), width, inner, &blocks);
            let (count, rows) = (task.rows.len(), task.rows);
            let x = &data[rows.start * width..rows.end * width];
            let entered = frame.enter(x, &mut task.frame, &mut scratch); // [R, D]
            narrow_rows(entered, width, &mut a, padded::<E>(width));
            let a = Matrix::new(&a[..count * padded::<E>(width)], count, width);
            task.a.pack(a);
            for columns in blocks.of(w1) {
                let block = &mut block[..count * columns.len()];
                product(tile, a, columns.weight, block, columns.len(), columns.start(b1));
                let kept = match task.gelu.is_empty() {
                    true => &mut [],
                    false => &mut task.gelu[count * columns.left..][..block.len()],
                };
                let slope = match E::COMPUTES_AGAIN && !kept.is_empty() {
                    true => {
                        E::narrow(block, kept);
                        &mut []
                    }
                    false => kept,
                };
                gelu_rows(block, columns.len(), &mut hidden[columns.left..], padded::<E>(inner), slope);
            }
            let hidden = Matrix::new(&hidden[..count * padded::<E>(inner)], count, inner); // [R, hidden]
            task.hidden.pack(hidden);
            let f = &mut f[..count * width];
            product(tile, hidden, w2, f, width, b2); // [R, D]
            frame.leave(x, f, &rows, &mut task.frame, &mut scratch, task.out);
        });
    }
    cpu.output(&x.shape, out, || Mlp {
        branch: *branch,
        input: x.node,
        keep,
        tokens,
        x: Rc::clone(&x.data),
        chunks,
        frame: frame_kept,
        a: a_kept,
        gelu: gelu_kept,
        hidden: hidden_kept,
    })
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
