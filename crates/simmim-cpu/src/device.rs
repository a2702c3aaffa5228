//! The CPU as a device: what it is called, how it opens a backend, and how fast it is.

use crate::{Cpu, product_peak};
use simmim_engine::{Device, ParameterTable, Precision, ProductPeak};
use simmim_kernels::product::Tile;

/// The cores of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuDevice {
    /// Worker threads. Their number does not change any result.
    pub threads: usize,
}

impl Device for CpuDevice {
    type Backend = Cpu;

    fn name(&self) -> String {
        "cpu".into()
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn open(&self, table: ParameterTable, precision: Precision) -> Cpu {
        Cpu::new(table, precision, self.threads)
    }

    fn fastest_precision(&self) -> (Precision, String) {
        product_peak::fastest_precision()
    }

    fn precision_note(&self, precision: Precision) -> Option<String> {
        let widens = precision == Precision::Bf16 && !Tile::detect().multiplies_bf16();
        widens.then(|| "this CPU has no instructions for bf16, so operands are widened to f32".into())
    }

    fn product_peak(&self, precision: Precision) -> ProductPeak {
        product_peak::product_peak(precision, self.threads)
    }
}
