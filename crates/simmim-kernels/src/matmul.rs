//! Matrix products on strided views.
//!
//! A product is single-threaded: the caller gives each thread whole images or whole rows of the
//! result, so that nothing waits inside a product and sums have one order.

use gemmkit::{MatMut, MatRef, Parallelism, gemm};

/// A matrix in somebody's slice: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A dense row-major matrix `[rows, columns]`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    ///
    /// # Panics
    /// If the slice ends before the last element.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(
            data.len() >= needed,
            "a {rows}×{columns} matrix with stride {row_stride} needs {needed} values, got {}",
            data.len()
        );
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values read as their transpose; nothing is copied.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.column_stride]
    }

    fn view(&self) -> MatRef<'a, f32> {
        MatRef::new(self.data, self.rows, self.columns, self.row_stride as isize, self.column_stride as isize)
    }
}

/// What a product does with the values already in its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// `C = A·B`: the old values are not read.
    Overwrite,
    /// `C += A·B`.
    Add,
}

/// `C = A·B` or `C += A·B`, with `C` row-major and its rows `c_stride` apart.
///
/// # Panics
/// If the inner sizes differ or `c` is too short.
pub fn matmul(a: Matrix, b: Matrix, c: &mut [f32], c_stride: usize, into: Into) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product differ");
    let beta = match into {
        Into::Overwrite => 0.0,
        Into::Add => 1.0,
    };
    let c = MatMut::new(c, a.rows, b.columns, c_stride as isize, 1);
    gemm(1.0, a.view(), b.view(), beta, c, Parallelism::Serial);
}

/// Specification of [`matmul`].
pub fn matmul_naive(a: Matrix, b: Matrix, c: &mut [f32], c_stride: usize, into: Into) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product differ");
    for i in 0..a.rows {
        for j in 0..b.columns {
            let sum: f64 = (0..a.columns).map(|k| a.at(i, k) as f64 * b.at(k, j) as f64).sum();
            let old = match into {
                Into::Overwrite => 0.0,
                Into::Add => c[i * c_stride + j],
            };
            c[i * c_stride + j] = old + sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn product_equals_naive_for_every_layout_and_awkward_size() {
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (50, 40, 40), (197, 64, 197), (33, 200, 65), (3, 1, 9)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let layouts = [
                (Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, k, n)),
                (Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed()),
                (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, n, k).transposed()),
            ];
            for (a, b) in layouts {
                for into in [Into::Overwrite, Into::Add] {
                    let stride = n + 2;
                    let mut fast = numbers(m * stride, 3);
                    let mut naive = fast.clone();
                    matmul(a, b, &mut fast, stride, into);
                    matmul_naive(a, b, &mut naive, stride, into);
                    assert_close(&fast, &naive, 2e-6); // sums of up to 200 f32 products
                }
            }
        }
    }
}
