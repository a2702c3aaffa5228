//! The columns of one head in rows of several heads, such as the joint projection's `[N, 3D]`: copied to rows of their own,
//! `[M, E]`, and scaled.
//!
//! The rows of a window follow each other, or slots name the row in each place of the window. A slot that names no row is
//! padding. The input of padding is zero, so its joint projection is the bias alone.

use crate::dtype::{Dtype, padded};
use crate::reductions::dot;
use multiversion::multiversion;

/// A shorter row is divided by this instead of its norm, as in PyTorch's `normalize`.
const MIN_NORM: f32 = 1e-12;

/// The columns of one head in rows of several heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadColumns<'a, T> {
    /// The rows' slice from the head's first column on.
    pub rows: &'a [T],
    /// Distance between rows, in values.
    pub stride: usize,
    /// Head width, `E`.
    pub width: usize,
    /// The rows of the window; without them, they are the first ones.
    pub slots: Option<Slots<'a, T>>,
}

/// Which rows the places of a window are.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a, T> {
    /// The number of the row in each place, `[M]`.
    pub rows: &'a [u32],
    /// How many rows there are; this number and larger ones are padding.
    pub count: usize,
    /// The head's values in a row of padding, `[E]`.
    pub padding: &'a [T],
}

impl<'a, T: Dtype> HeadColumns<'a, T> {
    /// The head's values in a place of the window, `[E]`.
    #[inline(always)]
    fn row(&self, place: usize) -> &'a [T] {
        let row = match self.slots {
            None => place,
            Some(slots) => match slots.rows[place] as usize {
                row if row < slots.count => row,
                _ => return &slots.padding[..self.width],
            },
        };
        &self.rows[row * self.stride..][..self.width]
    }
}

/// How copied rows are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowScale {
    /// All rows are multiplied by one factor.
    By(f32),
    /// Each row is scaled to this norm.
    ToLength(f32),
}

/// Copies the head's columns of a window's rows to `out` and scales them.
///
/// # Shapes
/// `out` `[M, E]`, stored in whole lanes that are filled up with zeros; its length says how many rows are copied.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn copy_scaled<T: Dtype>(from: HeadColumns<T>, scale: RowScale, out: &mut [T]) {
    // with the usual head widths as constants, a row is a few loads and stores instead of a call
    match from.width {
        32 => copy_scaled_rows::<T, 32>(from, scale, out),
        64 => copy_scaled_rows::<T, 64>(from, scale, out),
        width => {
            for (place, out) in out.chunks_exact_mut(padded::<T>(width)).enumerate() {
                let (out, filling) = out.split_at_mut(width);
                filling.fill(T::default());
                scale_row(from.row(place), scale, out);
            }
        }
    }
}

/// Specification of [`copy_scaled`].
pub fn copy_scaled_naive<T: Dtype>(from: HeadColumns<T>, scale: RowScale, out: &mut [T]) {
    let columns = padded::<T>(from.width);
    for (at, out) in out.iter_mut().enumerate() {
        let (row, e) = (from.row(at / columns), at % columns);
        let factor = match scale {
            RowScale::By(factor) => factor as f64,
            RowScale::ToLength(length) => length as f64 / norm_naive(row),
        };
        *out = if e < from.width { T::narrowed((row[e].widened() as f64 * factor) as f32) } else { T::default() };
    }
}

#[inline(always)]
fn copy_scaled_rows<T: Dtype, const WIDTH: usize>(from: HeadColumns<T>, scale: RowScale, out: &mut [T]) {
    for (place, out) in out.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
        if let Some(row) = from.row(place).first_chunk::<WIDTH>() {
            match scale {
                RowScale::By(1.0) => *out = *row,
                RowScale::By(_) | RowScale::ToLength(_) => scale_row(row, scale, out),
            }
        }
    }
}

#[inline(always)]
fn scale_row<T: Dtype>(row: &[T], scale: RowScale, out: &mut [T]) {
    let factor = match scale {
        RowScale::By(factor) => factor,
        RowScale::ToLength(length) => length / norm(row),
    };
    for (out, value) in out.iter_mut().zip(row) {
        *out = T::narrowed(value.widened() * factor);
    }
}

#[inline(always)]
fn norm<T: Dtype>(row: &[T]) -> f32 {
    let mut lanes = [0.0f32; 16]; // the compiler may not reorder float sums by itself
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v.widened() * v.widened();
        }
    }
    let rest: f32 = rest.iter().map(|v| v.widened() * v.widened()).sum();
    (lanes.iter().sum::<f32>() + rest).sqrt().max(MIN_NORM)
}

fn norm_naive<T: Dtype>(row: &[T]) -> f64 {
    row.iter().map(|v| (v.widened() as f64).powi(2)).sum::<f64>().sqrt().max(MIN_NORM as f64)
}

/// Replaces the gradient of scaled rows by that of the rows before they were scaled, and returns the gradient of `ln
/// length`.
///
/// # Shapes
/// `d` `[M, E]`, dense.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn scale_backward<T: Dtype>(from: HeadColumns<T>, scale: RowScale, d: &mut [f32]) -> f32 {
    match scale {
        RowScale::By(1.0) => 0.0,
        RowScale::By(factor) => {
            d.iter_mut().for_each(|d| *d *= factor);
            0.0
        }
        RowScale::ToLength(length) => {
            let mut d_log_length = 0.0;
            let mut unit = vec![0.0; from.width];
            for (place, d) in d.chunks_exact_mut(from.width).enumerate() {
                let row = from.row(place);
                let inverse = 1.0 / norm(row);
                for (unit, value) in unit.iter_mut().zip(row) {
                    *unit = value.widened() * inverse;
                }
                let along = dot::<false>(&unit, d);
                for (d, unit) in d.iter_mut().zip(&unit) {
                    *d = length * inverse * (*d - along * *unit);
                }
                d_log_length += along * length;
            }
            d_log_length
        }
    }
}

/// Specification of [`scale_backward`]: a product with the Jacobian, whose elements are `l·(δ_ij/‖x‖ − x_i x_j/‖x‖³)`
/// for length `l`.
pub fn scale_backward_naive<T: Dtype>(from: HeadColumns<T>, scale: RowScale, d: &mut [f32]) -> f32 {
    let mut d_log_length = 0.0;
    for (place, d) in d.chunks_exact_mut(from.width).enumerate() {
        let row = from.row(place);
        let (norm, x) = (norm_naive(row), |i: usize| row[i].widened() as f64);
        let slope = |i: usize, j: usize| {
            let delta = if i == j { 1.0 } else { 0.0 };
            match scale {
                RowScale::By(factor) => delta * factor as f64,
                RowScale::ToLength(length) => length as f64 * (delta / norm - x(i) * x(j) / norm.powi(3)),
            }
        };
        if let RowScale::ToLength(length) = scale {
            d_log_length += (0..from.width).map(|i| d[i] as f64 * length as f64 * x(i) / norm).sum::<f64>();
        }
        let gradient = |i: usize| (0..from.width).map(|j| d[j] as f64 * slope(i, j)).sum::<f64>() as f32;
        let gradient: Vec<f32> = (0..from.width).map(gradient).collect();
        d.copy_from_slice(&gradient);
    }
    d_log_length as f32
}

/// Stores the row of each slot at its place among dense rows, and adds the rows of padding to `padding`.
///
/// # Shapes
/// `rows` `[M, E]` → `out` `[N, E]`; `padding` `[E]`, or empty if nobody reads it.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn scatter<T: Dtype>(rows: &[f32], width: usize, slots: &[u32], out: &mut [T], padding: &mut [f32]) {
    for (slot, row) in slots.iter().zip(rows.chunks_exact(width)) {
        match out.get_mut(*slot as usize * width..(*slot as usize + 1) * width) {
            Some(out) => out.iter_mut().zip(row).for_each(|(out, value)| *out = T::narrowed(*value)),
            None => padding.iter_mut().zip(row).for_each(|(sum, value)| *sum += *value),
        }
    }
}

/// Specification of [`scatter`].
pub fn scatter_naive<T: Dtype>(rows: &[f32], width: usize, slots: &[u32], out: &mut [T], padding: &mut [f32]) {
    for (at, value) in rows.iter().enumerate() {
        let (slot, e) = (slots[at / width] as usize, at % width);
        if slot < out.len() / width {
            out[slot * width + e] = T::narrowed(*value);
        } else if !padding.is_empty() {
            padding[e] += *value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Bf16;
    use crate::testing::{assert_close, numbers};

    fn check<T: Dtype>(tolerance: f32) {
        let values = |stored: &[T]| stored.iter().map(|v| v.widened()).collect::<Vec<_>>();
        for width in [3, 32, 64, 70] {
            let (rows, stride) = (4, 2 * width);
            let stored =
                |count: usize, seed: u64| numbers(count, seed).into_iter().map(T::narrowed).collect::<Vec<_>>();
            let (source, padding) = (stored(rows * stride, 1), stored(width, 2));
            let slots = Slots { rows: &[3, 0, 4, 2], count: rows, padding: &padding };
            let scales = [RowScale::By(1.0), RowScale::By(-0.3), RowScale::ToLength(5.0)];
            for (scale, slots) in scales.into_iter().flat_map(|scale| [(scale, None), (scale, Some(slots))]) {
                let from = HeadColumns { rows: &source[width..], stride, width, slots };
                let [mut fast, mut naive] = [8.0, 9.0].map(|v| vec![T::narrowed(v); rows * padded::<T>(width)]);
                copy_scaled(from, scale, &mut fast);
                copy_scaled_naive(from, scale, &mut naive);
                assert_close(&values(&fast), &values(&naive), tolerance);

                let mut d_fast = numbers(rows * width, 3);
                let mut d_naive = d_fast.clone();
                let got = scale_backward(from, scale, &mut d_fast);
                let expected = scale_backward_naive(from, scale, &mut d_naive);
                assert_close(&d_fast, &d_naive, 2e-6);
                assert_close(&[got], &[expected], 1e-5); // a sum over rows, some positive and some negative
            }
            for of_padding in [numbers(width, 5), Vec::new()] {
                let [mut fast, mut naive] = [(); 2].map(|_| (vec![T::default(); rows * width], of_padding.clone()));
                scatter(&numbers(rows * width, 4), width, slots.rows, &mut fast.0, &mut fast.1);
                scatter_naive(&numbers(rows * width, 4), width, slots.rows, &mut naive.0, &mut naive.1);
                assert_eq!(fast, naive);
            }
        }
    }

    #[test]
    fn moves_equal_naive_at_any_width() {
        check::<f32>(1e-6);
        check::<Bf16>(4e-3); // 8 bits of mantissa
    }

    #[test]
    fn columns_of_a_head_are_copied_scaled_and_scattered_back() {
        let (rows, width, stride) = (4, 3, 10);
        let source = numbers(rows * stride, 1);
        let padding = [9.0, 8.0, 7.0];
        let slots = Slots { rows: &[3, 0, 4, 2], count: rows, padding: &padding };
        let in_order = HeadColumns { rows: &source[2..], stride, width, slots: None };
        let by_slots = HeadColumns { slots: Some(slots), ..in_order };
        let at = |row: usize, e: usize| if row < rows { source[row * stride + 2 + e] } else { padding[e] };
        let mut out = vec![1.0; rows * width];
        for (from, order) in [(in_order, [0, 1, 2, 3]), (by_slots, [3, 0, 4, 2])] {
            copy_scaled(from, RowScale::ToLength(5.0), &mut out);
            for row in out.chunks(3) {
                assert!((row.iter().map(|v| v * v).sum::<f32>().sqrt() - 5.0).abs() < 1e-5);
            }
            copy_scaled(from, RowScale::By(2.0), &mut out);
            let expected: Vec<f32> = order.iter().flat_map(|row| (0..3).map(move |e| 2.0 * at(*row, e))).collect();
            assert_eq!(out, expected);
        }

        let (mut back, mut of_padding) = (vec![0.0; rows * width], vec![0.5; 3]);
        scatter(&out, width, slots.rows, &mut back, &mut of_padding);
        assert_eq!(back[..3], out[3..6]);
        assert_eq!(back[3..6], [0.0; 3]);
        assert_eq!(of_padding, [18.5, 16.5, 14.5]);
    }

    #[test]
    fn the_gradient_of_a_length_equals_finite_differences() {
        let (source, d) = (numbers(6, 1), numbers(6, 2));
        let objective = |source: &[f32], length: f32| -> f64 {
            let from = HeadColumns { rows: source, stride: 3, width: 3, slots: None };
            let mut out = vec![0.0; 6];
            copy_scaled(from, RowScale::ToLength(length), &mut out);
            out.iter().zip(&d).map(|(o, d)| *o as f64 * *d as f64).sum()
        };
        let from = HeadColumns { rows: &source, stride: 3, width: 3, slots: None };
        let mut d_source = d.clone();
        let d_log = scale_backward(from, RowScale::ToLength(2.0), &mut d_source);
        let step = 1e-3;
        let expected: Vec<f32> = (0..6)
            .map(|i| {
                let (mut up, mut down) = (source.clone(), source.clone());
                up[i] += step;
                down[i] -= step;
                ((objective(&up, 2.0) - objective(&down, 2.0)) / (2.0 * step as f64)) as f32
            })
            .collect();
        assert_close(&d_source, &expected, 2e-3);
        let by_length =
            (objective(&source, 2.0 * step.exp()) - objective(&source, 2.0 * (-step).exp())) / (2.0 * step as f64);
        assert!((d_log as f64 - by_length).abs() < 2e-3, "{d_log} {by_length}");
    }
}
