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

/// Duration of a measurement that only has to tell two precisions apart.
const SHORT_SECONDS: f64 = 0.004;

/// How many times as fast as f32 bf16 must be, or its rounding is not worth it.
const LEAST_SPEEDUP: f64 = 1.1;

/// Measures the peak of a precision, which takes about half a second.
pub(crate) fn product_peak(precision: Precision, threads: usize) -> ProductPeak {
    let peak = detect(precision);
    let rounds = 8 * rounds_for(peak, SECONDS / 8.0);
    let one_thread = fastest(peak, rounds, 1);
    let all_threads = if threads == 1 { one_thread } else { fastest(peak, rounds, threads) };
    ProductPeak { instruction: peak.name(), one_thread, all_threads }
}

/// The faster precision, and why. If the CPU can multiply bf16, both precisions are measured, since on some CPUs that
/// instruction takes longer than two of f32 (Intel's `vdpbf16ps`).
pub(crate) fn fastest_precision() -> (Precision, String) {
    if !Tile::detect().multiplies_bf16() {
        return (Precision::F32, "auto: this CPU has no instructions for bf16".into());
    }
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| {
        let peak = detect(precision);
        fastest(peak, rounds_for(peak, SHORT_SECONDS), 1)
    });
    faster(f32, bf16)
}

/// The faster precision by the rates on one thread, in 10⁹ operations per second.
fn faster(f32: f64, bf16: f64) -> (Precision, String) {
    let precision = if bf16 > LEAST_SPEEDUP * f32 { Precision::Bf16 } else { Precision::F32 };
    (precision, format!("auto: a core multiplies bf16 at {bf16:.0} GFLOP/s and f32 at {f32:.0}"))
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
    fn the_faster_precision_is_chosen_and_its_reason_names_both_rates() {
        // rates of a core of a Xeon with AMX, and of an EPYC with AVX512-BF16
        let (precision, reason) = faster(234.0, 116.0);
        assert_eq!(
            (precision, reason.as_str()),
            (Precision::F32, "auto: a core multiplies bf16 at 116 GFLOP/s and f32 at 234")
        );
        assert_eq!(faster(117.0, 234.0).0, Precision::Bf16);
    }
}
