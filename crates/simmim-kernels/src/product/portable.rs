//! Tiles for NEON and any other CPU, written as arithmetic on arrays that the compiler keeps in registers.

use super::{TileAccumulator, TileJob, TileKernel};
use crate::math::mul_add;

/// Columns of a tile.
pub(super) const WIDTH: usize = 16;

pub(super) const F32: [TileKernel; 6] =
    [plain::<1, false>, plain::<2, false>, plain::<3, false>, plain::<4, false>, plain::<5, false>, plain::<6, false>];

pub(super) const BF16: [TileKernel; 6] =
    [plain::<1, true>, plain::<2, true>, plain::<3, true>, plain::<4, true>, plain::<5, true>, plain::<6, true>];

/// # Safety
/// As [`TileKernel`] says.
unsafe fn plain<const HEIGHT: usize, const IS_BF16: bool>(job: &TileJob) {
    // on a CPU without FMA instructions, a fused multiply-add would be a function call
    const FUSED: bool = cfg!(target_arch = "aarch64");
    // SAFETY: the caller promises what `tile` asks for.
    unsafe { tile::<HEIGHT, IS_BF16, FUSED>(job) }
}

/// Computes and stores a tile. A lane of bf16 is two values, and its lower half is the first of them along the depth.
///
/// # Safety
/// As [`TileKernel`] says.
#[inline(always)]
unsafe fn tile<const HEIGHT: usize, const IS_BF16: bool, const FUSED: bool>(job: &TileJob) {
    let mut sums = [[0.0f32; WIDTH]; HEIGHT];
    for segment in 0..job.segments {
        // SAFETY: the caller promises that these lanes may be read. Lanes of A are read unaligned, as rows of bf16 may
        // start in the middle of a word.
        unsafe {
            let a = job.a.add(segment * job.a_segment);
            let b = job.b.add(segment * job.b_segment).cast::<[u32; WIDTH]>();
            for step in 0..job.steps {
                let b = &*b.add(step);
                for i in 0..HEIGHT {
                    let a = a.add(i * job.a_row + step * job.a_step).read_unaligned();
                    for j in 0..WIDTH {
                        sums[i][j] = if IS_BF16 {
                            let sum = mul_add::<FUSED>(low(a), low(b[j]), sums[i][j]);
                            mul_add::<FUSED>(high(a), high(b[j]), sum)
                        } else {
                            mul_add::<FUSED>(f32::from_bits(a), f32::from_bits(b[j]), sums[i][j])
                        };
                    }
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: the caller promises that `columns` values of each row of C may be written, and only from here.
        let c = unsafe { std::slice::from_raw_parts_mut(job.c.add(i * job.c_stride), job.columns) };
        match job.accumulator {
            TileAccumulator::Zero => c.iter_mut().zip(sums).for_each(|(c, sum)| *c = *sum),
            TileAccumulator::Output => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += *sum),
            TileAccumulator::Bias(bias) => {
                // SAFETY: the caller promises that a bias has `columns` values.
                let bias = unsafe { std::slice::from_raw_parts(bias, job.columns) };
                c.iter_mut().zip(sums).zip(bias).for_each(|((c, sum), bias)| *c = *sum + *bias);
            }
        }
    }
}

#[inline(always)]
fn low(lane: u32) -> f32 {
    f32::from_bits(lane << 16)
}

#[inline(always)]
fn high(lane: u32) -> f32 {
    f32::from_bits(lane & 0xffff_0000)
}
