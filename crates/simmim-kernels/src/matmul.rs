//! A product of two matrices of any layout, packed on the way.
//!
//! For operands that are used once, as in attention. Weights are packed once per update instead and go
//! to [`product`] directly.

use crate::bf16::Operands;
use crate::matrix::Matrix;
use crate::pack::{pack, packed_len};
use crate::product::{Rows, Start, Tile, product};

/// Room for packed operands; grows as needed and is kept by the caller.
#[derive(Debug)]
pub struct Scratch {
    tile: Tile,
    panels: Vec<f32>,
    blocks: Vec<f32>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { tile: Tile::detect(), panels: Vec::new(), blocks: Vec::new() }
    }
}

/// `C = start + A·B`, with `C` row-major and its rows `c_stride` apart.
///
/// # Panics
/// If the inner sizes differ or `c` is too short.
pub fn matmul(a: Matrix, b: Matrix, c: &mut [f32], c_stride: usize, start: Start, scratch: &mut Scratch) {
    assert_eq!(a.columns(), b.rows(), "inner sizes of a product differ");
    let (depth, tile) = (a.columns(), scratch.tile);
    let panels = room(&mut scratch.panels, packed_len(depth, b.columns(), tile.width()));
    pack(b, tile.width(), 0, Operands::F32, panels);
    let rows = if a.column_stride() == 1 {
        Rows::InPlace(a)
    } else {
        let blocks = room(&mut scratch.blocks, packed_len(depth, a.rows(), tile.height()));
        pack(a.transposed(), tile.height(), 0, Operands::F32, blocks);
        Rows::Packed { blocks, rows: a.rows(), depth }
    };
    product(tile, rows, panels, depth, 0..depth, b.columns(), c, c_stride, start);
}

fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::product_naive;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn product_equals_naive_for_every_layout_and_awkward_size() {
        let mut scratch = Scratch::default();
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (50, 40, 40), (197, 64, 197), (33, 200, 65), (3, 1, 9)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let layouts = [
                (Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, k, n)),
                (Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed()),
                (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, n, k).transposed()),
            ];
            for (a, b) in layouts {
                for start in [Start::Zero, Start::Old] {
                    let stride = n + 2;
                    let mut fast = numbers(m * stride, 3);
                    let mut naive = fast.clone();
                    matmul(a, b, &mut fast, stride, start, &mut scratch);
                    product_naive(a, b, 0..k, &mut naive, stride, start);
                    assert_close(&fast, &naive, 2e-6); // sums of up to 200 f32 products
                }
            }
        }
    }
}
