//! Products whose results are wanted only by what follows them. They are computed in blocks, each of which stays in the
//! cache until it is used.
//!
//! A block is a few columns of the weight and all rows of a chunk; vector instructions read a panel of the weight for
//! all of them. A unit for tiles stores sums so fast that even the second-level cache would hold it up, so there a block
//! has few rows as well. Reading it at once would wait for the unit, so it is used after the next block is computed.

use crate::Cpu;
use simmim_kernels::dtype::Dtype;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::{Accumulator, Tile, product};
use std::mem::swap;
use std::ops::Range;

/// Columns of a block, which is rounded to whole panels.
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

impl ColumnBlocks {
    /// Blocks for the tiles of a backend.
    pub(super) fn new<T: Dtype>(cpu: &Cpu) -> Self {
        let tile = cpu.tile;
        let panel_width = tile.panels::<T>(0, 0).width();
        let rows = tile.multiplies_tiles::<T>().then(|| tile.height::<T>());
        Self { tile, panels: (COLUMNS / panel_width).max(1), panel_width, rows }
    }

    /// Values of the memory that a chunk of `rows` rows needs for its blocks.
    pub(super) fn scratch_len(&self, rows: usize) -> usize {
        self.panels * self.panel_width * self.rows.map_or(rows, |rows| 2 * rows)
    }

    /// Computes `accumulator + A·weight` block by block, and calls `then` with the values of each, dense
    /// `[rows, columns]`, its rows and its columns.
    pub(super) fn product<T: Dtype>(
        &self,
        a: Matrix<T>,
        weight: Packed,
        accumulator: Accumulator,
        scratch: &mut [f32],
        mut then: impl FnMut(&mut [f32], Range<usize>, ColumnBlock),
    ) {
        let at_once = self.rows.unwrap_or(a.rows());
        let (mut current, mut previous) = scratch.split_at_mut(self.panels * self.panel_width * at_once);
        let mut waiting: Option<(Range<usize>, ColumnBlock)> = None;
        for columns in self.of(weight) {
            for top in (0..a.rows()).step_by(at_once.max(1)) {
                let rows = top..(top + at_once).min(a.rows());
                let block = &mut current[..rows.len() * columns.len()];
                let part = a.rows_from(top, rows.len());
                product(self.tile, part, columns.weight, block, columns.len(), columns.accumulator(accumulator));
                if self.rows.is_none() {
                    then(block, rows, columns);
                    continue;
                }
                if let Some((rows, columns)) = waiting.replace((rows, columns)) {
                    then(&mut previous[..rows.len() * columns.len()], rows, columns);
                }
                swap(&mut current, &mut previous);
            }
        }
        if let Some((rows, columns)) = waiting {
            then(&mut previous[..rows.len() * columns.len()], rows, columns);
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
