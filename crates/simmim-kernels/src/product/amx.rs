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

use super::tiles::{DEPTH, HEIGHT, Segment, Sums, TileUnit, WIDTH};
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
    fn multiply(self, half: usize, lower: usize, columns: usize, segments: &[Segment], sums: &mut Sums) {
        assert!(lower + half <= HEIGHT && !segments.is_empty());
        segments.iter().for_each(|segment| assert!(lower + half <= segment.rows(), "a segment has too few rows"));
        // SAFETY: `self` proves that the unit may be used. The segments have `lower + half` rows, and so have the sums.
        unsafe {
            amx::configure(half);
            match columns {
                1 => one_column(segments, lower, sums),
                2 => two_columns(segments, lower, sums),
                _ => three_columns(segments, lower, sums),
            }
        }
    }
}

/// Bytes from a step of a panel to the next, and from a row of the sums to the next.
const ROW: usize = WIDTH * size_of::<f32>();

/// Writes the loop over segments and, within it, over blocks of the depth around the `products` of a block.
///
/// Registers: `{a}` and `{lower}` lead to the tiles of A, whose rows are `{a_row}` bytes apart; `{b}` leads to those of
/// B, whose rows are `{row}` bytes apart, as those of the sums `{c}` are.
macro_rules! kernel {
    ($(#[$about:meta])* $name:ident, zero: [$($zero:literal),*], products: [$($product:literal),*], store: [$($store:literal),*]) => {
        $(#[$about])*
        ///
        /// # Safety
        /// - The unit is available, and configured for halves of rows of which the second begins `lower` rows after the
        ///   first.
        /// - The segments and the sums have that many rows.
        unsafe fn $name(segments: &[Segment], lower: usize, sums: &mut Sums) {
            // SAFETY: each segment asserted that all its rows and blocks may be read, and the sums are 32 rows of 48.
            unsafe {
                asm!(
                    $($zero,)*
                    "2:",
                    "mov {a}, [{segment}]",
                    "mov {a_row}, [{segment} + 8]",
                    "mov {a_block}, [{segment} + 16]",
                    "mov {b}, [{segment} + 24]",
                    "mov {blocks}, [{segment} + 32]",
                    "mov {lower}, {lower_rows}",
                    "imul {lower}, {a_row}",
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
                    "imul {lower}, {row}",
                    "add {lower}, {c}",
                    $($store,)*
                    segment = inout(reg) segments.as_ptr() => _,
                    segments = inout(reg) segments.len() => _,
                    segment_len = const size_of::<Segment>(),
                    lower_rows = in(reg) lower,
                    a = out(reg) _,
                    lower = out(reg) _,
                    a_row = out(reg) _,
                    a_block = out(reg) _,
                    b = out(reg) _,
                    b_block = const DEPTH * ROW,
                    blocks = out(reg) _,
                    row = in(reg) ROW,
                    c = in(reg) sums.values.as_mut_ptr(),
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
    products: [
        "tileloadd tmm6, [{a} + {a_row}]",
        "tileloadd tmm7, [{b} + {row}]",
        "tdpbf16ps tmm0, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {a_row}]",
        "tdpbf16ps tmm3, tmm6, tmm7",
        "tileloadd tmm7, [{b} + {row} + 64]",
        "tdpbf16ps tmm4, tmm6, tmm7",
        "tileloadd tmm6, [{a} + {a_row}]",
        "tdpbf16ps tmm1, tmm6, tmm7",
        "tileloadd tmm7, [{b} + {row} + 128]",
        "tdpbf16ps tmm2, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {a_row}]",
        "tdpbf16ps tmm5, tmm6, tmm7"
    ],
    store: [
        "tilestored [{c} + {row}], tmm0",
        "tilestored [{c} + {row} + 64], tmm1",
        "tilestored [{c} + {row} + 128], tmm2",
        "tilestored [{lower} + {row}], tmm3",
        "tilestored [{lower} + {row} + 64], tmm4",
        "tilestored [{lower} + {row} + 128], tmm5"
    ]
}

kernel! {
    /// The sums of two tiles in each row.
    two_columns,
    zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm3", "tilezero tmm4"],
    products: [
        "tileloadd tmm6, [{a} + {a_row}]",
        "tileloadd tmm7, [{b} + {row}]",
        "tdpbf16ps tmm0, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {a_row}]",
        "tdpbf16ps tmm3, tmm6, tmm7",
        "tileloadd tmm7, [{b} + {row} + 64]",
        "tdpbf16ps tmm4, tmm6, tmm7",
        "tileloadd tmm6, [{a} + {a_row}]",
        "tdpbf16ps tmm1, tmm6, tmm7"
    ],
    store: [
        "tilestored [{c} + {row}], tmm0",
        "tilestored [{c} + {row} + 64], tmm1",
        "tilestored [{lower} + {row}], tmm3",
        "tilestored [{lower} + {row} + 64], tmm4"
    ]
}

kernel! {
    /// The sums of one tile in each row.
    one_column,
    zero: ["tilezero tmm0", "tilezero tmm3"],
    products: [
        "tileloadd tmm7, [{b} + {row}]",
        "tileloadd tmm6, [{a} + {a_row}]",
        "tdpbf16ps tmm0, tmm6, tmm7",
        "tileloadd tmm6, [{lower} + {a_row}]",
        "tdpbf16ps tmm3, tmm6, tmm7"
    ],
    store: [
        "tilestored [{c} + {row}], tmm0",
        "tilestored [{lower} + {row}], tmm3"
    ]
}
