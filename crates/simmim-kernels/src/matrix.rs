//! A row-major matrix of stored operands in somebody's slice.

use crate::element::{Element, padded};

/// Element `(i, k)` is `data[i * stride + k]`; what lies between the last column and the next row is not
/// looked at, except that rows are read in whole lanes (see [`padded`]), so the filling must be zero.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, E> {
    data: &'a [E],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, E: Element> Matrix<'a, E> {
    /// Dense rows of whole lanes: rows are `padded(columns)` apart.
    pub fn new(data: &'a [E], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, padded::<E>(columns))
    }

    /// Rows that are `stride` apart.
    ///
    /// # Panics
    /// If the slice ends before the last lane, or rows are no whole number of lanes apart.
    pub fn strided(data: &'a [E], rows: usize, columns: usize, stride: usize) -> Self {
        let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * stride + padded::<E>(columns) };
        let len = data.len();
        assert!(len >= needed, "a {rows}×{columns} matrix with stride {stride} needs {needed} values, got {len}");
        assert!(stride.is_multiple_of(E::PER_LANE), "rows are whole lanes, got a stride of {stride}");
        Self { data, rows, columns, stride }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, without filling.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Distance of rows, in values.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The slice behind it, from element `(0, 0)` on.
    pub fn data(&self) -> &'a [E] {
        self.data
    }

    /// Row `i`, without filling.
    pub fn row(&self, i: usize) -> &'a [E] {
        &self.data[i * self.stride..][..self.columns]
    }

    /// Element `(i, k)`.
    pub fn at(&self, i: usize, k: usize) -> f32 {
        self.row(i)[k].value()
    }
}
