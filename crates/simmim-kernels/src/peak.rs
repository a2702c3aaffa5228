//! The most that a core can multiply and add: a loop that never leaves the registers.
//!
//! Every number is `s = s·a + b`, or for bf16 `s = s + a₁·b₁ + a₂·b₂`, in as many independent sums as hide the
//! instruction's latency. Nothing is loaded or stored, so no product can be faster; how near one comes is the
//! share of this peak.

use crate::element::Kind;
use crate::instructions::Instructions;

/// Independent sums of the vector loops: latency times instructions per cycle is at most 12 on known CPUs.
const SUMS: usize = 12;

/// The instructions of a loop.
///
/// Only detection makes one that needs instructions, so having it proves that they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak(Instructions);

impl Peak {
    /// The fastest multiply-add of operands of a kind on this CPU; bf16 is widened where there is none for it.
    pub fn detect(kind: Kind) -> Self {
        match (Instructions::available()[0], kind) {
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Bf16, Kind::F32) => Peak(Instructions::Avx512),
            (best, Kind::F32 | Kind::Bf16) => Peak(best),
        }
    }

    /// The loop that runs on any CPU.
    pub fn portable() -> Self {
        Peak(Instructions::Portable)
    }

    /// The instruction's name.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => "vdpbf16ps, 512 bits",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "vfmadd, 512 bits",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "vfmadd, 256 bits",
            Instructions::Portable => "multiply and add",
        }
    }

    /// Operations of one round, a multiplication and an addition counted as two.
    pub fn flops_per_round(self) -> u64 {
        let per_instruction = match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => 64,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => 16,
            Instructions::Portable => 2 * portable::LANES as u64,
        };
        per_instruction * SUMS as u64
    }

    /// Runs `rounds` rounds on this thread; the value is worth nothing, but has to be used.
    pub fn run(self, rounds: u64) -> f32 {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the instructions.
            Instructions::Avx512Bf16 => unsafe { x86::avx512_bf16(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the instructions.
            Instructions::Avx512 => unsafe { x86::avx512(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the instructions.
            Instructions::Avx2 => unsafe { x86::avx2(rounds) },
            Instructions::Portable => portable::run(rounds),
        }
    }
}

/// First values that differ, or the compiler would see that all sums are the same.
fn first(sum: usize) -> f32 {
    std::hint::black_box(sum as f32)
}

/// The factor and the addend: sums stay finite for ever.
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
        // one product cancels the other
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

    /// Lanes of a vector: NEON's, and SSE2's.
    pub(super) const LANES: usize = 4;

    pub(super) fn run(rounds: u64) -> f32 {
        let (a, b) = operands();
        let mut sums: [[f32; LANES]; SUMS] = std::array::from_fn(|i| [first(i); LANES]);
        for _ in 0..rounds {
            for lane in sums.as_flattened_mut() {
                // one instruction where every CPU of the architecture has it
                *lane = if cfg!(target_arch = "aarch64") { lane.mul_add(a, b) } else { *lane * a + b };
            }
        }
        sums.as_flattened().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_computes_what_it_says() {
        // s = s/2 + 1 from 0..12: after one round every lane is i/2 + 1, and then 2 is approached
        let lanes = |peak: Peak| match peak.name() {
            "vfmadd, 512 bits" => 16.0,
            "vfmadd, 256 bits" => 1.0, // one lane is read
            "multiply and add" => portable::LANES as f32,
            _ => 0.0,
        };
        for peak in [Peak::detect(Kind::F32), Peak::portable()] {
            assert_eq!(peak.run(0), 66.0 * lanes(peak), "{}", peak.name());
            assert_eq!(peak.run(1), (33.0 + 12.0) * lanes(peak), "{}", peak.name());
            assert!((peak.run(100) - 24.0 * lanes(peak)).abs() < 1e-3, "{}", peak.name());
        }
        assert!(Peak::detect(Kind::Bf16).run(10).is_finite());
    }
}
