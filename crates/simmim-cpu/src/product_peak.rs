//! Measures the peak rate of products on this machine, on one thread and on several.

use simmim_engine::{Precision, ProductPeak};
use simmim_kernels::dtype::DtypeKind;
use simmim_kernels::peak::PeakLoop;
use simmim_kernels::product::Tile;
use std::sync::Barrier;
use std::time::Instant;

/// Duration of a measurement: much longer than starting threads takes, and short enough that other programs leave some
/// of the measurements undisturbed.
const SECONDS: f64 = 0.06;

/// Number of measurements, of which the fastest counts.
const TRIES: usize = 4;

/// Measures the peak of a precision, which takes about half a second.
pub(crate) fn product_peak(precision: Precision, threads: usize) -> ProductPeak {
    let peak = detect(precision);
    let rounds = 8 * rounds_for(peak, SECONDS / 8.0);
    let one_thread = fastest(peak, rounds, 1);
    let all_threads = if threads == 1 { one_thread } else { fastest(peak, rounds, threads) };
    ProductPeak { instruction: peak.name(), one_thread, all_threads }
}

/// The faster precision, and why. It is decided by what the CPU is, not by a measurement, so that a machine decides
/// alike every time, whatever else runs on it.
pub(crate) fn fastest_precision() -> (Precision, String) {
    let tile = Tile::detect();
    let name = tile.name();
    match (tile.multiplies_bf16(), tile.prefers_bf16()) {
        (_, true) => (Precision::Bf16, format!("auto: this CPU multiplies bf16 faster than f32, by {name}")),
        (true, false) => (Precision::F32, format!("auto: this CPU multiplies bf16 slower than f32, by {name}")),
        (false, false) => (Precision::F32, format!("auto: this CPU has no instructions for bf16, only {name}")),
    }
}

fn detect(precision: Precision) -> PeakLoop {
    PeakLoop::detect(match precision {
        Precision::F32 => DtypeKind::F32,
        Precision::Bf16 => DtypeKind::Bf16,
    })
}

/// The number of rounds that takes at least `seconds` on one thread.
fn rounds_for(peak: PeakLoop, seconds: f64) -> u64 {
    let mut rounds = 1 << 12;
    while gflops(peak, rounds, 1).1 < seconds {
        rounds *= 2;
    }
    rounds
}

/// The fastest rate among several measurements.
fn fastest(peak: PeakLoop, rounds: u64, threads: usize) -> f64 {
    (0..TRIES).map(|_| gflops(peak, rounds, threads).0).fold(0.0, f64::max)
}

/// The rate of `threads` threads together, in 10⁹ operations per second, and the seconds it took.
fn gflops(peak: PeakLoop, rounds: u64, threads: usize) -> (f64, f64) {
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
    fn the_peak_of_one_thread_is_that_of_all_if_there_is_only_one() {
        let peak = product_peak(Precision::F32, 1);
        assert!(peak.one_thread > 0.0 && peak.one_thread.is_finite(), "{peak:?}");
        assert_eq!(peak.one_thread, peak.all_threads);
        assert_eq!(peak.instruction, detect(Precision::F32).name());
    }

    #[test]
    fn the_faster_precision_is_decided_alike_every_time_and_its_reason_names_the_instructions() {
        let (precision, reason) = fastest_precision();
        assert!(reason.starts_with("auto: this CPU ") && reason.ends_with(Tile::detect().name()), "{reason}");
        assert_eq!(fastest_precision(), (precision, reason));
    }
}
