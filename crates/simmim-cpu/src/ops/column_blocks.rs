//! Division of a weight's columns into blocks, which are so narrow that the product of a chunk and a block stays in the
//! cache for the epilogue.

use crate::Cpu;
use simmim_kernels::dtype::Dtype;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::Accumulator;

/// Columns of a block, which is rounded to whole panels.
const COLUMNS: usize = 96;

/// The size of blocks.
#[derive(Clone, Copy)]
pub(super) struct ColumnBlocks {
    panels: usize,
    panel_width: usize,
}

/// One block.
#[derive(Clone, Copy)]
pub(super) struct ColumnBlock<'a> {
    /// The first column.
    pub(super) left: usize,
    /// The block's columns of the weight.
    pub(super) weight: Packed<'a>,
}

impl ColumnBlocks {
    /// Blocks for the tiles of a backend.
    pub(super) fn new<T: Dtype>(cpu: &Cpu) -> Self {
        let panel_width = cpu.tile.panels::<T>(0, 0).width();
        Self { panels: (COLUMNS / panel_width).max(1), panel_width }
    }

    /// Columns of a full block.
    pub(super) fn columns(&self) -> usize {
        self.panels * self.panel_width
    }

    /// The blocks of a weight.
    pub(super) fn of<'a>(&self, weight: Packed<'a>) -> impl Iterator<Item = ColumnBlock<'a>> + use<'a> {
        let Self { panels, panel_width } = *self;
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
    pub(super) fn accumulator<'b>(&self, whole: Accumulator<'b>) -> Accumulator<'b> {
        match whole {
            Accumulator::Zero => Accumulator::Zero,
            Accumulator::Output => Accumulator::Output,
            Accumulator::Bias(bias) => Accumulator::Bias(&bias[self.left..self.left + self.len()]),
        }
    }
}
