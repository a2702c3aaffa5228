//! A convolution: neighbourhoods as rows, then a product, some hundred pixels at a time.
//!
//! Rows are made again in the backward pass rather than kept: they are `k·k` times as large as the
//! image. The products are in f32 whatever the precision.

use crate::backend::Linear;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::convolution::{Neighbourhood, add_weight_of_rows, fold, unfold, weight_of_rows};
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::matmul::{Scratch, matmul};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::Start;
use std::ops::Range;
use std::rc::Rc;

/// Pixels whose neighbourhoods are rows at the same time: enough for a product to run at speed, few
/// enough for the rows to stay in cache.
const PIXELS_AT_ONCE: usize = 256;

struct Convolution {
    linear: Linear,
    input: NodeId,
    x: Rc<Buffer<f32>>,
    around: Neighbourhood,
    outputs: usize,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    let (images, height, width, channels) = x.image_shape();
    let (outputs, side) = match cpu.table.get(linear.weight).shape[..] {
        [outputs, inputs, side, same] if inputs == channels && side == same && side % 2 == 1 => (outputs, side),
        ref other => panic!("expected a weight [O, {channels}, k, k] with odd k, got {other:?}"),
    };
    let around = Neighbourhood { height, width, channels, side };
    let mut out = cpu.shelves.f32.take(images * around.pixels() * outputs);
    {
        let store = cpu.store.borrow();
        let weight = weight_of_rows(&around, store.value(linear.weight));
        let weight = Matrix::new(&weight, outputs, around.row_len()).transposed();
        let start = linear.bias.map_or(Start::Zero, |b| Start::Bias(store.value(b)));
        let data: &[f32] = &x.data;
        let groups = pixel_groups(cpu, images, &around);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, outputs)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            let (mut rows, mut scratch) = (room(&around), Scratch::default());
            for (pixels, out) in pieces(group).zip(out.chunks_mut(PIXELS_AT_ONCE * outputs)) {
                let rows = &mut rows[..pixels.len() * around.row_len()];
                unfold(&around, data, pixels.clone(), rows);
                let rows = Matrix::new(rows, pixels.len(), around.row_len());
                matmul(rows, weight, out, outputs, start, &mut scratch);
            }
        });
    }
    cpu.output(&[images, height, width, outputs], out, || Convolution {
        linear: *linear,
        input: x.node,
        x: Rc::clone(&x.data),
        around,
        outputs,
    })
}

/// The pixels of whole images for each worker, numbered across images.
fn pixel_groups(cpu: &Cpu, images: usize, around: &Neighbourhood) -> Vec<Range<usize>> {
    let pixels = around.pixels();
    cpu.threads.groups(images).iter().map(|g| g.start * pixels..g.end * pixels).collect()
}

fn pieces(group: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = group.end;
    group.clone().step_by(PIXELS_AT_ONCE).map(move |start| start..(start + PIXELS_AT_ONCE).min(end))
}

fn room(around: &Neighbourhood) -> Vec<f32> {
    vec![0.0; PIXELS_AT_ONCE * around.row_len()]
}

impl Backward for Convolution {
    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { around, outputs, .. } = *self;
        let (row_len, image_len) = (around.row_len(), around.pixels() * around.channels);
        let mut d_x = cpu.shelves.f32.zeros(self.x.len());
        let sums = {
            let store = cpu.store.borrow();
            let weight = weight_of_rows(&around, store.value(self.linear.weight));
            let (x, d_y): (&[f32], &[f32]) = (&self.x, &d_output);
            let images = x.len() / image_len;
            let parts = split_mut(&mut d_x, &cpu.threads.groups(images), image_len);
            let tasks = pixel_groups(cpu, images, &around).into_iter().zip(parts).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                let (mut rows, mut d_rows, mut scratch) = (room(&around), room(&around), Scratch::default());
                let mut d_weight = vec![0.0; weight.len()];
                for pixels in pieces(&group) {
                    let len = pixels.len() * row_len;
                    unfold(&around, x, pixels.clone(), &mut rows[..len]);
                    let d_y = Matrix::new(&d_y[pixels.start * outputs..], pixels.len(), outputs);
                    let row_matrix = Matrix::new(&rows, pixels.len(), row_len);
                    matmul(d_y.transposed(), row_matrix, &mut d_weight, row_len, Start::Old, &mut scratch);
                    let weight = Matrix::new(&weight, outputs, row_len);
                    matmul(d_y, weight, &mut d_rows, row_len, Start::Zero, &mut scratch);
                    let own = pixels.start - group.start..pixels.end - group.start;
                    fold(&around, &d_rows[..len], own, d_x);
                }
                d_weight
            })
        };
        let mut store = cpu.store.borrow_mut();
        for d_weight in sums {
            add_weight_of_rows(&around, &d_weight, store.gradient_mut(self.linear.weight));
        }
        if let Some(bias) = self.linear.bias {
            add_column_sums(&d_output, store.gradient_mut(bias));
        }
        gradients.add(self.input, d_x);
    }
}
