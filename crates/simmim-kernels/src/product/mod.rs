//! The product `C = A·B`: the kernel in which most of a training step's time is spent.
//!
//! The sums of a tile of `C` stay in registers while the kernel goes through the whole depth `K`. Operands are read in
//! lanes of 32 bits. A lane is one f32, or two bf16 that follow each other along the depth; these are multiplied and
//! added by one instruction (`vdpbf16ps`) where the CPU has it, and converted to f32 first where it does not.
//!
//! ```text
//!                      panel of B, packed (pack/)
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
//! | AMX | 32 × 48 in bf16 | as AVX-512 | `tdpbf16ps`, 16 × 16 sums at a time (`tiles.rs`) |
//! | AVX-512 with BF16 | 8 × 48 | fused multiply-add | `vdpbf16ps` |
//! | AVX-512 | 8 × 48 | fused multiply-add | widened, 8 × 16 at a time |
//! | AVX2 with FMA | 6 × 16 | fused multiply-add | widened |
//! | others | 6 × 16 | multiply, add (NEON: fused) | widened |
//!
//! `avx512.rs` and `avx2.rs` are written in intrinsics, `portable.rs` as arithmetic on arrays that the compiler keeps in registers.
//! Each is a table of functions, one for each height of a tile, so that the loops around the tiles are written only
//! once, here. The loops around the tiles of AMX, in `tiles.rs`, are those of a unit with registers of its own. `tile.rs` says
//! which of them a CPU runs. Measurements are in `docs/LOG.md`.

mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
mod amx_model;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod packed;
mod portable;
#[cfg(target_arch = "x86_64")]
mod rows;
mod tile;
mod tiles;

use crate::aligned::CACHE_LINE;
use crate::dtype::Dtype;
use crate::matrix::{Matrix, len_of_rows};
use crate::pack::{Packed, PackedLayout};

pub use ahead::{Ahead, fetch_values};
pub use packed::{product_of_packed, product_of_packed_naive, product_of_packed_with_squares};
pub use tile::Tile;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
use tile::Unit;

/// The values that a product's sums start from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accumulator<'a> {
    /// `C = A·B`: the old content of `C` is not read.
    Zero,
    /// `C += A·B`: the old content of `C`.
    Output,
    /// `C = A·B + bias`, one value per column.
    Bias(&'a [f32]),
}

/// Whether the CPU could multiply bf16 faster, by AMX, if the system let this process use it.
pub fn is_amx_refused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::amx::is_refused();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Frees what this thread's products have occupied of the CPU. A thread that will not multiply soon should call it,
/// because the system saves tile registers that are in use at every switch of threads.
pub fn release() {
    #[cfg(target_arch = "x86_64")]
    crate::amx::release();
}

/// What a [`TileKernel`] computes: operands, where the sums go, and the distances between their parts.
struct TileJob {
    /// Row 0 in step 0 of segment 0.
    a: *const u32,
    /// Lanes from a row of `a` to the next, from a step to the next, and from a segment to the next. One of the first two is 1.
    a_row: usize,
    a_step: usize,
    a_segment: usize,
    /// The panel's step 0 of segment 0; its steps follow each other without gaps.
    b: *const u32,
    /// Lanes from a segment of `b` to the next.
    b_segment: usize,
    segments: usize,
    /// Steps of each segment.
    steps: usize,
    c: *mut f32,
    /// Values from a row of `c` to the next.
    c_stride: usize,
    /// Columns of the panel that are columns of `C`; the last panel may be filled up with zeros.
    columns: usize,
    accumulator: TileAccumulator,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only kernels for x86-64 fetch ahead"))]
    ahead: NextPanel,
}

#[cfg(target_arch = "x86_64")]
impl TileJob {
    /// Fetches into the first-level cache what the sums will be added to: `HEIGHT` rows of `LINES` lines of C.
    #[inline(always)]
    fn prefetch_output<const HEIGHT: usize, const LINES: usize>(&self) {
        if let TileAccumulator::Output = self.accumulator {
            for i in 0..HEIGHT {
                for line in 0..LINES {
                    let line = self.c.wrapping_add(i * self.c_stride + line * LINE);
                    // SAFETY: every x86-64 CPU has the instruction, which fails on no address.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
                }
            }
        }
    }
}

/// Lanes of a line of the cache.
const LINE: usize = CACHE_LINE / size_of::<u32>();

/// Fetches a line into the second-level cache.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn fetch(line: *const u32) {
    // SAFETY: every x86-64 CPU has the instruction, which fails on no address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn fetch(_line: *const u32) {}

/// What a tile fetches from far caches while it computes: its share of the panel that follows in memory, which is
/// mostly the next one to be read. Without it, the first tile of each panel waits for the third-level cache.
///
/// A tile fetches a line in each step, or by AVX2 in every second one. So one or two tiles of 48 columns, or one of 16, fetch only
/// a part of the panel. If there are more tiles than a step has lanes, the last ones fetch what lies behind the panel.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only kernels for x86-64 fetch ahead"))]
struct NextPanel {
    /// The first lane in segment 0. It may lie beyond the operand, because it is never read.
    first: *const u32,
    /// Lanes from a step to the next.
    step: usize,
}

impl NextPanel {
    /// The share of tile `tile` of `tiles`, which read a panel of `width` lanes in each of `steps` steps. The panel that will
    /// be read then begins at `next`.
    fn of_tile(tile: usize, tiles: usize, next: *const u32, steps: usize, width: usize) -> Self {
        let step = width.div_ceil(tiles).min(LINE);
        Self { first: next.wrapping_add(tile * steps * step), step }
    }
}

/// [`Accumulator`] at a tile's first column.
#[derive(Clone, Copy)]
enum TileAccumulator {
    Zero,
    Output,
    /// As many values as the tile has columns.
    Bias(*const f32),
}

/// Computes one tile and stores it.
///
/// # Safety
/// - The CPU has the instructions that the kernel is compiled for.
/// - In every segment and step of the job, `a` leads to a readable lane for each row of the tile.
/// - In every segment, `b` leads to `steps` readable steps of a panel, each as wide as the tile.
/// - `columns` is at least 1 and at most the width of the tile.
/// - `c` leads to `columns` values in each row of the tile, which nothing else reads or writes meanwhile.
/// - A bias has `columns` values.
type TileKernel = unsafe fn(&TileJob);

/// `C = accumulator + A·B`, where rows of `A` are read in place.
///
/// # Shapes
/// `a` `[M, K]`; `b` packed from `[K, N]` in one segment; `c` row-major `[M, N]`, rows `c_stride` apart.
///
/// # Panics
/// If sizes do not fit together.
pub fn product<T: Dtype>(
    tile: Tile,
    a: Matrix<T>,
    b: Packed,
    c: &mut [f32],
    c_stride: usize,
    accumulator: Accumulator,
) {
    product_beside(tile, a, b, c, c_stride, accumulator, || {});
}

/// [`product`], which runs `beside` now and then if it has a unit for tiles: that unit computes by itself, so other
/// work costs less time meanwhile. It runs [`times_beside`] times for each panel.
///
/// # Panics
/// As [`product`], and if `beside` multiplies by such a unit too or calls [`release`].
pub fn product_beside<T: Dtype>(
    tile: Tile,
    a: Matrix<T>,
    b: Packed,
    c: &mut [f32],
    c_stride: usize,
    accumulator: Accumulator,
    mut beside: impl FnMut(),
) {
    let (rows, columns) = (a.rows(), b.columns());
    if rows == 0 || columns == 0 {
        return;
    }
    let steps = a.columns().div_ceil(T::PER_LANE);
    let layout = tile.panels::<T>(a.columns(), columns);
    assert!(b.segments() == 1 && b.steps() == layout.steps(), "B of {} steps for rows of {steps}", b.steps());
    check(&layout, &b, rows, c, c_stride, accumulator);
    let kernels = match (tile.unit(T::KIND), T::as_bf16(a)) {
        #[cfg(target_arch = "x86_64")]
        (Unit::Amx(unit), Some(a)) => return tiles::product(unit, a, b, c, c_stride, accumulator, &mut beside),
        (Unit::AmxModel(unit), Some(a)) => return tiles::product(unit, a, b, c, c_stride, accumulator, &mut beside),
        (Unit::Vectors(kernels), _) => kernels,
        _ => unreachable!("tiles multiply only bf16"),
    };
    let width = layout.width();
    // tiles of about equal height: with full tiles, a last one of a single row would take as long as one of eight
    let tiles = rows.div_ceil(kernels.len());
    let passes = steps.div_ceil(tile.steps_of_pass()).max(1);
    for pass in 0..passes {
        let first_step = steps * pass / passes;
        let steps_of_pass = steps * (pass + 1) / passes - first_step;
        let accumulator = if pass == 0 { accumulator } else { Accumulator::Output };
        for panel in 0..b.groups() {
            let left = panel * width;
            let lanes = &b.lanes_from(0, panel)[first_step * width..];
            let next = lanes.as_ptr().wrapping_add(steps * width); // the same steps of the next panel
            for t in 0..tiles {
                let top = rows * t / tiles;
                let height = rows * (t + 1) / tiles - top;
                // SAFETY: `tile` proves that the CPU has the instructions. A has `top + height` rows, which `Matrix`
                // asserted to be whole lanes, the panel has `steps` steps, as asserted above, and C has `top + height`
                // rows of `columns` values and a bias as many, as asserted in `check`.
                unsafe {
                    kernels[height - 1](&TileJob {
                        // read only if A has columns
                        a: a.data().as_ptr().wrapping_add(top * a.stride()).cast::<u32>().wrapping_add(first_step),
                        a_row: a.stride() / T::PER_LANE,
                        a_step: 1,
                        a_segment: 0,
                        b: lanes.as_ptr(),
                        b_segment: 0,
                        segments: 1,
                        steps: steps_of_pass,
                        c: c.as_mut_ptr().add(top * c_stride + left),
                        c_stride,
                        columns: width.min(columns - left),
                        accumulator: tile_accumulator(accumulator, left),
                        ahead: NextPanel::of_tile(t, tiles, next, steps_of_pass, width),
                    });
                }
            }
        }
    }
}

/// How often [`product_beside`] runs what goes on beside it for each panel of B.
pub fn times_beside<T: Dtype>(tile: Tile, a: Matrix<T>) -> usize {
    match (tile.unit(T::KIND), T::as_bf16(a)) {
        (Unit::Vectors(_), _) | (_, None) => 0,
        (_, Some(a)) => tiles::times_beside(a),
    }
}

/// Panels of `b` that a unit for tiles should multiply with all rows before the next panels.
pub fn panels_at_once(b: Packed) -> usize {
    tiles::panels_at_once(b)
}

fn check(panels: &PackedLayout, b: &Packed, rows: usize, c: &[f32], c_stride: usize, accumulator: Accumulator) {
    let columns = b.columns();
    assert_eq!(b.width(), panels.width(), "B is packed in panels of another width");
    assert!(c.len() >= len_of_rows(rows, c_stride, columns) && c_stride >= columns, "the result is too short");
    if let Accumulator::Bias(bias) = accumulator {
        assert_eq!(bias.len(), columns, "one bias per column");
    }
}

fn tile_accumulator(accumulator: Accumulator, left: usize) -> TileAccumulator {
    match accumulator {
        Accumulator::Zero => TileAccumulator::Zero,
        Accumulator::Output => TileAccumulator::Output,
        Accumulator::Bias(bias) => TileAccumulator::Bias(bias[left..].as_ptr()),
    }
}

/// Specification of [`product`], on unpacked operands.
pub fn product_naive<T: Dtype>(a: Matrix<T>, b: Matrix<T>, c: &mut [f32], c_stride: usize, accumulator: Accumulator) {
    for i in 0..a.rows() {
        for j in 0..b.columns() {
            let sum: f64 = (0..a.columns()).map(|k| a.at(i, k) as f64 * b.at(k, j) as f64).sum();
            c[i * c_stride + j] = accumulator.value(c[i * c_stride + j], j) + sum as f32;
        }
    }
}

impl<'a> Accumulator<'a> {
    /// The accumulator of `columns` columns from column `left` on.
    fn at(self, left: usize, columns: usize) -> Self {
        match self {
            Accumulator::Zero => Accumulator::Zero,
            Accumulator::Output => Accumulator::Output,
            Accumulator::Bias(bias) => Accumulator::Bias(&bias[left..left + columns]),
        }
    }

    /// The value that the sum of an element in column `column` starts from.
    fn value(self, old: f32, column: usize) -> f32 {
        match self {
            Accumulator::Zero => 0.0,
            Accumulator::Output => old,
            Accumulator::Bias(bias) => bias[column],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{Bf16, padded};
    use crate::pack::pack_depth_by_row;
    use crate::testing::{assert_close, numbers};

    pub(super) fn stored<T: Dtype>(rows: usize, columns: usize, seed: u64) -> Vec<T> {
        let (row, mut out) = (padded::<T>(columns), vec![T::default(); rows * padded::<T>(columns)]);
        let values = numbers(rows * columns, seed);
        (0..rows).for_each(|i| T::narrow(&values[i * columns..][..columns], &mut out[i * row..][..columns]));
        out
    }

    /// All that this CPU can run, and the model.
    pub(super) fn all() -> Vec<Tile> {
        Tile::all_available().into_iter().chain([Tile::model_of_amx()]).collect()
    }

    fn check_every_size<T: Dtype>(tile: Tile) {
        // the last one is so deep that its panels are multiplied a few at a time
        let deep = (8, 3301, 100);
        for (m, k, n) in [
            (1, 1, 1),
            (5, 7, 3),
            (12, 16, 32),
            (50, 40, 49),
            (23, 64, 97),
            (13, 201, 16),
            (9, 2, 64),
            (8, 3301, 17),
            deep,
        ] {
            let (a, b, bias) = (stored::<T>(m, k, 1), stored::<T>(k, n, 2), numbers(n, 3));
            let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            let layout = tile.panels::<T>(k, n);
            let mut panels = vec![0; layout.lanes()];
            pack_depth_by_row(b, layout, &mut panels);
            for accumulator in [Accumulator::Zero, Accumulator::Output, Accumulator::Bias(&bias)] {
                let stride = n + 3;
                let mut fast = numbers(m * stride, 4);
                let mut expected = fast.clone();
                product(tile, a, Packed::new(&panels, layout), &mut fast, stride, accumulator);
                product_naive(a, b, &mut expected, stride, accumulator);
                assert_close(&fast, &expected, 3e-6); // sums of up to 3,301 f32 products
            }
        }
    }

    #[test]
    fn every_tile_size_and_accumulator_equals_naive() {
        for tile in all() {
            check_every_size::<f32>(tile);
            check_every_size::<Bf16>(tile);
        }
    }
}
