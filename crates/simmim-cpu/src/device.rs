//! The CPU as a device: what it is called, how it opens a backend, and how fast it is.

use crate::{Cpu, product_peak};
use simmim_engine::{Device, ParameterTable, Precision, ProductPeak};
use simmim_kernels::product::{Tile, is_amx_refused};

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
        let tile = Tile::detect();
        let note = match precision {
            Precision::Bf16 if is_amx_refused() => {
                format!("the system does not let this process use AMX, so {} multiplies bf16", tile.name())
            }
            Precision::Bf16 if !tile.multiplies_bf16() => {
                "this CPU has no instructions for bf16, so operands are widened to f32".into()
            }
            Precision::Bf16 | Precision::F32 => return None,
        };
        Some(note)
    }

    fn divides_state(&self) -> bool {
        true
    }

    fn product_peak(&self, precision: Precision) -> ProductPeak {
        product_peak::product_peak(precision, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::check;

    /// A CPU whose products in bf16 go through the tiles of AMX. They are computed by a model of its instructions, so
    /// that the ways around the products, which differ from those of vectors, are tested on every machine.
    #[derive(Clone)]
    struct ModelOfAmx {
        threads: usize,
    }

    impl Device for ModelOfAmx {
        type Backend = Cpu;

        fn name(&self) -> String {
            Tile::model_of_amx().name().into()
        }

        fn threads(&self) -> usize {
            self.threads
        }

        fn open(&self, table: ParameterTable, precision: Precision) -> Cpu {
            Cpu::with_tile(table, precision, self.threads, Tile::model_of_amx())
        }

        fn fastest_precision(&self) -> (Precision, String) {
            (Precision::Bf16, String::new())
        }

        fn precision_note(&self, _: Precision) -> Option<String> {
            None
        }

        fn product_peak(&self, precision: Precision) -> ProductPeak {
            product_peak::product_peak(precision, self.threads)
        }
    }

    #[test]
    fn every_operation_is_near_the_reference_through_the_tiles_of_amx() {
        let devices = [1, 2, 3].map(|threads| ModelOfAmx { threads });
        check::operations(&devices, Precision::Bf16, 5e-2); // the tolerance of bf16 in `tests/backend.rs`
        check::steps(&devices[1], Precision::Bf16);
    }
}
