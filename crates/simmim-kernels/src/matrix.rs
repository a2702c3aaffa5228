//! A row-major matrix of stored operands in a borrowed slice.

use crate::dtype::{Dtype, padded};

/// A matrix whose element `(i, k)` is `data[i * stride + k]`.
///
/// Kernels read rows in whole lanes (see [`padded`]), so the values that fill a row's last lane must be zero.
/// Everything after them, up to the next row, is never read.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, T: Dtype> Matrix<'a, T> {
    /// A dense matrix: rows are `padded(columns)` apart.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, padded::<T>(columns))
    }

    /// A matrix whose rows are `stride` apart.
    ///
    /// # Panics
    /// If the slice ends before the last lane, or `stride` is no whole number of lanes.
    pub fn strided(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * stride + padded::<T>(columns) };
        let len = data.len();
        assert!(len >= needed, "a {rows}×{columns} matrix with stride {stride} needs {needed} values, got {len}");
        assert!(stride.is_multiple_of(T::PER_LANE), "rows are whole lanes, got a stride of {stride}");
        Self { data, rows, columns, stride }
    }

    /// Rows `first .. first + count`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn rows_from(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "rows {first}+{count} of {}", self.rows);
        Self { data: &self.data[first * self.stride..], rows: count, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, without the zeros that fill the last lane.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Distance between rows, in values.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The borrowed slice, which starts with element `(0, 0)`.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// Row `i`, without the zeros that fill its last lane.
    pub fn row(&self, i: usize) -> &'a [T] {
        &self.data[i * self.stride..][..self.columns]
    }

    /// Element `(i, k)`.
    pub fn at(&self, i: usize, k: usize) -> f32 {
        self.row(i)[k].widened()
    }
}
