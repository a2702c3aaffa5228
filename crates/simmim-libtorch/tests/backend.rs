//! The libtorch backend passes the checks that every backend must pass, on the device that the environment variable
//! `SIMMIM_LIBTORCH_DEVICE` names, or the CPU.

use simmim_engine::{Precision, check};
use simmim_libtorch::LibtorchDevice;

fn device() -> LibtorchDevice {
    let name = std::env::var("SIMMIM_LIBTORCH_DEVICE").unwrap_or("libtorch-cpu".into());
    LibtorchDevice::new(&name, 1).expect("the device is there")
}

#[test]
fn every_operation_equals_the_reference_in_f32() {
    check::operations(&[device()], Precision::F32, 3e-5);
}

#[test]
fn every_operation_is_near_the_reference_in_bf16() {
    // bf16 has 8 bits of mantissa, an error of up to 4e-3 per rounding, and sums in which many terms cancel have more. As of PyTorch's
    // autocast, what products return is rounded too: scores, their gradients, the sums over heads. The CPU backend keeps those in f32
    // and is held to 5e-2. Autocast itself (2.13, the cosine attention of these cases, against f64) is off by up to 5.7e-2, and by up
    // to 7e-2 with other numbers, in the gradient of a logit scale; so is this
    check::operations(&[device()], Precision::Bf16, 8e-2);
}

#[test]
fn gradients_add_up_over_passes_and_ranks() {
    check::gradients_add_up(&device());
    check::every_gradient_is_summed(&device());
}

#[test]
fn steps_are_adamw_and_the_average_follows() {
    for precision in [Precision::F32, Precision::Bf16] {
        check::steps(&device(), precision);
    }
}
