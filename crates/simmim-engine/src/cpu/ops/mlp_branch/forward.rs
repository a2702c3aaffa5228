//! From the input to the output.

use super::super::blocks::Blocks;
use super::super::frame::FrameKeptPart;
use super::shared::{Mlp, Scratch, frame_spec};
use crate::backend::{MlpBranch, Precision};
use crate::cpu::kept::{Stack, StackPart, Stored, split_kept};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::element::{Bf16, padded};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::{Start, product};
use simmim_kernels::stored::{gelu_rows, narrow_rows};
use std::ops::Range;
use std::rc::Rc;

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
