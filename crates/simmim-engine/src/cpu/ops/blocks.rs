//! Blocks of a weight's columns: few enough that a chunk's result stays in cache for the pass behind it.

use crate::cpu::Cpu;
use simmim_kernels::pack::Packed;
use simmim_kernels::product::Start;

/// Columns of a block, rounded to whole panels.
const COLUMNS: usize = 96;

/// A way to cut packed weights into blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    panels: usize,
    panel_width: usize,
}

/// The columns of one block.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    /// The first one.
    pub(super) left: usize,
    /// These columns of the weight.
    pub(super) weight: Packed<'a>,
}

impl Blocks {
    /// Blocks for the tiles of a backend.
    pub(super) fn new(cpu: &Cpu) -> Self {
        let panel_width = cpu.tile.width();
        Self { panels: (COLUMNS / panel_width).max(1), panel_width }
    }

    /// Columns of a full block.
    pub(super) fn columns(&self) -> usize {
        self.panels * self.panel_width
    }

    /// The blocks of a weight.
    pub(super) fn of<'a>(&self, weight: Packed<'a>) -> impl Iterator<Item = Columns<'a>> + use<'a> {
        let Self { panels, panel_width } = *self;
        (0..weight.groups())
            .step_by(panels)
            .map(move |first| Columns { left: first * panel_width, weight: weight.groups_from(first, panels) })
    }
}

impl Columns<'_> {
    /// Number of columns.
    pub(super) fn len(&self) -> usize {
        self.weight.columns()
    }

    /// These columns of what the whole product starts from.
    pub(super) fn start<'b>(&self, whole: Start<'b>) -> Start<'b> {
        match whole {
            Start::Zero => Start::Zero,
            Start::Old => Start::Old,
            Start::Bias(bias) => Start::Bias(&bias[self.left..self.left + self.len()]),
        }
    }
}
