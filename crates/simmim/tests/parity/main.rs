//! Parity with the official implementations on the CPU.

mod fixtures;

use simmim_cpu::CpuDevice;

fn main() {
    fixtures::run(CpuDevice { threads: 2 });
}
