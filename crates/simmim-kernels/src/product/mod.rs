//! The product `C = A·B`: the one kernel most of a training step runs in.
//!
//! A tile of `C` stays in registers while the whole depth `K` passes by. Operands are read in lanes of
//! 32 bits: one f32, or two bf16 that are neighbours along the depth, whose products a single
//! instruction adds up (`vdpbf16ps`) or which are widened on the way.
//!
//! ```text
//!                      panel of B, packed (pack.rs)
//!                    step 0  [ b b b … b ]  WIDTH lanes
//!                    step 1  [ b b b … b ]
//!                      …
//!  A   row 0  a a a …        [ c c c … c ]
//!      row 1  a a a …        [ c c c … c ]  ← HEIGHT × WIDTH sums in registers
//!       …                          …
//! ```
//!
//! | instructions | tile | f32 | bf16 |
//! | --- | --- | --- | --- |
//! | AVX-512 with BF16 | 8 × 48 | fused multiply-add | `vdpbf16ps` |
//! | AVX-512 | 8 × 48 | fused multiply-add | widened, 8 × 16 at a time |
//! | AVX2 with FMA | 6 × 16 | fused multiply-add | widened |
//! | others | 6 × 16 | multiply, add (NEON: fused) | widened |
//!
//! `avx512.rs` is written with intrinsics, `portable.rs` as arithmetic on arrays that the compiler keeps
//! in registers. Both are tables of functions, one for each height of a tile, so that the loops around
//! them exist once. Measurements are in `docs/LOG.md`.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::element::{Element, Kind};
use crate::instructions::Instructions;
use crate::matrix::Matrix;
use crate::pack::Packed;

/// What a product starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start<'a> {
    /// `C = A·B`: the old values are not read.
    Zero,
    /// `C += A·B`.
    Old,
    /// `C = A·B + bias`, one value per column.
    Bias(&'a [f32]),
}

/// The instructions that products use on the CPU at hand.
///
/// Only detection makes one that needs instructions, so having it proves that they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile(Instructions);

impl Tile {
    /// The best this CPU can run.
    pub fn detect() -> Self {
        Self::all_available()[0]
    }

    /// Everything this CPU can run, the best first.
    pub fn all_available() -> Vec<Self> {
        Instructions::available().into_iter().map(Tile).collect()
    }

    /// The tile that runs on any CPU.
    pub fn portable() -> Self {
        Tile(Instructions::Portable)
    }

    /// Whether bf16 operands are multiplied as they are, twice as many at a time as f32.
    pub fn multiplies_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => true,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => false,
            Instructions::Portable => false,
        }
    }

    /// The instructions' common name.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => "AVX-512 with BF16",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "AVX2",
            Instructions::Portable => "portable",
        }
    }

    /// Columns of a panel of `B`.
    pub fn width(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 | Instructions::Avx512 => 48,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => portable::WIDTH,
            Instructions::Portable => portable::WIDTH,
        }
    }

    /// Rows of a tile, and of a block of `A` where it has to be packed.
    pub fn height(self) -> usize {
        self.kernels(Kind::F32).len()
    }

    /// The kernels of tiles of 1, 2, … rows.
    fn kernels(self, kind: Kind) -> &'static [TileKernel] {
        match (self.0, kind) {
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Bf16, Kind::Bf16) => &avx512::BF16,
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Bf16 | Instructions::Avx512, Kind::F32) => &avx512::F32,
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, Kind::Bf16) => &avx512::WIDENED,
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, Kind::F32) => &portable::AVX2_F32,
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, Kind::Bf16) => &portable::AVX2_BF16,
            (Instructions::Portable, Kind::F32) => &portable::F32,
            (Instructions::Portable, Kind::Bf16) => &portable::BF16,
        }
    }
}

/// One tile's work: pointers, strides in lanes, and where the sums go.
struct TileJob {
    /// Row 0, step 0 of segment 0; row `i` is `a_row·i` lanes further, step `s` `a_step·s`.
    a: *const u32,
    a_row: usize,
    a_step: usize,
    a_segment: usize,
    /// Step 0 of segment 0 of the panel; its steps lie one behind the other.
    b: *const u32,
    b_segment: usize,
    segments: usize,
    steps: usize,
    c: *mut f32,
    c_stride: usize,
    /// Columns of the panel that exist.
    columns: usize,
    start: TileStart,
}

/// [`Start`] at a tile's first column.
#[derive(Clone, Copy)]
enum TileStart {
    Zero,
    Old,
    /// As many values as the tile has columns.
    Bias(*const f32),
}

/// Sums up one tile and stores it.
type TileKernel = unsafe fn(&TileJob);

/// `C = start + A·B` with rows of `A` read where they lie.
///
/// # Shapes
/// `a` `[M, K]`; `b` packed from `[K, N]` in one segment; `c` row-major `[M, N]`, rows `c_stride` apart.
///
/// # Panics
/// If sizes do not fit together.
pub fn product<E: Element>(tile: Tile, a: Matrix<E>, b: Packed, c: &mut [f32], c_stride: usize, start: Start) {
    let (rows, columns) = (a.rows(), b.columns());
    if rows == 0 || columns == 0 {
        return;
    }
    let steps = a.columns().div_ceil(E::PER_LANE);
    assert!(b.segments() == 1 && b.steps() == steps, "B of {} steps for rows of {steps}", b.steps());
    check(tile, &b, rows, c, c_stride, start);
    let (kernels, width) = (tile.kernels(E::KIND), tile.width());
    // tiles of equal height: a last tile of one row would take as long as one of eight
    let tiles = rows.div_ceil(kernels.len());
    for panel in 0..b.groups() {
        let left = panel * width;
        for t in 0..tiles {
            let top = rows * t / tiles;
            let height = rows * (t + 1) / tiles - top;
            // SAFETY: `top + height` rows of A and of C exist, as do `steps` steps of the panel and the
            // columns from `left` on: asserted here and in `check`, or by the types of `a` and `b`.
            unsafe {
                kernels[height - 1](&TileJob {
                    a: a.data().as_ptr().add(top * a.stride()).cast(),
                    a_row: a.stride() / E::PER_LANE,
                    a_step: 1,
                    a_segment: 0,
                    b: b.group(0, panel).as_ptr(),
                    b_segment: 0,
                    segments: 1,
                    steps,
                    c: c.as_mut_ptr().add(top * c_stride + left),
                    c_stride,
                    columns: width.min(columns - left),
                    start: tile_start(start, left),
                });
            }
        }
    }
}

/// Lanes of `A` that are multiplied with all panels before the next: 192 KiB, less than half of the
/// second-level cache of any CPU with AVX2 made since 2017.
const CHUNK_LANES: usize = 48 * 1024;

/// Steps that one pass goes through: a panel of that many stays in the second-level cache.
const PASS_STEPS: usize = 1024;

/// `C = start + Aᵀ·B` with both operands packed over the same segments of the depth: rows `first_row ..`
/// of the result, as many as `c` has.
///
/// # Shapes
/// `a` packed from `[K, M]` in blocks of [`Tile::height`] columns, `b` from `[K, N]` in panels; `c`
/// row-major `[rows, N]`, dense.
///
/// # Panics
/// If sizes do not fit together, or `first_row` is no first row of a block.
pub fn product_of_packed<E: Element>(tile: Tile, a: Packed, first_row: usize, b: Packed, c: &mut [f32], start: Start) {
    let columns = b.columns();
    if c.is_empty() || columns == 0 {
        return;
    }
    let rows = c.len() / columns;
    let (kernels, width, height) = (tile.kernels(E::KIND), tile.width(), tile.height());
    assert!(a.segments() == b.segments() && a.steps() == b.steps(), "both operands have the same depth");
    assert!(a.width() == height && first_row.is_multiple_of(height), "A is packed in blocks of {height}");
    assert!(first_row + rows <= a.columns(), "rows {first_row}+{rows} of {}", a.columns());
    check(tile, &b, rows, c, columns, start);
    if a.segments() == 0 && start == Start::Zero {
        c.fill(0.0); // a sum of nothing
    }
    let first_block = first_row / height;
    let blocks = rows.div_ceil(height);
    let pass = (PASS_STEPS / a.steps().max(1)).max(1);
    let chunk = (CHUNK_LANES / (pass.min(a.segments()) * a.steps() * height).max(1)).max(1);
    for segment in (0..a.segments()).step_by(pass) {
        let segments = pass.min(a.segments() - segment);
        let start = if segment == 0 { start } else { Start::Old };
        for first in (0..blocks).step_by(chunk) {
            for panel in 0..b.groups() {
                let left = panel * width;
                for block in first..blocks.min(first + chunk) {
                    let top = block * height;
                    // SAFETY: the block, the panel and this part of C exist: asserted above and in
                    // `check`, or by the types of `a` and `b`.
                    unsafe {
                        kernels[height.min(rows - top) - 1](&TileJob {
                            a: a.group(segment, first_block + block).as_ptr(),
                            a_row: 1,
                            a_step: height,
                            a_segment: a.segment_lanes(),
                            b: b.group(segment, panel).as_ptr(),
                            b_segment: b.segment_lanes(),
                            segments,
                            steps: a.steps(),
                            c: c.as_mut_ptr().add(top * columns + left),
                            c_stride: columns,
                            columns: width.min(columns - left),
                            start: tile_start(start, left),
                        });
                    }
                }
            }
        }
    }
}

fn check(tile: Tile, b: &Packed, rows: usize, c: &[f32], c_stride: usize, start: Start) {
    let columns = b.columns();
    assert_eq!(b.width(), tile.width(), "B is packed in panels of another width");
    assert!(c.len() >= (rows - 1) * c_stride + columns && c_stride >= columns, "the result is too short");
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), columns, "one bias per column");
    }
}

fn tile_start(start: Start, left: usize) -> TileStart {
    match start {
        Start::Zero => TileStart::Zero,
        Start::Old => TileStart::Old,
        Start::Bias(bias) => TileStart::Bias(bias[left..].as_ptr()),
    }
}

/// Specification of [`product`], on unpacked operands.
pub fn product_naive<E: Element>(a: Matrix<E>, b: Matrix<E>, c: &mut [f32], c_stride: usize, start: Start) {
    for i in 0..a.rows() {
        for j in 0..b.columns() {
            let sum: f64 = (0..a.columns()).map(|k| a.at(i, k) as f64 * b.at(k, j) as f64).sum();
            c[i * c_stride + j] = start.value(c[i * c_stride + j], j) + sum as f32;
        }
    }
}

/// Specification of [`product_of_packed`], on unpacked operands `[K, M]` and `[K, N]`.
pub fn product_of_packed_naive<E: Element>(a: Matrix<E>, first_row: usize, b: Matrix<E>, c: &mut [f32], start: Start) {
    for (at, c) in c.iter_mut().enumerate() {
        let (i, j) = (first_row + at / b.columns(), at % b.columns());
        let sum: f64 = (0..a.rows()).map(|k| a.at(k, i) as f64 * b.at(k, j) as f64).sum();
        *c = start.value(*c, j) + sum as f32;
    }
}

impl Start<'_> {
    /// What one element of column `column` starts from.
    fn value(self, old: f32, column: usize) -> f32 {
        match self {
            Start::Zero => 0.0,
            Start::Old => old,
            Start::Bias(bias) => bias[column],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{Bf16, padded};
    use crate::pack::{Layout, pack_depth_by_row};
    use crate::testing::{assert_close, numbers};

    fn stored<E: Element>(rows: usize, columns: usize, seed: u64) -> Vec<E> {
        let (row, mut out) = (padded::<E>(columns), vec![E::default(); rows * padded::<E>(columns)]);
        let values = numbers(rows * columns, seed);
        (0..rows).for_each(|i| E::narrow(&values[i * columns..][..columns], &mut out[i * row..][..columns]));
        out
    }

    fn check_every_size<E: Element>(tile: Tile) {
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (12, 16, 32), (50, 40, 49), (23, 64, 97), (13, 201, 16), (9, 2, 64)] {
            let (a, b, bias) = (stored::<E>(m, k, 1), stored::<E>(k, n, 2), numbers(n, 3));
            let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            let layout = Layout::new::<E>(k, n, tile.width());
            let mut panels = vec![0; layout.lanes()];
            pack_depth_by_row(b, layout, &mut panels);
            for start in [Start::Zero, Start::Old, Start::Bias(&bias)] {
                let stride = n + 3;
                let mut fast = numbers(m * stride, 4);
                let mut expected = fast.clone();
                product(tile, a, Packed::new(&panels, layout), &mut fast, stride, start);
                product_naive(a, b, &mut expected, stride, start);
                assert_close(&fast, &expected, 3e-6); // sums of up to 200 f32 products
            }
        }
    }

    #[test]
    fn every_tile_size_and_start_equals_naive() {
        for tile in Tile::all_available() {
            check_every_size::<f32>(tile);
            check_every_size::<Bf16>(tile);
        }
    }

    fn check_segments<E: Element>(tile: Tile) {
        let (depth, m, n) = (13, 21, 100);
        for segments in [0, 1, 3, 400] {
            // each segment is packed on its own, filled up to whole lanes
            let (a, b) = (stored::<E>(segments * depth, m, 1), stored::<E>(segments * depth, n, 2));
            let (of_a, of_b) = (Layout::new::<E>(depth, m, tile.height()), Layout::new::<E>(depth, n, tile.width()));
            let (of_a, of_b) = (of_a.repeated(segments), of_b.repeated(segments));
            let (mut blocks, mut panels) = (vec![0; of_a.lanes()], vec![0; of_b.lanes()]);
            for s in 0..segments {
                let (row_a, row_b) = (padded::<E>(m), padded::<E>(n));
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
            for start in [Start::Zero, Start::Old] {
                let mut fast = numbers(m * n, 3);
                let mut expected = fast.clone();
                for part in [0..tile.height(), tile.height()..m] {
                    product_of_packed_naive(a, part.start, b, &mut expected[part.start * n..part.end * n], start);
                }
                let (head, tail) = fast.split_at_mut(tile.height() * n);
                let (blocks, panels) = (Packed::new(&blocks, of_a), Packed::new(&panels, of_b));
                product_of_packed::<E>(tile, blocks, 0, panels, head, start);
                product_of_packed::<E>(tile, blocks, tile.height(), panels, tail, start);
                assert_close(&fast, &expected, 2e-5); // sums of up to 5200 f32 products
            }
        }
    }

    #[test]
    fn packed_operands_are_summed_over_all_segments() {
        for tile in Tile::all_available() {
            check_segments::<f32>(tile);
            check_segments::<Bf16>(tile);
        }
    }
}
