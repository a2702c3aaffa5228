//! Selection of rows, so that the operations after it compute only these.

use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{parts, split_mut};
use crate::{Cpu, CpuTensor};

struct GatherRowsBackward {
    input: NodeId,
    input_len: usize,
    rows: Vec<u32>,
    width: usize,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, rows: &[u32]) -> CpuTensor {
    let width = x.width();
    let mut out = cpu.pools.f32.take(rows.len() * width);
    let places: Vec<_> = rows.iter().map(|row| Some(*row)).collect();
    copy_rows(cpu, &x.data, &places, &mut out, width);
    let backward = || GatherRowsBackward { input: x.node, input_len: x.data.len(), rows: rows.to_vec(), width };
    cpu.output(&[rows.len(), width], out, backward)
}

impl Backward for GatherRowsBackward {
    fn name(&self) -> &'static str {
        "gather rows"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_x = cpu.pools.f32.take(self.input_len);
        let mut places = vec![None; self.input_len / self.width];
        for (i, row) in self.rows.iter().enumerate() {
            let earlier = places[*row as usize].replace(i as u32);
            assert!(earlier.is_none(), "row {row} is picked twice");
        }
        copy_rows(cpu, &d_output, &places, &mut d_x, self.width);
        gradients.add(self.input, d_x);
    }
}

/// Writes the rows of `data` with these numbers, and zeros where there is none.
fn copy_rows(cpu: &Cpu, data: &[f32], rows: &[Option<u32>], out: &mut [f32], width: usize) {
    let groups = parts(rows.len());
    let tasks = groups.iter().zip(split_mut(out, &groups, width)).collect();
    cpu.threads.map(tasks, |(group, out)| {
        for (out, row) in out.chunks_exact_mut(width).zip(&rows[group.clone()]) {
            match *row {
                None => out.fill(0.0),
                Some(row) => out.copy_from_slice(&data[row as usize * width..][..width]),
            }
        }
    });
}
