//! The sums of a block of C by the tile registers of AMX, in assembly.
//!
//! ```text
//!               ┌ B left ┐┌ B middle ┐┌ B right ┐   16 steps of depth × 16 lanes each, loaded to register 7 in turn
//!  ┌ A upper ┐    tmm0      tmm1        tmm2
//!  └─────────┘
//!  ┌ A lower ┐    tmm3      tmm4        tmm5
//!  └─────────┘    loaded to register 6 in turn
//! ```
//!
//! For every 16 steps of the depth, six products need two tiles of A and three of B, and two registers are left to hold
//! them. So the kernel goes through the products like a snake: each shares one of its tiles with the one before it.

use super::tiles::{Block, HEIGHT, RowsMut, Segment, Start, TILE_COLUMNS, TileUnit, WIDTH};
use crate::amx;
use std::arch::asm;

/// The CPU's own unit. Having one proves that the CPU has it, and that the system permits its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amx(());

impl Amx {
    /// The unit, if the CPU has one and the system permits its use.
    pub(super) fn detect() -> Option<Self> {
        amx::is_available().then_some(Self(()))
    }
}

impl TileUnit for Amx {
    fn multiply(self, block: Block, segments: &[Segment], start: Start, c: RowsMut, beside: &mut impl FnMut()) {
        let Block { half, lower, columns } = block;
        assert!(lower + half <= HEIGHT && (1..=WIDTH / TILE_COLUMNS).contains(&columns) && !segments.is_empty());
        assert!(c.has(lower + half, columns * TILE_COLUMNS), "C is too short");
        if let Start::Rows(start) = &start {
            assert!(start.has(lower + half, columns * TILE_COLUMNS), "too few values to start from");
        }
        segments.iter().for_each(|segment| assert!(lower + half <= segment.rows(), "a segment has too few rows"));
        let c = Halves::new(c.values.as_mut_ptr(), c.stride, lower);
        let start = match start {
            Start::Zero => None,
            Start::Rows(start) => Some(Halves::new(start.values.as_ptr().cast_mut(), start.stride, lower)),
            Start::Output => Some(c),
        };
        // SAFETY: `self` proves that the unit may be used. The segments have `lower + half` rows, and the first values
        // and C have as many, of the columns of all tiles.
        unsafe {
            amx::configure(half);
            let _until_stored = amx::Held::new();
            match columns {
                1 => sums::<1>(segments, lower, start, c, beside),
                2 => sums::<2>(segments, lower, start, c, beside),
                _ => sums::<3>(segments, lower, start, c, beside),
            }
        }
    }
}

/// Bytes from a step of a panel to the next.
const ROW: usize = WIDTH * size_of::<f32>();

/// The rows of a block's upper and lower half in memory.
#[derive(Clone, Copy)]
struct Halves {
    upper: *mut f32,
    lower: *mut f32,
    /// Bytes from a row to the next.
    row: usize,
}

impl Halves {
    fn new(first: *mut f32, stride: usize, lower: usize) -> Self {
        Self { upper: first, lower: first.wrapping_add(lower * stride), row: stride * size_of::<f32>() }
    }
}

/// Computes the sums of `COLUMNS` tiles in each half, and runs `beside` after each block of the depth, whose products
/// the unit then still computes.
///
/// The sums stay in their registers from one piece of assembly to the next, while `beside` runs too. The language does not
/// promise that registers stay as they are, but the compiler touches those of tiles only for intrinsics of AMX, of which there
/// are none. A test that compares all sums with those of the model would notice.
///
/// # Safety
/// - The unit is available, and configured for halves of rows of which the second begins `lower` rows after the first.
/// - The segments have the rows of both halves. So have `c` and `start`, with the columns of all tiles, and nothing else
///   reads or writes those of `c` meanwhile.
/// - The registers are [`amx::Held`], so that `beside` cannot configure them anew or release them.
#[inline(always)]
unsafe fn sums<const COLUMNS: usize>(
    segments: &[Segment],
    lower: usize,
    start: Option<Halves>,
    c: Halves,
    beside: &mut impl FnMut(),
) {
    // SAFETY: each segment asserted that all its rows and blocks may be read. The caller promises the rest.
    unsafe {
        match start {
            None => zero::<COLUMNS>(),
            Some(start) => load::<COLUMNS>(start),
        }
        for segment in segments {
            for block in 0..segment.blocks() {
                let (a, row, b) = segment.tiles(block);
                multiply::<COLUMNS>(a, a.wrapping_add(lower * row), row, b);
                beside();
            }
        }
        store::<COLUMNS>(c);
    }
}

/// Assembly that is the same for one, two and three tiles in each half, but for the instructions of the second and the third
/// ones.
macro_rules! by_columns {
    ($columns:ident, [$($first:literal),*], [$($second:literal),*], [$($third:literal),*], $($operands:tt)*) => {
        match $columns {
            1 => asm!($($first,)* $($operands)*),
            2 => asm!($($first,)* $($second,)* $($operands)*),
            _ => asm!($($first,)* $($second,)* $($third,)* $($operands)*),
        }
    };
}

/// Sets the sums to zero.
#[inline(always)]
unsafe fn zero<const COLUMNS: usize>() {
    // SAFETY: the caller promises that the unit is available and configured.
    unsafe {
        by_columns!(
            COLUMNS,
            ["tilezero tmm0", "tilezero tmm3"],
            ["tilezero tmm1", "tilezero tmm4"],
            ["tilezero tmm2", "tilezero tmm5"],
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(nostack, nomem, preserves_flags)
        );
    }
}

/// Sets the sums to values in memory.
#[inline(always)]
unsafe fn load<const COLUMNS: usize>(from: Halves) {
    // SAFETY: the caller promises that the unit is available and configured, and that the rows may be read.
    unsafe {
        by_columns!(
            COLUMNS,
            ["tileloadd tmm0, [{upper} + {row}]", "tileloadd tmm3, [{lower} + {row}]"],
            ["tileloadd tmm1, [{upper} + {row} + 64]", "tileloadd tmm4, [{lower} + {row} + 64]"],
            ["tileloadd tmm2, [{upper} + {row} + 128]", "tileloadd tmm5, [{lower} + {row} + 128]"],
            upper = in(reg) from.upper,
            lower = in(reg) from.lower,
            row = in(reg) from.row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// Writes the sums to memory.
#[inline(always)]
unsafe fn store<const COLUMNS: usize>(to: Halves) {
    // SAFETY: the caller promises that the unit is available and configured, and that the rows may be written.
    unsafe {
        by_columns!(
            COLUMNS,
            ["tilestored [{upper} + {row}], tmm0", "tilestored [{lower} + {row}], tmm3"],
            ["tilestored [{upper} + {row} + 64], tmm1", "tilestored [{lower} + {row} + 64], tmm4"],
            ["tilestored [{upper} + {row} + 128], tmm2", "tilestored [{lower} + {row} + 128], tmm5"],
            upper = in(reg) to.upper,
            lower = in(reg) to.lower,
            row = in(reg) to.row,
            options(nostack, preserves_flags)
        );
    }
}

/// Adds the products of a block of the depth to the sums. `upper` and `lower` lead to the tiles of A, with rows `row` bytes
/// apart, and `b` to those of B.
///
/// Tiles of B are loaded past the first-level cache: a product reads them once for a block of A, which is then still there
/// for the next panel.
#[inline(always)]
unsafe fn multiply<const COLUMNS: usize>(upper: *const u8, lower: *const u8, row: usize, b: *const u32) {
    // SAFETY: the caller promises that the unit is available and configured, and that the tiles may be read.
    unsafe {
        by_columns!(
            COLUMNS,
            [
                "tileloadd tmm6, [{upper} + {row}]",
                "tileloaddt1 tmm7, [{b} + {b_row}]",
                "tdpbf16ps tmm0, tmm6, tmm7",
                "tileloadd tmm6, [{lower} + {row}]",
                "tdpbf16ps tmm3, tmm6, tmm7"
            ],
            [
                "tileloaddt1 tmm7, [{b} + {b_row} + 64]",
                "tdpbf16ps tmm4, tmm6, tmm7",
                "tileloadd tmm6, [{upper} + {row}]",
                "tdpbf16ps tmm1, tmm6, tmm7"
            ],
            [
                "tileloaddt1 tmm7, [{b} + {b_row} + 128]",
                "tdpbf16ps tmm2, tmm6, tmm7",
                "tileloadd tmm6, [{lower} + {row}]",
                "tdpbf16ps tmm5, tmm6, tmm7"
            ],
            upper = in(reg) upper,
            lower = in(reg) lower,
            row = in(reg) row,
            b = in(reg) b,
            b_row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags)
        );
    }
}
