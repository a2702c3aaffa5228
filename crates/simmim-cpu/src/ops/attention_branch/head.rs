//! One head in one window, on rows of all heads, in both directions.

use super::layout::AttentionSizes;
use super::parameters::AttentionParameters;
use super::scratch::HeadScratch;
use crate::buffer_pool::Buffer;
use crate::pools::{ActivationDtype, BufferPools};
use simmim_kernels::attention::{attend, attend_backward};
use simmim_kernels::dtype::padded;
use simmim_kernels::epilogue::narrow_rows;
use simmim_kernels::heads::{HeadColumns, RowScale, copy_scaled, scale_backward};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::Tile;
use simmim_kernels::rotary::Turn;

/// A head in a window of the batch.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) window: usize,
    pub(super) head: usize,
}

/// Where the gradients of a head's queries, keys and values are stored.
pub(super) struct HeadRows<'a, T> {
    pub(super) values: &'a mut [T],
    /// Values from a row to the next.
    pub(super) stride: usize,
    /// Values from the queries' gradients to those of the keys, and from these to those of the values.
    pub(super) part: usize,
}

/// The gradients of a head's parameters.
pub(super) struct HeadGradients {
    pub(super) head: usize,
    /// `[M, M]`; empty if there is no position bias.
    pub(super) d_position_bias: Buffer<f32>,
    pub(super) d_logit_scale: f32,
}

impl HeadGradients {
    pub(super) fn zeros(pools: &BufferPools, sizes: &AttentionSizes, head: usize, has_position_bias: bool) -> Self {
        let len = if has_position_bias { sizes.scores_len() } else { 0 };
        Self { head, d_position_bias: pools.f32.zeros(len), d_logit_scale: 0.0 }
    }
}

/// Stores the output of a head.
///
/// # Shapes
/// `qkv` `[M, 3D]`, `out` `[M, E]`, rows `stride` apart; the attention weights are saved in `p`, `[M, M]`, unless it is empty.
pub(super) fn attend_head<T: ActivationDtype>(
    tile: Tile,
    parameters: &AttentionParameters,
    place: Place,
    qkv: &[T],
    p: &mut [T],
    (out, stride): (&mut [T], usize),
    scratch: &mut HeadScratch<T>,
) {
    let (sizes, [o, _, _]) = (parameters.sizes, &mut scratch.dense);
    let [q, k, v] = operands(parameters, place.head, qkv, &mut scratch.qkv);
    let mut both = [&[][..]; 2];
    let biases = parameters.biases(place.window, place.head, &mut both);
    attend(tile, sizes.head(), q, k, v, biases, p, o, &mut scratch.attention);
    narrow_rows(o, sizes.head_width(), out, stride);
}

/// Stores the gradients of a head's queries, keys and values, given that of its output, and adds to the gradients of its
/// parameters.
///
/// # Shapes
/// `qkv` `[M, 3D]`, `p` `[M, M]`, `d_o` `[M, D]`, `out` `[M, E]` for each part.
pub(super) fn attend_head_backward<T: ActivationDtype>(
    tile: Tile,
    parameters: &AttentionParameters,
    qkv: &[T],
    p: &[T],
    d_o: &[T],
    gradients: &mut HeadGradients,
    out: HeadRows<T>,
    scratch: &mut HeadScratch<T>,
) {
    let (sizes, head) = (parameters.sizes, gradients.head);
    let width = sizes.head_width();
    let [q, k, v] = operands(parameters, head, qkv, &mut scratch.qkv);
    let d_o = HeadColumns { rows: &d_o[head * width..], stride: padded::<T>(sizes.width), width };
    let d_o = operand(parameters, d_o, RowScale::By(1.0), false, &mut scratch.d_o);
    let d_bias = Some(&mut *gradients.d_position_bias).filter(|d_bias| !d_bias.is_empty());
    let [d_q, d_k, d_v] = &mut scratch.dense;
    attend_backward(tile, sizes.head(), q, k, v, p, d_o, d_q, d_k, d_v, d_bias, &mut scratch.attention);
    for (part, (d, scale)) in scratch.dense.iter_mut().zip(parameters.gradient_scales(head)).enumerate() {
        if part < 2 {
            parameters.rotate(d, width, Turn::Back);
        }
        let d_log = scale_backward(parameters.columns(qkv, part, head), scale, d);
        if part == 0 && parameters.has_free_logit_scale(head) {
            gradients.d_logit_scale += d_log;
        }
        narrow_rows(d, width, &mut out.values[part * out.part..], out.stride);
    }
}

/// A head's queries, keys and values, scaled and turned.
fn operands<'a, T: ActivationDtype>(
    parameters: &AttentionParameters,
    head: usize,
    qkv: &'a [T],
    scratch: &'a mut [Buffer<T>; 3],
) -> [Matrix<'a, T>; 3] {
    let [q_scale, k_scale, v_scale] = parameters.scales(head);
    let turns = parameters.has_angles();
    let [of_q, of_k, of_v] = scratch;
    let columns = |part| parameters.columns(qkv, part, head);
    [
        operand(parameters, columns(0), q_scale, turns, of_q),
        operand(parameters, columns(1), k_scale, turns, of_k),
        operand(parameters, columns(2), v_scale, false, of_v),
    ]
}

/// The columns as they are, if nothing is to be done with them and their rows are whole lanes, or else a copy in `scratch`.
fn operand<'a, T: ActivationDtype>(
    parameters: &AttentionParameters,
    columns: HeadColumns<'a, T>,
    scale: RowScale,
    turns: bool,
    scratch: &'a mut [T],
) -> Matrix<'a, T> {
    let (tokens, width) = (parameters.sizes.window_tokens, columns.width);
    if scale == RowScale::By(1.0) && !turns && width.is_multiple_of(T::PER_LANE) {
        return Matrix::strided(columns.rows, tokens, width, columns.stride);
    }
    copy_scaled(columns, scale, scratch);
    if turns {
        parameters.rotate(scratch, padded::<T>(width), Turn::Forth);
    }
    Matrix::new(scratch, tokens, width)
}
