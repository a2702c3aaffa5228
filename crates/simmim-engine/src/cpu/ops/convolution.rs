//! A convolution: neighbourhoods as rows, then a product, some hundred pixels at a time.
//!
//! Rows are made again in the backward pass rather than kept: they are `k·k` times as large as the
//! image. The products are in f32 whatever the precision.

use crate::backend::Linear;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::{divide, parts, split_mut};
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::convolution::{Neighbourhood, add_weight_of_rows, fold, unfold, weight_of_rows};
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Layout, Packed, pack_depth_by_column, pack_depth_by_row};
use simmim_kernels::product::{Start, product, product_of_packed};
use std::ops::Range;
use std::rc::Rc;

/// Pixels whose neighbourhoods are rows at the same time: enough for a product to run at speed, few
/// enough for the rows to stay in cache.
const PIXELS_AT_ONCE: usize = 256;

/// Tasks of a backward pass: each has a gradient of the whole weight.
const BACKWARD_TASKS: usize = 4;

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
        let layout = Layout::new::<f32>(around.row_len(), outputs, cpu.tile.width());
        let mut panels = vec![0; layout.lanes()];
        pack_depth_by_column(Matrix::new(&weight, outputs, around.row_len()), layout, &mut panels);
        let (weight, tile) = (Packed::new(&panels, layout), cpu.tile);
        let start = linear.bias.map_or(Start::Zero, |b| Start::Bias(store.value(b)));
        let data: &[f32] = &x.data;
        let groups = pixels_of(&parts(images), &around);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, outputs)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            let mut rows = room(&around);
            for (pixels, out) in pieces(group).zip(out.chunks_mut(PIXELS_AT_ONCE * outputs)) {
                let rows = &mut rows[..pixels.len() * around.row_len()];
                unfold(&around, data, pixels.clone(), rows);
                let rows = Matrix::new(rows, pixels.len(), around.row_len());
                product(tile, rows, weight, out, outputs, start);
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

/// The pixels of whole images, numbered across images.
fn pixels_of(images: &[Range<usize>], around: &Neighbourhood) -> Vec<Range<usize>> {
    let pixels = around.pixels();
    images.iter().map(|images| images.start * pixels..images.end * pixels).collect()
}

fn pieces(group: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = group.end;
    group.clone().step_by(PIXELS_AT_ONCE).map(move |start| start..(start + PIXELS_AT_ONCE).min(end))
}

fn room(around: &Neighbourhood) -> Vec<f32> {
    vec![0.0; PIXELS_AT_ONCE * around.row_len()]
}

impl Backward for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { around, outputs, .. } = *self;
        let (row_len, image_len) = (around.row_len(), around.pixels() * around.channels);
        let mut d_x = cpu.shelves.f32.zeros(self.x.len());
        let sums = {
            let store = cpu.store.borrow();
            let weight = weight_of_rows(&around, store.value(self.linear.weight));
            let of_weight = Layout::new::<f32>(outputs, row_len, cpu.tile.width());
            let mut panels = vec![0; of_weight.lanes()];
            pack_depth_by_row(Matrix::new(&weight, outputs, row_len), of_weight, &mut panels);
            let (packed, tile) = (Packed::new(&panels, of_weight), cpu.tile);
            let (x, d_y): (&[f32], &[f32]) = (&self.x, &d_output);
            let images = divide(x.len() / image_len, BACKWARD_TASKS);
            let d_x = split_mut(&mut d_x, &images, image_len);
            let tasks = pixels_of(&images, &around).into_iter().zip(d_x).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                let (mut rows, mut d_rows) = (room(&around), room(&around));
                let of_d_y = Layout::new::<f32>(PIXELS_AT_ONCE, outputs, tile.height());
                let of_rows = Layout::new::<f32>(PIXELS_AT_ONCE, row_len, tile.width());
                let (mut d_y_blocks, mut row_panels) = (vec![0; of_d_y.lanes()], vec![0; of_rows.lanes()]);
                let mut d_weight = vec![0.0; weight.len()];
                for pixels in pieces(&group) {
                    let len = pixels.len() * row_len;
                    unfold(&around, x, pixels.clone(), &mut rows[..len]);
                    let d_y = Matrix::new(&d_y[pixels.start * outputs..], pixels.len(), outputs);
                    pack_depth_by_row(d_y, of_d_y, &mut d_y_blocks);
                    pack_depth_by_row(Matrix::new(&rows, pixels.len(), row_len), of_rows, &mut row_panels);
                    let (blocks, panels) = (Packed::new(&d_y_blocks, of_d_y), Packed::new(&row_panels, of_rows));
                    product_of_packed::<f32>(tile, blocks, 0, panels, &mut d_weight, Start::Old);
                    product(tile, d_y, packed, &mut d_rows, row_len, Start::Zero);
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
