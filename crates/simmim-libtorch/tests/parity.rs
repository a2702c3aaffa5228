//! Parity with the official implementations in libtorch, on the device that the environment variable `SIMMIM_LIBTORCH_DEVICE`
//! names, or the CPU.

#[path = "../../simmim/tests/parity/fixtures.rs"]
mod fixtures;

use simmim_libtorch::LibtorchDevice;

fn main() {
    let name = std::env::var("SIMMIM_LIBTORCH_DEVICE").unwrap_or("libtorch-cpu".into());
    fixtures::run(LibtorchDevice::new(&name, 2).expect("the device is there"));
}
