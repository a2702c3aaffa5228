//! A row-major matrix of stored operands in a borrowed slice.

use crate::dtype::{Dtype, padded};

/// Values from the first one of `rows` rows, `stride` apart, to the last one of `columns` in the last row; none if there is
/// no row or no column.
///
/// # Panics
/// If there are more than memory could hold.
pub(crate) fn len_of_rows(rows: usize, stride: usize, columns: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let last = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(columns));
    last.unwrap_or_else(|| panic!("{rows} rows of {columns} values, {stride} apart, are more than memory holds"))
}

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
        let needed = len_of_rows(rows, stride, padded::<T>(columns));
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
        assert!(count <= self.rows && first <= self.rows - count, "rows {first}+{count} of {}", self.rows);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_with_their_last_column() {
        assert_eq!(len_of_rows(3, 10, 4), 24);
        assert_eq!((len_of_rows(0, 10, 4), len_of_rows(3, 10, 0)), (0, 0));
    }

    #[test]
    #[should_panic(expected = "more than memory holds")]
    fn a_stride_that_wraps_around_is_refused() {
        Matrix::strided(&[0.0f32], 4, 1, usize::MAX / 3 + 1);
    }

    #[test]
    #[should_panic(expected = "of 1")]
    fn rows_whose_end_wraps_around_are_refused() {
        Matrix::strided(&[0.0f32], 1, 1, 1 << 60).rows_from(usize::MAX - 15, 17);
    }
}
