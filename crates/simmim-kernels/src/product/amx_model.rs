//! A model of AMX in plain Rust: the same tiles and the same products, for a CPU that has none.
//!
//! It specifies what the assembly computes. Tests run it on every machine, with the packing, the blocks and the tails
//! that the CPU's own unit is given, and compare the two where both are at hand.

use super::tiles::{Block, RowsMut, Segment, Start, TileUnit, WIDTH};
use std::cell::Cell;

/// A tile register: 16 rows of 16 lanes. A lane is one f32 sum, or two bf16 that follow each other along the depth.
type Tile = [[u32; 16]; 16];

thread_local! {
    /// Whether this thread computes a product, as the CPU's registers are held then.
    static MULTIPLIES: Cell<bool> = const { Cell::new(false) };
}

/// The model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AmxModel;

impl TileUnit for AmxModel {
    fn multiply(self, block: Block, segments: &[Segment], start: Start, c: RowsMut, beside: &mut impl FnMut()) {
        assert!(!MULTIPLIES.replace(true), "a product within a product");
        let Block { half, lower, columns } = block;
        let (values, stride) = match start {
            Start::Zero => (&[0.0; WIDTH][..], 0),
            Start::Rows(start) => (start.values, start.stride),
            Start::Output => (&*c.values, c.stride),
        };
        let mut sums = [[Tile::default(); 3]; 2]; // all of them are computed before any is stored
        for (top, sums) in [0, lower].into_iter().zip(&mut sums) {
            for (column, sums) in sums[..columns].iter_mut().enumerate() {
                *sums = load(half, |row| lanes_at(values, (top + row) * stride + 16 * column).map(f32::to_bits));
                for segment in segments {
                    for block in 0..segment.blocks() {
                        let a = load(half, |row| segment.a(top + row, block));
                        let b = load(16, |step| segment.b(16 * block + step, column));
                        multiply_add(sums, &a, &b, half);
                    }
                }
            }
        }
        segments.iter().for_each(|segment| (0..segment.blocks()).for_each(|_| beside()));
        MULTIPLIES.set(false);
        for (top, sums) in [0, lower].into_iter().zip(&sums) {
            for (column, sums) in sums[..columns].iter().enumerate() {
                for (row, sums) in sums[..half].iter().enumerate() {
                    let first = (top + row) * c.stride + 16 * column;
                    c.values[first..first + 16].copy_from_slice(&sums.map(f32::from_bits));
                }
            }
        }
    }
}

/// Sixteen values from `first` on.
fn lanes_at(values: &[f32], first: usize) -> [f32; 16] {
    std::array::from_fn(|lane| values[first + lane])
}

/// `tileloadd`: rows from memory; the other rows become zero.
fn load(rows: usize, row: impl Fn(usize) -> [u32; 16]) -> Tile {
    std::array::from_fn(|i| if i < rows { row(i) } else { [0; 16] })
}

/// `tdpbf16ps`: `c += a·b`, two products in each lane of the depth. What is smaller than any normal number counts as
/// zero (Intel's manual, volume 2, TDPBF16PS).
fn multiply_add(c: &mut Tile, a: &Tile, b: &Tile, rows: usize) {
    let halves = |lane: u32| [lane << 16, lane & 0xffff_0000].map(|bits| normal(f32::from_bits(bits)));
    for (c, a) in c[..rows].iter_mut().zip(a) {
        for (n, c) in c.iter_mut().enumerate() {
            let mut sums = [0.0f32; 2]; // of the lower halves of all lanes, and of the upper halves
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (halves(*a), halves(b[n]));
                for i in 0..2 {
                    sums[i] = normal(a[i].mul_add(b[i], sums[i]));
                }
            }
            *c = normal(f32::from_bits(*c) + normal(sums[0] + sums[1])).to_bits();
        }
    }
}

/// A value, or zero if it is smaller than any normal number.
fn normal(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}
