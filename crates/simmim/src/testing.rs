//! The device of unit tests.

use simmim_cpu::{Cpu, CpuDevice};
use simmim_engine::{Device, ParameterTable, Precision};

pub(crate) type TestBackend = Cpu;

pub(crate) const DEVICE: CpuDevice = CpuDevice { threads: 1 };

/// Opens a backend in f32.
pub(crate) fn open(table: ParameterTable) -> TestBackend {
    DEVICE.open(table, Precision::F32)
}
