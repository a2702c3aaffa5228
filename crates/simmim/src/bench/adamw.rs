//! AdamW beside a copy that moves as many bytes: both are limited by memory.

use super::Times;
use simmim_engine::{Backend, Cpu, ParameterTable, Precision, Slot, StepSize, Update};
use std::time::Instant;

/// Of one value, AdamW reads value, gradient and two moments, and writes all but the gradient.
const BYTES_MOVED: usize = 4 * (4 + 3);

/// Updates and copies, the first of which touches its memory for the first time and does not count.
const TIMES: usize = 8;

/// What AdamW takes, and a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWSpeed {
    /// Parameter values.
    pub parameters: usize,
    /// Times of an update.
    pub update: Times,
    /// Times of a copy that reads and writes as many bytes in all.
    pub copy: Times,
}

impl AdamWSpeed {
    /// Median time of an update over that of a copy.
    pub fn times_a_copy(&self) -> f64 {
        self.update.median() / self.copy.median()
    }
}

/// Times AdamW on `parameters` values.
pub fn adamw(parameters: usize, threads: usize) -> AdamWSpeed {
    AdamWSpeed { parameters, update: updates(parameters, threads), copy: copies(parameters, threads) }
}

fn times(mut work: impl FnMut(usize)) -> Times {
    let mut time = |i| {
        let started = Instant::now();
        work(i);
        started.elapsed().as_secs_f64() * 1e3
    };
    Times::new((0..TIMES).map(&mut time).skip(1).collect())
}

fn updates(parameters: usize, threads: usize) -> Times {
    let mut table = ParameterTable::default();
    table.add("parameters", &[parameters]);
    let backend = Cpu::new(table, Precision::F32, threads);
    backend.write_slot(Slot::Values, &vec![0.5; parameters]);
    let steps = [StepSize { lr: 1e-4, weight_decay: 0.05 }];
    let update =
        |i| Update { number: i as u64 + 1, betas: (0.9, 0.999), eps: 1e-8, gradient_scale: 1.0, steps: &steps };
    times(|i| backend.update(&update(i)))
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

    #[test]
    fn both_take_time() {
        let speed = adamw(10_000, 2);
        assert!(speed.times_a_copy() > 0.0 && speed.times_a_copy().is_finite(), "{speed:?}");
    }
}
