//! What the machine could do: the product peak of its registers, on one thread and on several.

use crate::backend::Precision;
use simmim_kernels::element::Kind;
use simmim_kernels::peak::Peak;
use std::sync::Barrier;
use std::time::Instant;

/// Length of one measurement: long against starting threads, short against what else a host does.
const SECONDS: f64 = 0.06;

/// Measurements, the fastest of which counts.
const TRIES: usize = 4;

/// Multiply-adds of the precision's kind that registers allow, in 10⁹ operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductPeak {
    /// The instruction.
    pub instruction: &'static str,
    /// On one thread.
    pub one_thread: f64,
    /// On all threads together.
    pub all_threads: f64,
}

impl ProductPeak {
    /// Measures for about half a second.
    pub fn measure(precision: Precision, threads: usize) -> Self {
        let peak = Peak::detect(match precision {
            Precision::F32 => Kind::F32,
            Precision::Bf16 => Kind::Bf16,
        });
        // enough rounds to fill the time, from a short try
        let mut rounds = 1 << 12;
        while gflops(peak, rounds, 1).1 < SECONDS / 8.0 {
            rounds *= 2;
        }
        rounds *= 8;
        let fastest = |threads| (0..TRIES).map(|_| gflops(peak, rounds, threads).0).fold(0.0, f64::max);
        let one_thread = fastest(1);
        let all_threads = if threads == 1 { one_thread } else { fastest(threads) };
        Self { instruction: peak.name(), one_thread, all_threads }
    }

    /// Whether the threads together are much slower than each alone, as on a shared host that takes cores away:
    /// below 1.6 for two threads.
    pub fn is_disturbed(&self, threads: usize) -> bool {
        self.all_threads < 0.8 * threads as f64 * self.one_thread
    }
}

/// 10⁹ operations per second of `threads` threads at once, and the seconds it took.
fn gflops(peak: Peak, rounds: u64, threads: usize) -> (f64, f64) {
    let barrier = Barrier::new(threads + 1);
    let seconds = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                barrier.wait();
                std::hint::black_box(peak.run(rounds));
                barrier.wait();
            });
        }
        barrier.wait();
        let started = Instant::now();
        barrier.wait();
        started.elapsed().as_secs_f64()
    });
    ((threads as u64 * rounds * peak.flops_per_round()) as f64 / seconds / 1e9, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_positive_and_shared_threads_show() {
        let peak = ProductPeak::measure(Precision::F32, 1);
        assert!(peak.one_thread > 0.1 && peak.one_thread == peak.all_threads, "{peak:?}");
        let two = |all_threads| ProductPeak { instruction: "", one_thread: 10.0, all_threads }.is_disturbed(2);
        assert!(two(15.9) && !two(16.1));
    }
}
