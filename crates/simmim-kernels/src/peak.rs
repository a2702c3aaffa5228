//! The peak rate at which a core multiplies and adds, as a loop that never leaves the registers.
//!
//! Each operation is `s = s·a + b`, or for bf16 `s = s + a₁·b₁ + a₂·b₂`, in so many independent sums that the latency
//! of the instruction is hidden. Nothing is loaded or stored, so no product can be faster. The speed of a product is
//! reported as its share of this peak.

#[cfg(target_arch = "x86_64")]
use crate::amx;
use crate::dtype::DtypeKind;
use crate::instructions::Instructions;

/// Independent sums: on known CPUs, the latency in cycles times the instructions per cycle is at most 12.
const SUMS: usize = 12;

/// A loop, by the instructions that it repeats.
///
/// Only detection makes one that needs special instructions, so having it proves that the CPU has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeakLoop(Instructions);

impl PeakLoop {
    /// The fastest multiply-add that this CPU has for a type. Where it has none for bf16, bf16 is converted to f32, so
    /// the loop is that of f32.
    pub fn detect(kind: DtypeKind) -> Self {
        match (Instructions::available()[0], kind) {
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx | Instructions::Avx512Bf16, DtypeKind::F32) => PeakLoop(Instructions::Avx512),
            (best, DtypeKind::F32 | DtypeKind::Bf16) => PeakLoop(best),
        }
    }

    /// The loop that every CPU can run.
    pub fn portable() -> Self {
        PeakLoop(Instructions::Portable)
    }

    /// The name of the instruction.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => "tdpbf16ps, 16 × 16 sums",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => "vdpbf16ps, 512 bits",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "vfmadd, 512 bits",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "vfmadd, 256 bits",
            Instructions::AmxModel | Instructions::Portable => "multiply and add",
        }
    }

    /// Operations of one round; a multiplication and an addition count as two.
    pub fn flops_per_round(self) -> u64 {
        let per_instruction = match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => return amx::FLOPS_PER_ROUND,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => 64,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => 16,
            Instructions::AmxModel | Instructions::Portable => 2 * portable::LANES as u64,
        };
        per_instruction * SUMS as u64
    }

    /// Runs `rounds` rounds on this thread. The result has no meaning, but a caller must use it, or the compiler drops
    /// the loop.
    pub fn run(self, rounds: u64) -> f32 {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value, so the CPU has the instructions.
            Instructions::Amx => unsafe { amx::run_products(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value, so the CPU has the instructions.
            Instructions::Avx512Bf16 => unsafe { x86::avx512_bf16(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value, so the CPU has the instructions.
            Instructions::Avx512 => unsafe { x86::avx512(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value, so the CPU has the instructions.
            Instructions::Avx2 => unsafe { x86::avx2(rounds) },
            Instructions::AmxModel | Instructions::Portable => portable::run(rounds),
        }
    }
}

/// The first value of a sum. The values differ, or the compiler would compute a single sum.
fn first(sum: usize) -> f32 {
    std::hint::black_box(sum as f32)
}

/// The factor and the addend. The sums approach 2, so they stay finite.
fn operands() -> (f32, f32) {
    std::hint::black_box((0.5, 1.0))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SUMS, first, operands};
    use std::arch::x86_64::{
        _mm_cvtss_f32, _mm256_add_ps, _mm256_castps256_ps128, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_add_ps,
        _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps,
    };

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn avx512_bf16(rounds: u64) -> f32 {
        let (a, _) = operands();
        // one half of the lanes adds 2·0.5 in both products, the other half subtracts 3·0.5, so sums grow slowly
        let a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(a), _mm512_set1_ps(-a));
        let b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(first(2)), _mm512_set1_ps(first(3)));
        let mut sums: [_; SUMS] = std::array::from_fn(|i| _mm512_set1_ps(first(i)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        _mm512_reduce_add_ps(sums.into_iter().fold(_mm512_set1_ps(0.0), |all, sum| _mm512_add_ps(all, sum)))
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: u64) -> f32 {
        let (a, b) = operands();
        let (a, b) = (_mm512_set1_ps(a), _mm512_set1_ps(b));
        let mut sums: [_; SUMS] = std::array::from_fn(|i| _mm512_set1_ps(first(i)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        _mm512_reduce_add_ps(sums.into_iter().fold(_mm512_set1_ps(0.0), |all, sum| _mm512_add_ps(all, sum)))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: u64) -> f32 {
        let (a, b) = operands();
        let (a, b) = (_mm256_set1_ps(a), _mm256_set1_ps(b));
        let mut sums: [_; SUMS] = std::array::from_fn(|i| _mm256_set1_ps(first(i)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        let all = sums.into_iter().fold(_mm256_set1_ps(0.0), |all, sum| _mm256_add_ps(all, sum));
        _mm_cvtss_f32(_mm256_castps256_ps128(all))
    }
}

mod portable {
    use super::{SUMS, first, operands};

    /// Values of a vector of NEON or SSE2.
    pub(super) const LANES: usize = 4;

    pub(super) fn run(rounds: u64) -> f32 {
        let (a, b) = operands();
        let mut sums: [[f32; LANES]; SUMS] = std::array::from_fn(|i| [first(i); LANES]);
        for _ in 0..rounds {
            for lane in sums.as_flattened_mut() {
                // on aarch64 every CPU has an instruction for both
                *lane = if cfg!(target_arch = "aarch64") { lane.mul_add(a, b) } else { *lane * a + b };
            }
        }
        sums.as_flattened().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peak: PeakLoop, expected: [f32; 3]) {
        assert_eq!([0, 1, 10].map(|rounds| peak.run(rounds)), expected, "{}", peak.name());
    }

    #[test]
    fn every_loop_computes_the_sums_it_should() {
        // s = s/2 + 1, twelve times from 0, 1, … 11: the sums are 66, then 66/2 + 12, and after n rounds 24 + 42/2ⁿ
        let of_f32 = [66.0, 45.0, 24.0 + 42.0 / 1024.0];
        for peak in [PeakLoop::detect(DtypeKind::F32), PeakLoop::detect(DtypeKind::Bf16), PeakLoop::portable()] {
            match peak.name() {
                "vdpbf16ps, 512 bits" => check(peak, [16.0 * 66.0, 16.0 * 66.0 - 96.0, 16.0 * 66.0 - 960.0]),
                "tdpbf16ps, 16 × 16 sums" => check(peak, [0.0, 1.0, 10.0]),
                "vfmadd, 512 bits" => check(peak, of_f32.map(|sum| 16.0 * sum)),
                "vfmadd, 256 bits" => check(peak, of_f32), // only one lane is read
                "multiply and add" => check(peak, of_f32.map(|sum| portable::LANES as f32 * sum)),
                other => panic!("no loop is named `{other}`"),
            }
        }
    }
}
