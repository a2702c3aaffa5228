//! Benchmark of AdamW against a copy that moves the same number of bytes; both are limited by memory bandwidth.

use super::Times;
use crate::error::Result;
use crate::memory::{self, Foreseen};
use simmim_engine::{Backend, Device, Operations, OptimizerStep, ParameterTable, Precision, Slot, StepSize};
use std::time::Instant;

/// Bytes that AdamW moves per value: it reads value, gradient and two moments, and writes all but the gradient.
const BYTES_MOVED: usize = 4 * (4 + 3);

/// Bytes that a value takes: itself, its gradient and two moments.
const BYTES_KEPT: usize = 4 * 4;

/// Number of steps and of copies. The first of each is not counted, because it touches its memory for the first time.
const TIMES: usize = 8;

/// Times of AdamW and of a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWSpeed {
    /// Number of parameters.
    pub parameters: usize,
    /// Times of a step.
    pub step: Times,
    /// Times of a copy that moves the same number of bytes.
    pub copy: Times,
}

impl AdamWSpeed {
    /// Median time of a step, relative to that of a copy.
    pub fn times_a_copy(&self) -> f64 {
        self.step.median() / self.copy.median()
    }
}

/// Times AdamW on `parameters` values.
///
/// # Errors
/// If there is no memory for them.
pub fn adamw(parameters: usize, device: &impl Device) -> Result<AdamWSpeed> {
    let bytes = (BYTES_KEPT as u64).saturating_mul(parameters as u64);
    let foreseen = Foreseen { on_host: 0, values: bytes, activations: 0 };
    memory::check_on(device, || format!("AdamW on {parameters} values"), &foreseen)?;
    Ok(AdamWSpeed { parameters, step: steps(parameters, device), copy: copies(parameters, device.threads()) })
}

fn times(mut work: impl FnMut(usize)) -> Times {
    let mut time = |i| {
        let started = Instant::now();
        work(i);
        started.elapsed().as_secs_f64() * 1e3
    };
    Times::new((0..TIMES).map(&mut time).skip(1).collect())
}

fn steps(parameters: usize, device: &impl Device) -> Times {
    let mut table = ParameterTable::default();
    table.add("parameters", &[parameters]);
    let backend = device.open(table, Precision::F32);
    backend.write_slot(Slot::Values, &vec![0.5; parameters]);
    let step_sizes = [StepSize { lr: 1e-4, weight_decay: 0.05 }];
    times(|i| {
        let norm = backend.step(&OptimizerStep {
            number: i as u64 + 1,
            betas: (0.9, 0.999),
            eps: 1e-8,
            gradient_scale: 1.0,
            clip_norm: None,
            step_sizes: &step_sizes,
        });
        backend.read(&norm);
    })
}

fn copies(parameters: usize, threads: usize) -> Times {
    let bytes = parameters * BYTES_MOVED / 2;
    let (from, mut to) = (vec![1u8; bytes], vec![0u8; bytes]);
    let part = bytes.div_ceil(threads).max(1);
    times(|_| {
        std::thread::scope(|scope| {
            for (from, to) in from.chunks(part).zip(to.chunks_mut(part)) {
                scope.spawn(|| to.copy_from_slice(from));
            }
        });
        std::hint::black_box(&mut to);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_cpu::CpuDevice;

    #[test]
    fn both_take_time() {
        let speed = adamw(10_000, &CpuDevice { threads: 2 }).unwrap();
        assert!(speed.times_a_copy() > 0.0 && speed.times_a_copy().is_finite(), "{speed:?}");
    }
}
