//! The product by blocks of 32 × 48 sums that a unit for tiles computes: AMX, or its model in plain Rust.
//!
//! ```text
//!                        panel of B: 48 lanes, of which a tile is 16
//!                          step 0   [ b b b … ]
//!                            …                     blocks of 16 steps; the last one is filled up with zeros
//!                          step 15  [ b b b … ]
//!
//!  A  row 0   a a … a    [ c c c … c ]
//!       …                     …           ← up to 32 × 48 sums, which stay in the unit through the whole depth
//!     row 31  a a … a    [ c c c … c ]
//!         16 lanes
//! ```
//!
//! Rows of A are read in place, or from squares of 32 columns × 16 steps if A is packed from rows that are its depth
//! (`pack/`). The unit reads whole blocks of the depth. Where A's rows end within a block, that block is copied and
//! filled up with zeros. The unit loads what the sums start from, be it a bias, and stores them to C. Only where C ends
//! within a tile do they go through a buffer.

use super::Accumulator;
use super::ahead::Ahead;
use super::packed::add_squares_of_blocks;
use crate::aligned::{Aligned, grown};
use crate::dtype::{Bf16, Dtype, padded};
use crate::elementwise::sum_of_squares;
#[cfg(target_arch = "x86_64")]
use crate::instructions::Avx512;
use crate::matrix::{Matrix, len_of_rows};
use crate::pack::Packed;
use multiversion::multiversion;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::null;

/// Rows of a block of C.
pub(super) const HEIGHT: usize = 32;

/// Columns of a block of C, which are the lanes of a panel.
pub(super) const WIDTH: usize = 48;

/// Lanes of the depth that a tile covers.
pub(super) const DEPTH: usize = 16;

/// Columns of a tile.
pub(super) const TILE_COLUMNS: usize = 16;

/// Values of a row of A in a block of the depth.
const BLOCK_VALUES: usize = DEPTH * Bf16::PER_LANE;

/// Bytes of a lane.
const LANE: usize = size_of::<u32>();

/// What multiplies tiles.
pub(super) trait TileUnit: Copy {
    /// Computes the sums of a block of C and writes them to `c`. What they start from is read before any is written.
    /// Runs `beside` after each block of the depth.
    fn multiply(self, block: Block, segments: &[Segment], start: Start, c: RowsMut, beside: &mut impl FnMut());
}

/// A block of C: `half` rows from row 0 on, and as many from row `lower` on, in tiles of 16 columns.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) half: usize,
    pub(super) lower: usize,
    /// Tiles side by side.
    pub(super) columns: usize,
}

/// What the sums of a block start from.
pub(super) enum Start<'a> {
    Zero,
    Rows(Rows<'a>),
    /// The old content of C.
    Output,
}

/// Rows of f32 that are read, `stride` apart; with a stride of zero, all of them are the same one.
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

/// Rows of f32 that are written, `stride` apart.
pub(super) struct RowsMut<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
}

impl Rows<'_> {
    /// Whether there are so many rows and columns.
    pub(super) fn has(&self, rows: usize, columns: usize) -> bool {
        self.values.len() >= len_of_rows(rows, self.stride, columns)
    }
}

impl RowsMut<'_> {
    /// Whether there are so many rows and columns.
    pub(super) fn has(&self, rows: usize, columns: usize) -> bool {
        self.values.len() >= len_of_rows(rows, self.stride, columns) && self.stride >= columns
    }
}

/// A part of the depth of some rows of A and a panel of B. Its memory may be read in all its rows and blocks.
///
/// Its fields are set one by one: a copy of all of them would have to wait until the sums before it are stored.
pub(super) struct Segment<'a> {
    a: *const u8,
    /// Bytes from a row of A to the next.
    a_row: usize,
    /// Bytes from a block of A's depth to the next.
    a_block: usize,
    b: *const u32,
    blocks: usize,
    /// Rows of A that may be read; zero as long as there are no rows or no panel.
    rows: usize,
    memory: PhantomData<&'a [u32]>,
}

impl<'a> Segment<'a> {
    /// A segment without rows.
    fn new(a_row: usize, a_block: usize, blocks: usize) -> Self {
        Self { a: null(), a_row, a_block, b: null(), blocks, rows: 0, memory: PhantomData }
    }

    /// Leads to `rows` rows of A.
    ///
    /// # Panics
    /// If `a` is too short, or there are no rows or blocks.
    #[inline(always)]
    fn set_rows(&mut self, a: &'a [u8], rows: usize) {
        assert!(rows > 0 && self.blocks > 0, "rows without depth");
        let needed = len_of_rows(rows, self.a_row, len_of_rows(self.blocks, self.a_block, DEPTH * LANE));
        assert!(a.len() >= needed, "A is too short");
        (self.a, self.rows) = (a.as_ptr(), rows);
    }

    /// Leads to a panel of B.
    ///
    /// # Panics
    /// If `b` is too short.
    #[inline(always)]
    fn set_panel(&mut self, b: &'a [u32]) {
        assert!(b.len() >= self.blocks * DEPTH * WIDTH, "B is too short");
        self.b = b.as_ptr();
    }

    /// Rows of A that may be read.
    pub(super) fn rows(&self) -> usize {
        if self.b.is_null() { 0 } else { self.rows }
    }

    /// The upper tile of A in a block, the bytes from a row of A to the next, and the tiles of B. All rows and steps may be read.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn tiles(&self, block: usize) -> (*const u8, usize, *const u32) {
        let (a, b) = (self.a.wrapping_add(block * self.a_block), self.b.wrapping_add(block * DEPTH * WIDTH));
        (a, self.a_row, b)
    }

    /// Blocks of the depth.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The lanes of a row of A in a block.
    pub(super) fn a(&self, row: usize, block: usize) -> [u32; DEPTH] {
        assert!(row < self.rows() && block < self.blocks);
        // SAFETY: `set_rows` asserted that A has the lanes of this row and block; they need not be aligned.
        unsafe { self.a.add(row * self.a_row + block * self.a_block).cast::<[u32; DEPTH]>().read_unaligned() }
    }

    /// The lanes of a tile's columns of B in a step.
    pub(super) fn b(&self, step: usize, column: usize) -> [u32; TILE_COLUMNS] {
        assert!(self.rows() > 0 && step < self.blocks * DEPTH && column < WIDTH / TILE_COLUMNS);
        // SAFETY: `set_panel` asserted that B has all lanes of this step.
        unsafe { self.b.add(step * WIDTH + column * TILE_COLUMNS).cast::<[u32; TILE_COLUMNS]>().read() }
    }
}

/// See [`super::product_beside`].
pub(super) fn product(
    unit: impl TileUnit,
    a: Matrix<Bf16>,
    b: Packed,
    c: &mut [f32],
    c_stride: usize,
    accumulator: Accumulator,
    beside: &mut impl FnMut(),
) {
    let values = padded::<Bf16>(a.columns());
    let (blocks, rest) = (values / BLOCK_VALUES, values % BLOCK_VALUES);
    let panels_at_once = panels_at_once(b);
    let half = half_of_blocks(a.rows());
    for first_panel in (0..b.groups()).step_by(panels_at_once) {
        let panels = first_panel..b.groups().min(first_panel + panels_at_once);
        let mut ahead = Ahead::default();
        if panels.end < b.groups() {
            let next = b.lanes_of_groups(0, panels.end..b.groups().min(panels.end + panels_at_once));
            ahead = Ahead::new(vec![next], panels.len() * times_beside(a));
        }
        for top in (0..a.rows()).step_by(2 * half) {
            let height = (2 * half).min(a.rows() - top);
            // the whole blocks of the depth, and the last one filled up; either may be missing
            let last = (rest > 0).then(|| last_block(a.rows_from(top, height)));
            let mut segments =
                [Segment::new(a.stride() * size_of::<Bf16>(), DEPTH * LANE, blocks), Segment::new(DEPTH * LANE, 0, 1)];
            if blocks > 0 {
                segments[0].set_rows(bytes_of(&a.data()[top * a.stride()..]), height);
            }
            if let Some(last) = &last {
                segments[1].set_rows(bytes_of(last.as_flattened()), height);
            }
            for panel in panels.clone() {
                let (left, lanes) = (panel * WIDTH, b.lanes_from(0, panel));
                let columns = WIDTH.min(b.columns() - left);
                if blocks > 0 {
                    segments[0].set_panel(lanes);
                }
                if rest > 0 {
                    segments[1].set_panel(&lanes[blocks * DEPTH * WIDTH..]);
                }
                let segments = &segments[usize::from(blocks == 0)..1 + usize::from(rest > 0)];
                let c = Target { values: &mut c[top * c_stride + left..], stride: c_stride, columns };
                let mut beside = || {
                    ahead.fetch_some();
                    beside();
                };
                compute(unit, half, height, segments, c, accumulator.at(left, columns), &mut beside);
            }
        }
    }
}

/// Panels that should be multiplied with all rows before the next panels are: 384 KiB, which stay in the second-level cache
/// beside the rows.
pub(super) fn panels_at_once(b: Packed) -> usize {
    (96 * 1024 / (b.steps() * WIDTH).max(1)).max(1)
}

/// How often [`product`] runs what goes on beside it while it multiplies a panel.
pub(super) fn times_beside(a: Matrix<Bf16>) -> usize {
    a.rows().div_ceil(2 * half_of_blocks(a.rows())) * padded::<Bf16>(a.columns()).div_ceil(BLOCK_VALUES)
}

/// What follows the whole blocks of the depth, filled up with zeros.
fn last_block(a: Matrix<Bf16>) -> [[Bf16; BLOCK_VALUES]; HEIGHT] {
    let mut last = [[Bf16::ZERO; BLOCK_VALUES]; HEIGHT];
    let first = padded::<Bf16>(a.columns()) / BLOCK_VALUES * BLOCK_VALUES;
    for (row, last) in last[..a.rows()].iter_mut().enumerate() {
        let values = &a.row(row)[first..];
        last[..values.len()].copy_from_slice(values);
    }
    last
}

/// See [`super::product_of_packed_with_squares`].
pub(super) fn product_of_packed(
    unit: impl TileUnit,
    a: Packed,
    first_row: usize,
    b: Packed,
    c: &mut [f32],
    accumulator: Accumulator,
    mut squares: Option<&mut [f64]>,
) {
    let columns = b.columns();
    let (rows, pass) = (c.len() / columns, (SUMMED_STEPS / a.steps().max(1)).max(1));
    if a.segments() <= pass {
        // with their squares, the rows of a block are all computed before those of the next
        let rows_at_once = if squares.is_some() { HEIGHT } else { rows };
        for (part, c) in c.chunks_mut(rows_at_once * columns).enumerate() {
            let top = part * rows_at_once;
            let product =
                PackedProduct { unit, a, first_block: (first_row + top) / HEIGHT, rows: c.len() / columns, b };
            product.compute(0..a.segments(), 0..0, 0..b.groups(), c, columns, columns, accumulator);
            add_squares_of_blocks(c, HEIGHT * columns, squares.as_deref_mut().map(|all| &mut all[part..]));
        }
        return;
    }
    let product = PackedProduct { unit, a, first_block: first_row / HEIGHT, rows, b };
    SUMS.with_borrow_mut(|sums| {
        for left in (0..columns).step_by(SUMS_AT_ONCE) {
            let panels = left / WIDTH..b.groups().min((left + SUMS_AT_ONCE) / WIDTH);
            let (stride, width) = (panels.len() * WIDTH, SUMS_AT_ONCE.min(columns - left));
            let sums = grown(sums, rows * stride);
            for first in (0..a.segments()).step_by(pass) {
                let accumulator = if first == 0 { Accumulator::Zero } else { Accumulator::Output };
                let segments = first..a.segments().min(first + pass);
                let next = segments.end..a.segments().min(segments.end + pass);
                product.compute(segments, next, panels.clone(), sums, stride, stride, accumulator);
            }
            let c = &mut c[left..];
            store_past_caches(sums, stride, rows, c, columns, width, accumulator.at(left, width));
            let stored = match accumulator {
                Accumulator::Zero => Rows { values: sums, stride }, // which are still in the cache
                _ => Rows { values: c, stride: columns },
            };
            for (block, squares) in squares.iter_mut().flat_map(|all| all.iter_mut()).enumerate() {
                let of_block = block * HEIGHT..rows.min((block + 1) * HEIGHT);
                *squares +=
                    of_block.map(|row| sum_of_squares(&stored.values[row * stored.stride..][..width])).sum::<f64>();
            }
        }
    });
}

/// Steps that are summed up in one pass through the sums. A block of A of that many takes 24 KiB: it stays in the first-level
/// cache while panels of B go by.
const SUMMED_STEPS: usize = 192;

/// Columns of C whose sums are computed before the next columns are. Those of a few hundred rows stay in the second-level
/// cache, beside the operands of a pass.
const SUMS_AT_ONCE: usize = 384;

/// What is the same for all passes of a product of packed operands.
struct PackedProduct<'a, U> {
    unit: U,
    a: Packed<'a>,
    first_block: usize,
    rows: usize,
    b: Packed<'a>,
}

impl<U: TileUnit> PackedProduct<'_, U> {
    /// Multiplies some segments of the depth with some panels, whose first column is that of `out`, and meanwhile fetches the
    /// segments `next`.
    fn compute(
        &self,
        segments: Range<usize>,
        next: Range<usize>,
        panels: Range<usize>,
        out: &mut [f32],
        stride: usize,
        columns: usize,
        accumulator: Accumulator,
    ) {
        let Self { unit, a, first_block, rows, b } = *self;
        let square = DEPTH * LANE;
        let mut parts: Vec<_> = segments
            .clone()
            .filter(|_| a.steps() > 0)
            .map(|_| Segment::new(square, HEIGHT * square, a.steps() / DEPTH))
            .collect();
        let blocks = rows.div_ceil(HEIGHT);
        let fetched = next.flat_map(|segment| {
            let of_a = a.lanes_of_groups(segment, first_block..first_block + blocks);
            [of_a, b.lanes_of_groups(segment, panels.clone())]
        });
        let times = blocks * panels.len() * segments.len() * a.steps() / DEPTH;
        let mut ahead = Ahead::new(fetched.collect(), times);
        for block in 0..blocks {
            let top = block * HEIGHT;
            let height = HEIGHT.min(rows - top);
            for (part, segment) in parts.iter_mut().zip(segments.clone()) {
                part.set_rows(bytes_of(a.lanes_from(segment, first_block + block)), height);
            }
            for panel in panels.clone() {
                for (part, segment) in parts.iter_mut().zip(segments.clone()) {
                    part.set_panel(b.lanes_from(segment, panel));
                }
                let left = (panel - panels.start) * WIDTH;
                let columns = WIDTH.min(columns - left);
                let c = Target { values: &mut out[top * stride + left..], stride, columns };
                compute(unit, HEIGHT / 2, height, &parts, c, accumulator.at(left, columns), &mut || ahead.fetch_some());
            }
        }
    }
}

thread_local! {
    /// Memory for sums that several passes are added to.
    static SUMS: RefCell<Aligned<f32>> = RefCell::default();
}

/// [`store_rows`], past the caches where nothing is added to C: C then was not read, so it is not in the cache.
fn store_past_caches(
    sums: &[f32],
    stride: usize,
    rows: usize,
    c: &mut [f32],
    c_stride: usize,
    columns: usize,
    accumulator: Accumulator,
) {
    #[cfg(target_arch = "x86_64")]
    if let (Accumulator::Zero, Some(avx512)) = (accumulator, Avx512::detect())
        && avx512.stream_rows(sums, stride, rows, c, c_stride, columns)
    {
        return;
    }
    store_rows(sums, stride, rows, c, c_stride, columns, accumulator);
}

/// Rows of half a block, so that `rows` rows are divided into as few blocks as possible, of about equal height.
fn half_of_blocks(rows: usize) -> usize {
    let blocks = rows.div_ceil(HEIGHT).max(1);
    rows.div_ceil(blocks).div_ceil(2).max(1)
}

/// A block of C.
struct Target<'a> {
    /// C from the block's first value on.
    values: &'a mut [f32],
    /// Values from a row to the next.
    stride: usize,
    columns: usize,
}

/// Computes a block of C of `height` rows, in halves of `half` rows if it has as many. Halves may share rows, which are
/// then computed twice: that takes less time than a new configuration of the registers.
fn compute(
    unit: impl TileUnit,
    half: usize,
    height: usize,
    segments: &[Segment],
    c: Target,
    accumulator: Accumulator,
    beside: &mut impl FnMut(),
) {
    let Target { values, stride, columns } = c;
    let half = if height >= half { half } else { height.div_ceil(2) };
    let block = Block { half, lower: height - half, columns: columns.div_ceil(TILE_COLUMNS) };
    if columns.is_multiple_of(TILE_COLUMNS) && !segments.is_empty() {
        let start = match accumulator {
            Accumulator::Zero => Start::Zero,
            Accumulator::Output => Start::Output,
            Accumulator::Bias(bias) => Start::Rows(Rows { values: bias, stride: 0 }),
        };
        return unit.multiply(block, segments, start, RowsMut { values, stride }, beside);
    }
    let mut sums = [[0.0; WIDTH]; HEIGHT];
    if !segments.is_empty() {
        let sums = RowsMut { values: sums.as_flattened_mut(), stride: WIDTH };
        unit.multiply(block, segments, Start::Zero, sums, beside);
    }
    store_rows(sums.as_flattened(), WIDTH, height, values, stride, columns, accumulator);
}

/// Adds `columns` columns of sums, whose rows are `stride` apart, to what the accumulator says, and stores them to rows
/// that are `c_stride` apart.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn store_rows(
    sums: &[f32],
    stride: usize,
    rows: usize,
    c: &mut [f32],
    c_stride: usize,
    columns: usize,
    accumulator: Accumulator,
) {
    for (row, c) in c.chunks_mut(c_stride).take(rows).enumerate() {
        let (sums, c) = (&sums[row * stride..][..columns], &mut c[..columns]);
        match accumulator {
            Accumulator::Zero => c.copy_from_slice(sums),
            Accumulator::Output => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
            Accumulator::Bias(bias) => c.iter_mut().zip(sums).zip(bias).for_each(|((c, sum), bias)| *c = sum + bias),
        }
    }
}

/// The memory of numbers.
fn bytes_of<T: Number>(values: &[T]) -> &[u8] {
    // SAFETY: a number is made of bytes without padding, and any byte may be read as `u8`.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// What [`bytes_of`] may look into.
trait Number {}
impl Number for u32 {}
impl Number for Bf16 {}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::{amx::Amx, amx_model::AmxModel};
    use super::*;
    use crate::pack::{PackedLayout, pack_depth_by_row};
    use crate::testing::numbers;

    /// Stored rows, of which every tenth value is smaller than any normal number.
    fn stored(rows: usize, columns: usize, seed: u64) -> Vec<Bf16> {
        let row = padded::<Bf16>(columns);
        let mut out = vec![Bf16::ZERO; rows * row];
        for (i, value) in numbers(rows * columns, seed).into_iter().enumerate() {
            let value = if i % 10 == 9 { value * f32::MIN_POSITIVE } else { value };
            out[i / columns * row + i % columns] = Bf16::from_f32(value);
        }
        out
    }

    /// Computes products by rows and of packed operands, with every accumulator.
    fn products(unit: impl TileUnit, [m, k, n]: [usize; 3]) -> [Vec<f32>; 3] {
        let (by_row, by_depth, b) = (stored(m, k, 1), stored(k, m, 2), stored(k, n, 3));
        let of_b = PackedLayout::new::<Bf16>(k, n, WIDTH).with_whole_squares();
        let of_a = PackedLayout::new::<Bf16>(k, m, HEIGHT).in_squares();
        let (mut panels, mut blocks) = (vec![0; of_b.lanes()], vec![0; of_a.lanes()]);
        pack_depth_by_row(Matrix::new(&b, k, n), of_b, &mut panels);
        pack_depth_by_row(Matrix::new(&by_depth, k, m), of_a, &mut blocks);
        let (panels, blocks) = (Packed::new(&panels, of_b), Packed::new(&blocks, of_a));
        let bias = numbers(n, 5);
        let with = |accumulator: Accumulator| {
            let mut c = [(); 2].map(|_| numbers(m * n, 4));
            let (a, mut times, mut work) = (Matrix::new(&by_row, m, k), 0, Vec::new());
            // vector instructions and memory, which must leave the sums as they are
            product(unit, a, panels, &mut c[0], n, accumulator, &mut || {
                times += 1;
                work = numbers(50, times as u64).into_iter().map(f32::sqrt).collect::<Vec<f32>>();
            });
            assert_eq!((times, work.len()), (times_beside(a) * panels.groups(), 50));
            product_of_packed(unit, blocks, 0, panels, &mut c[1], accumulator, None);
            c.concat()
        };
        [Accumulator::Zero, Accumulator::Output, Accumulator::Bias(&bias)].map(with)
    }

    /// A product within a product.
    fn nested(unit: impl TileUnit) {
        let (a, b) = (stored(5, 40, 1), stored(40, 30, 2));
        let layout = PackedLayout::new::<Bf16>(40, 30, WIDTH).with_whole_squares();
        let mut panels = vec![0; layout.lanes()];
        pack_depth_by_row(Matrix::new(&b, 40, 30), layout, &mut panels);
        let (a, b, mut inner) = (Matrix::new(&a, 5, 40), Packed::new(&panels, layout), vec![0.0; 150]);
        product(unit, a, b, &mut [0.0; 150], 30, Accumulator::Zero, &mut || {
            product(unit, a, b, &mut inner, 30, Accumulator::Zero, &mut || {});
        });
    }

    #[test]
    #[should_panic(expected = "a product within a product")]
    fn the_model_refuses_a_product_within_a_product() {
        nested(AmxModel);
    }

    #[test]
    #[should_panic(expected = "a product within a product")]
    fn the_cpu_refuses_a_product_within_a_product() {
        match Amx::detect() {
            Some(amx) => nested(amx),
            None => nested(AmxModel), // without AMX there is nothing else to try
        }
    }

    #[test]
    fn the_model_computes_the_same_bits_as_the_cpu() {
        // without AMX there is nothing to compare with; the other tests run the model on every machine
        let Some(amx) = Amx::detect() else { return };
        for size in [[1, 1, 1], [5, 32, 16], [17, 70, 49], [64, 96, 100], [33, 200, 33]] {
            assert!(products(amx, size) == products(AmxModel, size), "{size:?}");
        }
        crate::product::release();
    }
}
