//! Products whose results are wanted only by what follows them. They are computed in blocks, each of which stays in the
//! cache until it is used.
//!
//! A block is a few columns of the weight. For vector instructions it has all rows of a chunk, because they read a panel of the
//! weight for all of them. A unit for tiles stores sums so fast that even the second-level cache would hold it up, so there
//! a block has few rows as well. Reading it at once would wait for the unit, so it is used piece by piece beside the next
//! product. Meanwhile those columns of the weight are fetched that come after the next few ones.

use crate::Cpu;
use simmim_kernels::dtype::Dtype;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Accumulator, Ahead, Tile, panels_at_once, product, product_beside, times_beside};
use std::mem::swap;
use std::ops::Range;

/// Columns of a block for vector instructions, which is rounded to whole panels. For a unit for tiles it is one panel.
const COLUMNS: usize = 96;

/// The size of blocks.
#[derive(Clone, Copy)]
pub(super) struct ColumnBlocks {
    tile: Tile,
    panels: usize,
    panel_width: usize,
    /// Rows of a block; all of a chunk if there is no number.
    rows: Option<usize>,
}

/// A block's columns of a weight.
#[derive(Clone, Copy)]
pub(super) struct ColumnBlock<'a> {
    /// The first column.
    pub(super) left: usize,
    weight: Packed<'a>,
}

/// A block that is computed, and how many of its rows have been used.
struct Waiting<'a> {
    columns: ColumnBlock<'a>,
    rows: Range<usize>,
    used: usize,
}

impl ColumnBlocks {
    /// Blocks for the tiles of a backend.
    pub(super) fn new<T: Dtype>(cpu: &Cpu) -> Self {
        let tile = cpu.tile;
        let panel_width = tile.panels::<T>(0, 0).width();
        match tile.multiplies_tiles::<T>() {
            true => Self { tile, panels: 1, panel_width, rows: Some(tile.height::<T>()) },
            false => Self { tile, panels: (COLUMNS / panel_width).max(1), panel_width, rows: None },
        }
    }

    /// Values of the memory that a chunk of `rows` rows needs for its blocks.
    pub(super) fn scratch_len(&self, rows: usize) -> usize {
        self.panels * self.panel_width * self.rows.map_or(rows, |rows| 2 * rows)
    }

    /// Computes `accumulator + A·weight` block by block, and calls `then` with the values of some rows of a block, dense
    /// `[rows, columns]`, these rows and the block's columns.
    pub(super) fn product<T: Dtype>(
        &self,
        a: Matrix<T>,
        weight: Packed,
        accumulator: Accumulator,
        scratch: &mut [f32],
        mut then: impl FnMut(&mut [f32], Range<usize>, ColumnBlock),
    ) {
        let Some(rows) = self.rows else {
            for columns in self.of(weight) {
                let block = &mut scratch[..a.rows() * columns.len()];
                product(self.tile, a, columns.weight, block, columns.len(), columns.accumulator(accumulator));
                then(block, 0..a.rows(), columns);
            }
            return;
        };
        let (mut current, mut previous) = scratch.split_at_mut(self.panels * self.panel_width * rows);
        let mut waiting: Option<Waiting> = None;
        let blocks: Vec<_> = self.of(weight).collect();
        let panels = panels_at_once(weight); // as many blocks, each of one panel
        for (number, at_once) in blocks.chunks(panels).enumerate() {
            let next = weight.groups().min((number + 1) * panels)..weight.groups().min((number + 2) * panels);
            let times =
                at_once.len() * a.rows().div_ceil(rows) * times_beside(self.tile, a.rows_from(0, rows.min(a.rows())));
            let mut ahead = Ahead::new(vec![weight.lanes_of_groups(0, next)], times);
            for top in (0..a.rows()).step_by(rows) {
                let rows = top..(top + rows).min(a.rows());
                let part = a.rows_from(top, rows.len());
                let piece = rows.len().div_ceil(times_beside(self.tile, part).max(1));
                for columns in at_once {
                    let block = &mut current[..rows.len() * columns.len()];
                    let start = columns.accumulator(accumulator);
                    product_beside(self.tile, part, columns.weight, block, columns.len(), start, || {
                        ahead.fetch_some();
                        if let Some(waiting) = &mut waiting {
                            waiting.use_rows(piece, previous, &mut then);
                        }
                    });
                    if let Some(mut waiting) =
                        waiting.replace(Waiting { columns: *columns, rows: rows.clone(), used: 0 })
                    {
                        waiting.use_rows(waiting.rows.len(), previous, &mut then);
                    }
                    swap(&mut current, &mut previous);
                }
            }
        }
        if let Some(mut waiting) = waiting {
            waiting.use_rows(waiting.rows.len(), previous, &mut then);
        }
    }

    /// The blocks of a weight.
    fn of<'a>(&self, weight: Packed<'a>) -> impl Iterator<Item = ColumnBlock<'a>> + use<'a> {
        let Self { panels, panel_width, .. } = *self;
        (0..weight.groups())
            .step_by(panels)
            .map(move |first| ColumnBlock { left: first * panel_width, weight: weight.groups_from(first, panels) })
    }
}

impl Waiting<'_> {
    /// Calls `then` with the next `count` rows of the block, or as many as there are.
    #[inline]
    fn use_rows(
        &mut self,
        count: usize,
        block: &mut [f32],
        then: &mut impl FnMut(&mut [f32], Range<usize>, ColumnBlock),
    ) {
        let count = count.min(self.rows.len() - self.used);
        if count > 0 {
            let (width, first) = (self.columns.len(), self.rows.start + self.used);
            let part = &mut block[self.used * width..(self.used + count) * width];
            then(part, first..first + count, self.columns);
            self.used += count;
        }
    }
}

impl ColumnBlock<'_> {
    /// Number of columns.
    pub(super) fn len(&self) -> usize {
        self.weight.columns()
    }

    /// The block's columns of an accumulator for the whole weight.
    fn accumulator<'b>(&self, whole: Accumulator<'b>) -> Accumulator<'b> {
        match whole {
            Accumulator::Zero => Accumulator::Zero,
            Accumulator::Output => Accumulator::Output,
            Accumulator::Bias(bias) => Accumulator::Bias(&bias[self.left..self.left + self.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::{ParameterTable, Precision};
    use simmim_kernels::aligned::Aligned;
    use simmim_kernels::dtype::{Bf16, padded};
    use simmim_kernels::pack::pack_depth_by_row;
    use simmim_kernels::product::product_naive;

    fn values(count: usize, seed: usize) -> Vec<Bf16> {
        (0..count).map(|i| Bf16::from_f32(((i * 7 + seed) % 64) as f32 / 64.0 - 0.5)).collect()
    }

    #[test]
    fn every_row_of_every_block_is_used_once_and_in_order() {
        // so deep that a unit for tiles takes a few of ten panels at a time
        let (rows, depth, columns) = (70, 1000, 450);
        let (a, b) = (values(rows * padded::<Bf16>(depth), 1), values(depth * columns, 2));
        let (a, b) = (Matrix::new(&a, rows, depth), Matrix::new(&b, depth, columns));
        let bias: Vec<f32> = (0..columns).map(|column| column as f32).collect();
        let mut expected = vec![0.0; rows * columns];
        product_naive(a, b, &mut expected, columns, Accumulator::Bias(&bias));
        for tile in Tile::all_available().into_iter().chain([Tile::model_of_amx()]) {
            let cpu = Cpu::with_tile(ParameterTable::default(), Precision::Bf16, 1, tile);
            let (blocks, layout) = (ColumnBlocks::new::<Bf16>(&cpu), tile.panels::<Bf16>(depth, columns));
            let mut panels = Aligned::new(layout.lanes());
            pack_depth_by_row(b, layout, &mut panels);
            let mut scratch = vec![0.0; blocks.scratch_len(rows)];
            let (mut got, mut used) = (vec![0.0; rows * columns], vec![0; columns]);
            let weight = Packed::new(&panels, layout);
            blocks.product(a, weight, Accumulator::Bias(&bias), &mut scratch, |block, rows, columns_of_block| {
                let (left, width) = (columns_of_block.left, columns_of_block.len());
                assert_eq!(used[left], rows.start, "{}, column {left}", tile.name());
                used[left] = rows.end;
                for (row, values) in rows.zip(block.chunks_exact(width)) {
                    got[row * columns + left..][..width].copy_from_slice(values);
                }
            });
            let largest = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
            assert!(largest < 1e-3, "{} is off by {largest}", tile.name()); // sums of a thousand products, up to 450
        }
    }
}
