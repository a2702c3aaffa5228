//! The product of two packed operands, whose depth may be divided into segments: the gradient of a weight, whose depth is
//! all tokens, and those of attention.

use super::tile::Unit;
use super::{Accumulator, NextPanel, Tile, TileJob, check, tile_accumulator, tiles};
use crate::dtype::Dtype;
use crate::elementwise::sum_of_squares;
use crate::matrix::Matrix;
use crate::pack::Packed;

/// Lanes of `A` that are multiplied with all panels before the next lanes are: 192 KiB, which is less than half of the
/// second-level cache of any CPU with AVX2 made since 2017.
const CHUNK_LANES: usize = 48 * 1024;

/// Steps that are summed up in one pass through `C`: a block of A of that many stays in the first-level cache, and a
/// panel in the second-level one.
const PASS_STEPS: usize = 512;

/// How much of two packed operands is multiplied at a time.
struct Passes {
    /// Segments that are summed up in one pass through `C`.
    segments: usize,
    /// Blocks of `A` that are multiplied with all panels before the next blocks are.
    blocks: usize,
}

impl Passes {
    /// Those of an operand in blocks of `height` rows.
    fn of(a: &Packed, height: usize) -> Self {
        let segments = (PASS_STEPS / a.steps().max(1)).clamp(1, a.segments().max(1));
        Self { segments, blocks: (CHUNK_LANES / (segments * a.steps() * height).max(1)).max(1) }
    }
}

/// `C = accumulator + Aᵀ·B` with both operands packed over the same segments of the depth, for rows `first_row ..` of
/// the result, as many as `c` has.
///
/// # Shapes
/// `a` packed from `[K, M]` in [`Tile::blocks`], `b` from `[K, N]` in [`Tile::panels`]; `c` row-major `[rows, N]`,
/// dense.
///
/// # Panics
/// If sizes do not fit together, or `first_row` is no first row of a block.
pub fn product_of_packed<T: Dtype>(
    tile: Tile,
    a: Packed,
    first_row: usize,
    b: Packed,
    c: &mut [f32],
    accumulator: Accumulator,
) {
    product_and_squares::<T>(tile, a, first_row, b, c, accumulator, None);
}

/// [`product_of_packed`], which returns the sums of the squares of `C` as well: one for each block of [`Tile::height`] rows.
/// They are computed while the block is in a cache, and do not depend on how many blocks `c` has.
///
/// # Panics
/// As [`product_of_packed`].
pub fn product_of_packed_with_squares<T: Dtype>(
    tile: Tile,
    a: Packed,
    first_row: usize,
    b: Packed,
    c: &mut [f32],
    accumulator: Accumulator,
) -> Vec<f64> {
    let rows = c.len() / b.columns().max(1);
    let mut squares = vec![0.0; rows.div_ceil(tile.height::<T>())];
    product_and_squares::<T>(tile, a, first_row, b, c, accumulator, Some(&mut squares));
    squares
}

/// [`product_of_packed`], which adds the squares of each block to `squares`, if they are asked for.
fn product_and_squares<T: Dtype>(
    tile: Tile,
    a: Packed,
    first_row: usize,
    b: Packed,
    c: &mut [f32],
    accumulator: Accumulator,
    mut squares: Option<&mut [f64]>,
) {
    let columns = b.columns();
    if c.is_empty() || columns == 0 {
        return;
    }
    let rows = c.len() / columns;
    let layout = tile.panels::<T>(0, columns);
    let (width, height) = (layout.width(), tile.height::<T>());
    assert!(a.segments() == b.segments() && a.steps() == b.steps(), "both operands have the same depth");
    assert!(a.width() == height && first_row.is_multiple_of(height), "A is packed in blocks of {height}");
    let all = a.columns();
    assert!(rows <= all && first_row <= all - rows, "rows {first_row}+{rows} of {all}");
    check(&layout, &b, rows, c, columns, accumulator);
    if a.segments() == 0 {
        // an empty sum
        c.iter_mut().enumerate().for_each(|(at, c)| *c = accumulator.value(*c, at % columns));
        add_squares_of_blocks(c, height * columns, squares);
        return;
    }
    let kernels = match tile.unit(T::KIND) {
        #[cfg(target_arch = "x86_64")]
        Unit::Amx(unit) => return tiles::product_of_packed(unit, a, first_row, b, c, accumulator, squares),
        Unit::AmxModel(unit) => return tiles::product_of_packed(unit, a, first_row, b, c, accumulator, squares),
        Unit::Vectors(kernels) => kernels,
    };
    let first_block = first_row / height;
    let blocks = rows.div_ceil(height);
    let Passes { segments: pass, blocks: chunk } = Passes::of(&a, height);
    for segment in (0..a.segments()).step_by(pass) {
        let segments = pass.min(a.segments() - segment);
        let accumulator = if segment == 0 { accumulator } else { Accumulator::Output };
        for first in (0..blocks).step_by(chunk) {
            let end = blocks.min(first + chunk);
            for panel in 0..b.groups() {
                let left = panel * width;
                let lanes = b.lanes_from(segment, panel);
                let next = lanes.as_ptr().wrapping_add(a.steps() * width);
                for block in first..end {
                    let top = block * height;
                    // SAFETY: `tile` proves that the CPU has the instructions. The block and the panel have `steps`
                    // steps in each of the segments, as asserted above, and their lanes follow their first one in one
                    // slice. C has `rows` rows of `columns` values and a bias as many, as asserted in `check`.
                    unsafe {
                        kernels[height.min(rows - top) - 1](&TileJob {
                            a: a.lanes_from(segment, first_block + block).as_ptr(),
                            a_row: 1,
                            a_step: height,
                            a_segment: a.segment_lanes(),
                            b: lanes.as_ptr(),
                            b_segment: b.segment_lanes(),
                            segments,
                            steps: a.steps(),
                            c: c.as_mut_ptr().add(top * columns + left),
                            c_stride: columns,
                            columns: width.min(columns - left),
                            accumulator: tile_accumulator(accumulator, left),
                            ahead: NextPanel::of_tile(block - first, end - first, next, a.steps(), width),
                        });
                    }
                }
            }
            if segment + segments == a.segments() {
                let c = &c[first * height * columns..rows.min(end * height) * columns];
                add_squares_of_blocks(c, height * columns, squares.as_deref_mut().map(|all| &mut all[first..end]));
            }
        }
    }
}

/// Adds the squares of each block of `len` values to its sum.
pub(super) fn add_squares_of_blocks(c: &[f32], len: usize, squares: Option<&mut [f64]>) {
    for (block, squares) in c.chunks(len).zip(squares.unwrap_or_default()) {
        *squares += sum_of_squares(block);
    }
}

/// Specification of [`product_of_packed`], on unpacked operands `[K, M]` and `[K, N]`.
pub fn product_of_packed_naive<T: Dtype>(
    a: Matrix<T>,
    first_row: usize,
    b: Matrix<T>,
    c: &mut [f32],
    accumulator: Accumulator,
) {
    for (at, c) in c.iter_mut().enumerate() {
        let (i, j) = (first_row + at / b.columns(), at % b.columns());
        let sum: f64 = (0..a.rows()).map(|k| a.at(k, i) as f64 * b.at(k, j) as f64).sum();
        *c = accumulator.value(*c, j) + sum as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, stored};
    use super::*;
    use crate::aligned::Aligned;
    use crate::dtype::{Bf16, padded};
    use crate::elementwise::sum_of_squares_naive;
    use crate::pack::pack_depth_by_row;
    use crate::testing::{assert_close, numbers};

    fn check_segments<T: Dtype>(tile: Tile) {
        let (depth, m) = (13, 45);
        for (segments, n) in [(0, 100), (1, 100), (3, 100), (400, 100), (40, 400)] {
            // each segment is packed separately and filled up to whole lanes
            let (a, b) = (stored::<T>(segments * depth, m, 1), stored::<T>(segments * depth, n, 2));
            let (of_a, of_b) = (tile.blocks::<T>(depth, m), tile.panels::<T>(depth, n));
            let (of_a, of_b) = (of_a.repeated(segments), of_b.repeated(segments));
            let (mut blocks, mut panels) = (vec![0; of_a.lanes()], vec![0; of_b.lanes()]);
            for s in 0..segments {
                let (row_a, row_b) = (padded::<T>(m), padded::<T>(n));
                let part = Matrix::new(&a[s * depth * row_a..][..depth * row_a], depth, m);
                pack_depth_by_row(
                    part,
                    of_a.repeated(1),
                    &mut blocks[s * of_a.segment_lanes()..][..of_a.segment_lanes()],
                );
                let part = Matrix::new(&b[s * depth * row_b..][..depth * row_b], depth, n);
                pack_depth_by_row(
                    part,
                    of_b.repeated(1),
                    &mut panels[s * of_b.segment_lanes()..][..of_b.segment_lanes()],
                );
            }
            let (a, b) = (Matrix::new(&a, segments * depth, m), Matrix::new(&b, segments * depth, n));
            let bias = numbers(n, 4);
            let accumulators = [Accumulator::Zero, Accumulator::Output, Accumulator::Bias(&bias)];
            // rows of C that start at cache lines, and rows that do not
            for (accumulator, start) in
                accumulators.into_iter().flat_map(|accumulator| [(accumulator, 0), (accumulator, 1)])
            {
                let mut expected = numbers(m * n, 3);
                let mut places = Aligned::new(start + m * n);
                let fast = &mut places[start..];
                fast.copy_from_slice(&expected);
                for part in [0..tile.height::<T>(), tile.height::<T>()..m] {
                    product_of_packed_naive(a, part.start, b, &mut expected[part.start * n..part.end * n], accumulator);
                }
                let (blocks, panels) = (Packed::new(&blocks, of_a), Packed::new(&panels, of_b));
                let mut whole = fast.to_vec();
                let of_whole = product_of_packed_with_squares::<T>(tile, blocks, 0, panels, &mut whole, accumulator);
                let (head, tail) = fast.split_at_mut(tile.height::<T>() * n);
                product_of_packed::<T>(tile, blocks, 0, panels, head, accumulator);
                let second = tile.height::<T>();
                let of_tail = product_of_packed_with_squares::<T>(tile, blocks, second, panels, tail, accumulator);
                assert_close(fast, &expected, 2e-5); // sums of up to 5200 f32 products
                assert!(whole == fast && of_whole[1..] == of_tail);
                for (block, squares) in fast.chunks(tile.height::<T>() * n).zip(&of_whole) {
                    let naive = sum_of_squares_naive(block);
                    assert!((squares - naive).abs() <= 1e-12 * naive, "{squares} beside {naive}, {}", tile.name());
                }
            }
        }
    }

    #[test]
    fn packed_operands_are_summed_over_all_segments() {
        for tile in all() {
            check_segments::<f32>(tile);
            check_segments::<Bf16>(tile);
        }
    }
}
