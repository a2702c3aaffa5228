//! Lookup of position biases: from a table with a row for each offset between two tokens, `[T, A]`, to what is added to
//! the scores of each head, `[A, M, M]`.

use crate::buffer_pool::Buffer;
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};
use std::rc::Rc;

/// The last table that was looked up, and the result. The blocks of a model may share one table.
pub(crate) struct ExpandedBias {
    table: Rc<Buffer<f32>>,
    index: Rc<[u32]>,
    bias: Rc<Buffer<f32>>,
}

/// Looks up the position bias of each head.
///
/// # Shapes
/// `table` `[T, A]`, `index` `[M, M]` → `[A, M, M]`.
pub(super) fn expand_bias(cpu: &Cpu, table: &CpuTensor, index: &Rc<[u32]>, heads: usize) -> Rc<Buffer<f32>> {
    if let Some(last) = &*cpu.expanded_bias.borrow()
        && Rc::ptr_eq(&last.table, &table.data)
        && Rc::ptr_eq(&last.index, index)
    {
        return Rc::clone(&last.bias);
    }
    let mut bias = cpu.pools.f32.take(heads * index.len());
    let groups = parts(heads);
    let tasks = groups.iter().zip(split_mut(&mut bias, &groups, index.len())).collect();
    let (values, rows): (&[f32], &[u32]) = (&table.data, index);
    cpu.threads.map(tasks, |(group, bias)| {
        for (head, bias) in group.clone().zip(bias.chunks_exact_mut(rows.len())) {
            let of_head: Vec<f32> = values.iter().skip(head).step_by(heads).copied().collect();
            for (bias, row) in bias.iter_mut().zip(rows) {
                *bias = of_head[*row as usize];
            }
        }
    });
    let bias = Rc::new(bias);
    *cpu.expanded_bias.borrow_mut() =
        Some(ExpandedBias { table: Rc::clone(&table.data), index: Rc::clone(index), bias: Rc::clone(&bias) });
    bias
}

/// The gradient of [`expand_bias`]. The gradient of a head's bias is the sum of several parts.
///
/// # Shapes
/// `d_bias`: the same number of `[M, M]` for each head, one head after the other → `[T, A]` with `T` = `rows`.
pub(super) fn reduce_bias(cpu: &Cpu, d_bias: &[&[f32]], index: &[u32], heads: usize, rows: usize) -> Buffer<f32> {
    let sums = cpu.threads.map(d_bias.chunks_exact(d_bias.len() / heads).collect(), |of_head| {
        let mut sums = vec![0.0f32; rows];
        for d_bias in of_head {
            for (d, row) in d_bias.iter().zip(index) {
                sums[*row as usize] += d;
            }
        }
        sums
    });
    let mut d_table = cpu.pools.f32.take(rows * heads);
    for (head, sums) in sums.iter().enumerate() {
        for (d, sum) in d_table.iter_mut().skip(head).step_by(heads).zip(sums) {
            *d = *sum;
        }
    }
    d_table
}
