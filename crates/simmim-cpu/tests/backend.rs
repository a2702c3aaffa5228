//! The CPU backend passes the checks that every backend must pass.

use simmim_cpu::CpuDevice;
use simmim_engine::{Precision, check};

fn devices() -> [CpuDevice; 3] {
    [1, 2, 3].map(|threads| CpuDevice { threads })
}

#[test]
fn every_operation_equals_the_reference_in_f32_on_any_number_of_threads() {
    check::operations(&devices(), Precision::F32, 3e-5);
}

#[test]
fn every_operation_is_near_the_reference_in_bf16_on_any_number_of_threads() {
    // bf16 has 8 bits of mantissa, an error of up to 4e-3 per rounding, and an operation rounds several times
    check::operations(&devices(), Precision::Bf16, 5e-2);
}

#[test]
fn gradients_add_up_over_passes_and_ranks() {
    check::gradients_add_up(&CpuDevice { threads: 2 });
    check::every_gradient_is_summed(&CpuDevice { threads: 2 });
}

#[test]
fn steps_are_adamw_and_the_average_follows() {
    for precision in [Precision::F32, Precision::Bf16] {
        check::steps(&CpuDevice { threads: 2 }, precision);
    }
}

#[test]
fn a_training_state_that_ranks_divide_has_the_bits_of_one_that_each_keeps() {
    for precision in [Precision::F32, Precision::Bf16] {
        check::divided_state(&CpuDevice { threads: 1 }, precision);
    }
}
