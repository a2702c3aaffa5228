//! A convolution, computed as a product of the pixels' neighborhoods and the weight, some hundred pixels at a time.
//!
//! The neighborhoods are `k·k` times as large as the image. Therefore they are recomputed in the backward pass instead
//! of being saved.

use crate::buffer_pool::Buffer;
use crate::pools::ActivationDtype;
use crate::tape::{Backward, Gradients, NodeId};
use crate::threads::{divide, parts, split_mut};
use crate::{Cpu, CpuTensor};
use simmim_engine::{Linear, Precision};
use simmim_kernels::aligned::Aligned;
use simmim_kernels::convolution::{Neighborhood, add_channels_last_gradient, channels_last_weight, fold, unfold};
use simmim_kernels::dtype::{Bf16, padded};
use simmim_kernels::elementwise::add_column_sums;
use simmim_kernels::epilogue::narrow_rows;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Packed, pack_depth_by_row, pack_weight_by_column, pack_weight_by_row};
use simmim_kernels::product::{Accumulator, product, product_of_packed};
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

/// Pixels whose neighborhoods are unfolded at a time: enough for the product to be fast, and few enough for the rows to
/// stay in the cache.
const PIXELS_AT_ONCE: usize = 256;

/// Tasks of a backward pass. There are few, as each has a gradient of the whole weight.
const BACKWARD_TASKS: usize = 4;

struct ConvolutionBackward<T> {
    linear: Linear,
    input: NodeId,
    x: Rc<Buffer<f32>>,
    neighborhood: Neighborhood,
    outputs: usize,
    dtype: PhantomData<T>,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    match cpu.precision {
        Precision::F32 => forward_in::<f32>(cpu, x, linear),
        Precision::Bf16 => forward_in::<Bf16>(cpu, x, linear),
    }
}

fn forward_in<T: ActivationDtype>(cpu: &Cpu, x: &CpuTensor, linear: &Linear) -> CpuTensor {
    let (images, height, width, channels) = x.image_shape();
    let (outputs, side) = match cpu.table.get(linear.weight).shape[..] {
        [outputs, inputs, side, same] if inputs == channels && side == same && side % 2 == 1 => (outputs, side),
        ref other => panic!("expected a weight [O, {channels}, k, k] with odd k, got {other:?}"),
    };
    let neighborhood = Neighborhood { height, width, channels, side };
    let mut out = cpu.pools.f32.take(images * neighborhood.pixels() * outputs);
    {
        let store = cpu.store.borrow();
        let weight = channels_last_weight(&neighborhood, store.value(linear.weight));
        let (row_len, layout) = (neighborhood.row_len(), cpu.tile.panels::<T>(neighborhood.row_len(), outputs));
        let mut panels = Aligned::new(layout.lanes());
        pack_weight_by_column::<T>(Matrix::new(&weight, outputs, row_len), layout, 0, &mut panels);
        let (weight, tile) = (Packed::new(&panels, layout), cpu.tile);
        let accumulator = linear.bias.map_or(Accumulator::Zero, |bias| Accumulator::Bias(store.value(bias)));
        let data: &[f32] = &x.data;
        let groups = pixels_of(&parts(images), &neighborhood);
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, outputs)).collect();
        cpu.threads.map(tasks, |(group, out)| {
            // each value is copied to many neighborhoods, but rounded once
            let images = T::stored(&data[group.start * channels..group.end * channels]);
            let mut rows = Aligned::new(PIXELS_AT_ONCE * padded::<T>(row_len));
            for (pixels, out) in pieces(group.len()).zip(out.chunks_mut(PIXELS_AT_ONCE * outputs)) {
                let rows = &mut rows[..pixels.len() * padded::<T>(row_len)];
                unfold(&neighborhood, &images, pixels.clone(), rows);
                let rows = Matrix::new(rows, pixels.len(), row_len);
                product(tile, rows, weight, out, outputs, accumulator);
            }
        });
    }
    cpu.output_with_parameters(
        linear.parameters(),
        &[images, height, width, outputs],
        out,
        || ConvolutionBackward::<T> {
            linear: *linear,
            input: x.node,
            x: Rc::clone(&x.data),
            neighborhood,
            outputs,
            dtype: PhantomData,
        },
    )
}

/// The pixels of whole images, numbered across images.
fn pixels_of(images: &[Range<usize>], neighborhood: &Neighborhood) -> Vec<Range<usize>> {
    let pixels = neighborhood.pixels();
    images.iter().map(|images| images.start * pixels..images.end * pixels).collect()
}

/// So many pixels in pieces of at most [`PIXELS_AT_ONCE`].
fn pieces(pixels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..pixels).step_by(PIXELS_AT_ONCE).map(move |start| start..(start + PIXELS_AT_ONCE).min(pixels))
}

impl<T: ActivationDtype> Backward for ConvolutionBackward<T> {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let Self { neighborhood, outputs, .. } = *self;
        let (row_len, image_len) = (neighborhood.row_len(), neighborhood.pixels() * neighborhood.channels);
        let mut d_x = cpu.pools.f32.zeros(self.x.len());
        let sums = {
            let store = cpu.store.borrow();
            let weight = channels_last_weight(&neighborhood, store.value(self.linear.weight));
            let of_weight = cpu.tile.panels::<T>(outputs, row_len);
            let mut panels = Aligned::new(of_weight.lanes());
            pack_weight_by_row::<T>(Matrix::new(&weight, outputs, row_len), of_weight, 0, &mut panels);
            let (packed, tile) = (Packed::new(&panels, of_weight), cpu.tile);
            let (x, d_y): (&[f32], &[f32]) = (&self.x, &d_output);
            let images = divide(x.len() / image_len, BACKWARD_TASKS);
            let d_x = split_mut(&mut d_x, &images, image_len);
            let tasks = pixels_of(&images, &neighborhood).into_iter().zip(d_x).collect();
            cpu.threads.map(tasks, |(group, d_x)| {
                let channels = neighborhood.channels;
                let images = T::stored(&x[group.start * channels..group.end * channels]);
                let d_y = &d_y[group.start * outputs..group.end * outputs];
                let mut rows = Aligned::<T>::new(PIXELS_AT_ONCE * padded::<T>(row_len));
                let mut d_y_rows = Aligned::<T>::new(PIXELS_AT_ONCE * padded::<T>(outputs));
                let mut d_rows = Aligned::new(PIXELS_AT_ONCE * row_len);
                let of_d_y = tile.blocks::<T>(PIXELS_AT_ONCE, outputs);
                let of_rows = tile.panels::<T>(PIXELS_AT_ONCE, row_len);
                let (mut d_y_blocks, mut row_panels) = (Aligned::new(of_d_y.lanes()), Aligned::new(of_rows.lanes()));
                let mut d_weight = vec![0.0; weight.len()];
                for pixels in pieces(group.len()) {
                    let (count, len) = (pixels.len(), pixels.len() * row_len);
                    unfold(&neighborhood, &images, pixels.clone(), &mut rows[..count * padded::<T>(row_len)]);
                    let d_y = &d_y[pixels.start * outputs..pixels.end * outputs];
                    narrow_rows(d_y, outputs, &mut d_y_rows, padded::<T>(outputs));
                    let d_y = Matrix::new(&d_y_rows[..count * padded::<T>(outputs)], count, outputs);
                    pack_depth_by_row(d_y, of_d_y, &mut d_y_blocks);
                    pack_depth_by_row(Matrix::new(&rows[..], count, row_len), of_rows, &mut row_panels);
                    let (blocks, panels) = (Packed::new(&d_y_blocks, of_d_y), Packed::new(&row_panels, of_rows));
                    product_of_packed::<T>(tile, blocks, 0, panels, &mut d_weight, Accumulator::Output);
                    product(tile, d_y, packed, &mut d_rows, row_len, Accumulator::Zero);
                    fold(&neighborhood, &d_rows[..len], pixels, d_x);
                }
                d_weight
            })
        };
        let mut store = cpu.store.borrow_mut();
        for d_weight in sums {
            add_channels_last_gradient(&neighborhood, &d_weight, store.gradient_mut(self.linear.weight));
        }
        if let Some(bias) = self.linear.bias {
            add_column_sums(&d_output, store.gradient_mut(bias));
        }
        gradients.add(self.input, d_x);
    }
}
