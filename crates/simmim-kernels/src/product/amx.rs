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

use super::tiles::{Block, DEPTH, HEIGHT, RowsMut, Segment, Start, TILE_COLUMNS, TileUnit, WIDTH};
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
    fn multiply(self, block: Block, segments: &[Segment], start: Start, c: RowsMut) {
        let Block { half, lower, columns } = block;
        assert!(lower + half <= HEIGHT && (1..=WIDTH / TILE_COLUMNS).contains(&columns) && !segments.is_empty());
        assert!(c.has(lower + half, columns * TILE_COLUMNS), "C is too short");
        if let Start::Rows(start) = &start {
            assert!(start.has(lower + half, columns * TILE_COLUMNS), "too few values to start from");
        }
        segments.iter().for_each(|segment| assert!(lower + half <= segment.rows(), "a segment has too few rows"));
        let (c_row, c) = (c.stride * size_of::<f32>(), c.values.as_mut_ptr());
        let (start_row, start) = match start {
            Start::Zero => (0, std::ptr::null()),
            Start::Rows(start) => (start.stride * size_of::<f32>(), start.values.as_ptr()),
            Start::Output => (c_row, c.cast_const()),
        };
        // SAFETY: `self` proves that the unit may be used. The segments have `lower + half` rows, and the first values
        // and C have as many, of the columns of all tiles.
        unsafe {
            amx::configure(half);
            match columns {
                1 => one_column(segments, lower, start, start_row, c, c_row),
                2 => two_columns(segments, lower, start, start_row, c, c_row),
                _ => three_columns(segments, lower, start, start_row, c, c_row),
            }
        }
    }
}

/// Bytes from a step of a panel to the next.
const ROW: usize = WIDTH * size_of::<f32>();

/// Writes the loop over segments and, within it, over blocks of the depth around the `products` of a block.
///
/// Registers: `{a}` and `{lower}` lead to the tiles of A, whose rows are `{row}` bytes apart; `{b}` leads to those of B,
/// whose rows are `{b_row}` bytes apart. Before the products, `{start}` and `{lower}` lead to the values that the sums
/// start from, with rows `{row}` bytes apart, and after them `{c}` and `{lower}` lead to C, with rows `{c_row}` apart.
macro_rules! kernel {
    ($(#[$about:meta])* $name:ident, zero: [$($zero:literal),*], load: [$($load:literal),*], products: [$($product:literal),*], store: [$($store:literal),*]) => {
        $(#[$about])*
        ///
        /// # Safety
        /// - The unit is available, and configured for halves of rows of which the second begins `lower` rows after the
        ///   first.
        /// - The segments have the rows of both halves. So have `c` and, unless it is null, `start`, `start_row` and `c_row` bytes apart,
        ///   with the columns of all tiles, and nothing else reads or writes those of `c` meanwhile.
        unsafe fn $name(
            segments: &[Segment],
            lower: usize,
            start: *const f32,
            start_row: usize,
            c: *mut f32,
            c_row: usize,
        ) {
            // SAFETY: each segment asserted that all its rows and blocks may be read. The caller promises the rest.
            unsafe {
                asm!(
                    "test {start}, {start}",
                    "jz 4f",
                    "mov {lower}, {lower_rows}",
                    "imul {lower}, {row}",
                    "add {lower}, {start}",
                    $($load,)*
                    "jmp 2f",
                    "4:",
                    $($zero,)*
                    "2:",
                    "mov {a}, [{segment}]",
                    "mov {row}, [{segment} + 8]",
                    "mov {a_block}, [{segment} + 16]",
                    "mov {b}, [{segment} + 24]",
                    "mov {blocks}, [{segment} + 32]",
                    "mov {lower}, {lower_rows}",
                    "imul {lower}, {row}",
                    "add {lower}, {a}",
                    "3:",
                    $($product,)*
                    "add {a}, {a_block}",
                    "add {lower}, {a_block}",
                    "add {b}, {b_block}",
                    "dec {blocks}",
                    "jnz 3b",
                    "add {segment}, {segment_len}",
                    "dec {segments}",
                    "jnz 2b",
                    "mov {lower}, {lower_rows}",
                    "imul {lower}, {c_row}",
                    "add {lower}, {c}",
                    $($store,)*
                    segment = inout(reg) segments.as_ptr() => _,
                    segments = inout(reg) segments.len() => _,
                    segment_len = const size_of::<Segment>(),
                    lower_rows = in(reg) lower,
                    lower = out(reg) _,
                    start = in(reg) start,
                    row = inout(reg) start_row => _,
                    c = in(reg) c,
                    c_row = in(reg) c_row,
                    a = out(reg) _,
                    a_block = out(reg) _,
                    b = out(reg) _,
                    b_row = in(reg) ROW,
                    b_block = const DEPTH * ROW,
                    blocks = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

kernel! {
    /// The sums of three tiles in each row.
    three_columns,
    zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", "tilezero tmm4", "tilezero tmm5"],
    load: [
        "tileloadd tmm0, [{start} + {row}]",
        "tileloadd tmm1, [{start} + {row} + 64]",
        "tileloadd tmm2, [{start} + {row} + 128]",
        "tileloadd tmm3, [{lower} + {row}]",
        "tileloadd tmm4, [{lower} + {row} + 64]",
        "tileloadd tmm5, [{lower} + {row} + 128]"
    ],
    products: [
        "tileloadd tmm6, [{a} + {row}]",
        "tileloadd tmm7, [{b} + {b_row}]",
        "tdpbf16ps tmm0, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {row}]",
        "tdpbf16ps tmm3, tmm6, tmm7",
        "tileloadd tmm7, [{b} + {b_row} + 64]",
        "tdpbf16ps tmm4, tmm6, tmm7",
        "tileloadd tmm6, [{a} + {row}]",
        "tdpbf16ps tmm1, tmm6, tmm7",
        "tileloadd tmm7, [{b} + {b_row} + 128]",
        "tdpbf16ps tmm2, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {row}]",
        "tdpbf16ps tmm5, tmm6, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_row}], tmm0",
        "tilestored [{c} + {c_row} + 64], tmm1",
        "tilestored [{c} + {c_row} + 128], tmm2",
        "tilestored [{lower} + {c_row}], tmm3",
        "tilestored [{lower} + {c_row} + 64], tmm4",
        "tilestored [{lower} + {c_row} + 128], tmm5"
    ]
}

kernel! {
    /// The sums of two tiles in each row.
    two_columns,
    zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm3", "tilezero tmm4"],
    load: [
        "tileloadd tmm0, [{start} + {row}]",
        "tileloadd tmm1, [{start} + {row} + 64]",
        "tileloadd tmm3, [{lower} + {row}]",
        "tileloadd tmm4, [{lower} + {row} + 64]"
    ],
    products: [
        "tileloadd tmm6, [{a} + {row}]",
        "tileloadd tmm7, [{b} + {b_row}]",
        "tdpbf16ps tmm0, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {row}]",
        "tdpbf16ps tmm3, tmm6, tmm7",
        "tileloadd tmm7, [{b} + {b_row} + 64]",
        "tdpbf16ps tmm4, tmm6, tmm7",
        "tileloadd tmm6, [{a} + {row}]",
        "tdpbf16ps tmm1, tmm6, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_row}], tmm0",
        "tilestored [{c} + {c_row} + 64], tmm1",
        "tilestored [{lower} + {c_row}], tmm3",
        "tilestored [{lower} + {c_row} + 64], tmm4"
    ]
}

kernel! {
    /// The sums of one tile in each row.
    one_column,
    zero: ["tilezero tmm0", "tilezero tmm3"],
    load: [
        "tileloadd tmm0, [{start} + {row}]",
        "tileloadd tmm3, [{lower} + {row}]"
    ],
    products: [
        "tileloadd tmm7, [{b} + {b_row}]",
        "tileloadd tmm6, [{a} + {row}]",
        "tdpbf16ps tmm0, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {row}]",
        "tdpbf16ps tmm3, tmm6, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_row}], tmm0",
        "tilestored [{lower} + {c_row}], tmm3"
    ]
}
