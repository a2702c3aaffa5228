//! One head in one window, on rows of all heads, in both directions.

use super::layout::AttentionSizes;
use super::parameters::AttentionParameters;
use super::scratch::HeadScratch;
use crate::buffer_pool::Buffer;
use crate::pools::{ActivationDtype, BufferPools};
use simmim_kernels::attention::{attend, attend_backward};
use simmim_kernels::dtype::padded;
use simmim_kernels::epilogue::narrow_rows;
use simmim_kernels::heads::{HeadColumns, RowScale, copy_scaled, scale_backward, scatter};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::product::Tile;
use simmim_kernels::rotary::Turn;

/// A head in a window of the batch.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) window: usize,
    pub(super) head: usize,
}

/// Where the gradients of a head's queries, keys and values are stored: in rows of a window's group.
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
    /// Of padding's queries, keys and values, `[3, E]`, which are the bias of the joint projection.
    pub(super) d_padding: Vec<f32>,
}

impl HeadGradients {
    pub(super) fn zeros(pools: &BufferPools, sizes: &AttentionSizes, head: usize, has_position_bias: bool) -> Self {
        let len = if has_position_bias { sizes.scores_len() } else { 0 };
        Self {
            head,
            d_position_bias: pools.f32.zeros(len),
            d_logit_scale: 0.0,
            d_padding: vec![0.0; 3 * sizes.head_width()],
        }
    }
}

/// Stores the output of a head.
///
/// # Shapes
/// `qkv` `[R/G, 3D]`, `out` `[R/G, E]`, rows `stride` apart; the attention weights are saved in `p`, `[M, M]`, unless it is
/// empty.
pub(super) fn attend_head<T: ActivationDtype>(
    tile: Tile,
    parameters: &AttentionParameters<T>,
    place: Place,
    qkv: &[T],
    p: &mut [T],
    (out, stride): (&mut [T], usize),
    scratch: &mut HeadScratch<T>,
) {
    let (sizes, [o, _, _]) = (parameters.sizes, &mut scratch.dense);
    let [q, k, v] = operands(parameters, place, qkv, &mut scratch.qkv);
    let mut both = [&[][..]; 2];
    let biases = parameters.biases(place, &mut both);
    attend(tile, sizes.head(), q, k, v, biases, p, o, &mut scratch.attention);
    store(&sizes, o, parameters.slots(place.window), out, stride, &mut []);
}

/// Stores the gradients of a head's queries, keys and values, given that of its output, and adds to the gradients of its
/// parameters.
///
/// # Shapes
/// `qkv` `[R/G, 3D]`, `p` `[M, M]`, `d_o` `[R/G, D]`, `out` `[R/G, E]` for each part.
pub(super) fn attend_head_backward<T: ActivationDtype>(
    tile: Tile,
    parameters: &AttentionParameters<T>,
    window: usize,
    qkv: &[T],
    p: &[T],
    d_o: &[T],
    gradients: &mut HeadGradients,
    out: HeadRows<T>,
    scratch: &mut HeadScratch<T>,
) {
    let (sizes, place) = (parameters.sizes, Place { window, head: gradients.head });
    let (head, width) = (place.head, sizes.head_width());
    let [q, k, v] = operands(parameters, place, qkv, &mut scratch.qkv);
    let d_o =
        operand(parameters, parameters.columns_of_gradient(d_o, place), RowScale::By(1.0), false, &mut scratch.d_o);
    let d_bias = Some(&mut *gradients.d_position_bias).filter(|d_bias| !d_bias.is_empty());
    let [d_q, d_k, d_v] = &mut scratch.dense;
    attend_backward(tile, sizes.head(), q, k, v, p, d_o, d_q, d_k, d_v, d_bias, &mut scratch.attention);
    for (part, (d, scale)) in scratch.dense.iter_mut().zip(parameters.gradient_scales(head)).enumerate() {
        if part < 2 {
            parameters.rotate(d, width, Turn::Back);
        }
        let d_log = scale_backward(parameters.columns(qkv, part, place), scale, d);
        if part == 0 && parameters.has_free_logit_scale(head) {
            gradients.d_logit_scale += d_log;
        }
        let (values, d_padding) =
            (&mut out.values[part * out.part..], &mut gradients.d_padding[part * width..][..width]);
        store(&sizes, d, parameters.slots(window), values, out.stride, d_padding);
    }
}

/// Stores the rows of a head, `[M, E]`, in those of the window's group, and adds those of padding to `padding`, unless it is empty.
/// With slots, the group's rows must be dense.
fn store<T: ActivationDtype>(
    sizes: &AttentionSizes,
    rows: &[f32],
    slots: Option<&[u32]>,
    out: &mut [T],
    stride: usize,
    padding: &mut [f32],
) {
    match slots {
        None => narrow_rows(rows, sizes.head_width(), out, stride),
        Some(slots) => scatter(rows, sizes.head_width(), slots, &mut out[..sizes.head_len()], padding),
    }
}

/// A head's queries, keys and values, scaled and turned.
fn operands<'a, T: ActivationDtype>(
    parameters: &'a AttentionParameters<T>,
    place: Place,
    qkv: &'a [T],
    scratch: &'a mut [Buffer<T>; 3],
) -> [Matrix<'a, T>; 3] {
    let [q_scale, k_scale, v_scale] = parameters.scales(place.head);
    let turns = parameters.has_angles();
    let [of_q, of_k, of_v] = scratch;
    let columns = |part| parameters.columns(qkv, part, place);
    [
        operand(parameters, columns(0), q_scale, turns, of_q),
        operand(parameters, columns(1), k_scale, turns, of_k),
        operand(parameters, columns(2), v_scale, false, of_v),
    ]
}

/// The columns as they are, if nothing is to be done with them and their rows are whole lanes and follow each other, or else a
/// copy in `scratch`.
fn operand<'a, T: ActivationDtype>(
    parameters: &AttentionParameters<T>,
    columns: HeadColumns<'a, T>,
    scale: RowScale,
    turns: bool,
    scratch: &'a mut [T],
) -> Matrix<'a, T> {
    let (tokens, width) = (parameters.sizes.window_tokens, columns.width);
    if scale == RowScale::By(1.0) && !turns && columns.slots.is_none() && width.is_multiple_of(T::PER_LANE) {
        return Matrix::strided(columns.rows, tokens, width, columns.stride);
    }
    copy_scaled(columns, scale, scratch);
    if turns {
        parameters.rotate(scratch, padded::<T>(width), Turn::Forth);
    }
    Matrix::new(scratch, tokens, width)
}
