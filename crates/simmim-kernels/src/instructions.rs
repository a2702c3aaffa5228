//! Detection of the instructions that the CPU has.
//!
//! It serves kernels that are written for certain instructions. Kernels that the compiler translates for several
//! (`multiversion`) detect them by themselves.

#[cfg(target_arch = "x86_64")]
use crate::{amx, dtype::Dtype, dtype::DtypeKind};
#[cfg(target_arch = "x86_64")]
use std::marker::PhantomData;

/// A set of instructions that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// AVX-512 with BF16 as below, and products of tiles of bf16.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// AVX-512 as below, and products of bf16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// The parts of AVX-512 that every server CPU with AVX-512 has: F, VL, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// [`Self::Portable`], and a model of the products of tiles that AMX has.
    AmxModel,
    /// The instructions that every CPU of its architecture has.
    Portable,
}

impl Instructions {
    /// All that this CPU has, the best first. A model is not among them.
    pub(crate) fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512_bf16() && amx::is_available() {
                available.push(Self::Amx);
            }
            if has_avx512_bf16() {
                available.push(Self::Avx512Bf16);
            }
            if has_avx512() {
                available.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Self::Avx2);
            }
        }
        available.push(Self::Portable);
        available
    }
}

/// Proof that this CPU has [`Instructions::Avx512`]: only detection makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// The proof, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        has_avx512().then_some(Self(()))
    }
}

/// Proof that this CPU has [`Instructions::Avx512`], and if `T` is bf16 [`Instructions::Avx512Bf16`]: only detection makes
/// one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Of<T>(PhantomData<T>);

#[cfg(target_arch = "x86_64")]
impl<T: Dtype> Avx512Of<T> {
    /// The proof, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let has_all = match T::KIND {
            DtypeKind::F32 => has_avx512(),
            DtypeKind::Bf16 => has_avx512_bf16(),
        };
        has_all.then_some(Self(PhantomData))
    }
}

/// Proof that this CPU has [`Instructions::Avx512Bf16`]: only detection makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// The proof, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        has_avx512_bf16().then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
}

/// Whether AMD made this CPU.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_made_by_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512bf16")
}
