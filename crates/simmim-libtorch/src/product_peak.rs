//! Measures the peak rate of matrix products in libtorch: large square ones.

use crate::LibtorchDevice;
use simmim_engine::{Precision, ProductPeak};
use std::time::Instant;
use tch::{Kind, Tensor, no_grad};

/// Duration of a measurement in seconds, and how many there are, of which the fastest counts.
const SECONDS: f64 = 0.06;
const TRIES: usize = 3;

/// Measures the peak of a precision, which takes about half a second.
pub(crate) fn product_peak(device: &LibtorchDevice, precision: Precision) -> ProductPeak {
    let kind = match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let (side, instruction) = match device.is_cpu() {
        true => (1024, "products of 1024 × 1024 in libtorch"),
        false => (8192, "products of 8192 × 8192 in libtorch"),
    };
    let all_threads = fastest(device, kind, side);
    let one_thread = match device.is_cpu() {
        true => {
            tch::set_num_threads(1);
            let one_thread = fastest(device, kind, side);
            tch::set_num_threads(device.cpu_threads() as i32);
            one_thread
        }
        false => all_threads,
    };
    ProductPeak { instruction, one_thread, all_threads }
}

/// The fastest rate among several measurements, in 10⁹ operations per second.
fn fastest(device: &LibtorchDevice, kind: Kind, side: i64) -> f64 {
    no_grad(|| {
        let x = Tensor::ones([side, side], (kind, device.torch()));
        let seconds = |products: usize| {
            device.synchronize();
            let started = Instant::now();
            for _ in 0..products {
                drop(std::hint::black_box(x.matmul(&x)));
            }
            device.synchronize();
            started.elapsed().as_secs_f64()
        };
        seconds(1);
        let products = (SECONDS / seconds(1)).ceil().max(1.0) as usize;
        let least = (0..TRIES).map(|_| seconds(products)).fold(f64::INFINITY, f64::min);
        2.0 * (side * side * side) as f64 * products as f64 / least / 1e9
    })
}
