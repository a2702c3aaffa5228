//! Tiles of 8 × 48 sums, which take 24 of the 32 registers of AVX-512.
//!
//! In each step of the depth, three vectors of the panel are loaded, and one lane of each row of A is broadcast and
//! multiplied with them. A panel of fewer columns takes fewer vectors.

use super::rows::{InBlock, InPlace, Rows, row_of};
use super::{TileAccumulator, TileJob, TileKernel};
use std::arch::x86_64::{
    __m512, __m512bh, _MM_HINT_T1, _mm_prefetch, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
};

/// Lanes of a vector.
const LANES: usize = 16;

/// Lanes of a panel.
const WIDTH: usize = 48;

/// Rows of a block of A, the greatest height of a tile.
const BLOCK: usize = 8;

pub(super) const F32: [TileKernel; BLOCK] = [
    f32_tile::<1>,
    f32_tile::<2>,
    f32_tile::<3>,
    f32_tile::<4>,
    f32_tile::<5>,
    f32_tile::<6>,
    f32_tile::<7>,
    f32_tile::<8>,
];

pub(super) const BF16: [TileKernel; BLOCK] = [
    bf16_tile::<1>,
    bf16_tile::<2>,
    bf16_tile::<3>,
    bf16_tile::<4>,
    bf16_tile::<5>,
    bf16_tile::<6>,
    bf16_tile::<7>,
    bf16_tile::<8>,
];

/// bf16 operands on a CPU that cannot multiply them.
pub(super) const WIDENED: [TileKernel; BLOCK] = [
    widened_tile::<1>,
    widened_tile::<2>,
    widened_tile::<3>,
    widened_tile::<4>,
    widened_tile::<5>,
    widened_tile::<6>,
    widened_tile::<7>,
    widened_tile::<8>,
];

/// # Safety
/// As [`TileKernel`] says.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn f32_tile<const HEIGHT: usize>(job: &TileJob) {
    // SAFETY: the caller promises what these functions ask for, but for the distances, which are those of the job.
    unsafe {
        match (job.a_row, job.a_step, job.columns.div_ceil(LANES)) {
            (stride, 1, 1) => f32_vectors::<HEIGHT, 1>(job, InPlace { stride }),
            (stride, 1, 2) => f32_vectors::<HEIGHT, 2>(job, InPlace { stride }),
            (stride, 1, _) => f32_vectors::<HEIGHT, 3>(job, InPlace { stride }),
            (1, BLOCK, 1) => f32_vectors::<HEIGHT, 1>(job, InBlock::<BLOCK>),
            (1, BLOCK, 2) => f32_vectors::<HEIGHT, 2>(job, InBlock::<BLOCK>),
            (1, BLOCK, _) => f32_vectors::<HEIGHT, 3>(job, InBlock::<BLOCK>),
            (row, step, _) => unreachable!("no product reads rows {row} and steps {step} apart"),
        }
    }
}

/// # Safety
/// As [`TileKernel`] says.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")]
unsafe fn bf16_tile<const HEIGHT: usize>(job: &TileJob) {
    // SAFETY: the caller promises what these functions ask for.
    unsafe {
        match job.columns.div_ceil(LANES) {
            1 => bf16_vectors::<HEIGHT, 1>(job),
            2 => bf16_vectors::<HEIGHT, 2>(job),
            _ => bf16_vectors::<HEIGHT, 3>(job),
        }
    }
}

/// Steps of the depth that share their additions to addresses.
const STEPS: usize = 4;

/// # Safety
/// As [`TileKernel`] says; the job has `(VECTORS - 1)·LANES < columns <= VECTORS·LANES` columns, and `rows` are its distances
/// in A.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn f32_vectors<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob, rows: impl Rows) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; HEIGHT];
    job.prefetch_output::<HEIGHT, VECTORS>();
    for segment in 0..job.segments {
        // SAFETY: the caller promises that these lanes may be read.
        unsafe {
            let mut a = job.a.add(segment * job.a_segment).cast::<f32>();
            let mut b = job.b.add(segment * job.b_segment).cast::<f32>();
            let mut ahead = job.ahead.first.wrapping_add(segment * job.b_segment);
            for _ in 0..job.steps / STEPS {
                for step in 0..STEPS {
                    add_step(&mut sums, a, step, b.add(step * WIDTH), rows);
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(step * job.ahead.step).cast());
                }
                ahead = ahead.wrapping_add(STEPS * job.ahead.step);
                a = a.wrapping_add(STEPS * rows.step());
                b = b.add(STEPS * WIDTH);
            }
            for step in 0..job.steps % STEPS {
                add_step(&mut sums, a, step, b.add(step * WIDTH), rows);
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(step * job.ahead.step).cast());
            }
        }
    }
    // SAFETY: the caller promises what `store` asks for.
    unsafe { store(job, sums) }
}

/// Adds the products of one step.
///
/// # Safety
/// `HEIGHT` rows from `a` on have a lane that may be read in this step, and the panel has `VECTORS` vectors at `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn add_step<const HEIGHT: usize, const VECTORS: usize>(
    sums: &mut [[__m512; VECTORS]; HEIGHT],
    a: *const f32,
    step: usize,
    b: *const f32,
    rows: impl Rows,
) {
    // SAFETY: the caller promises that these lanes may be read.
    unsafe {
        let vectors: [__m512; VECTORS] = std::array::from_fn(|v| _mm512_loadu_ps(b.add(v * LANES)));
        for i in 0..HEIGHT {
            let lane = _mm512_set1_ps(*row_of(a, i, rows).add(step * rows.step()));
            for v in 0..VECTORS {
                sums[i][v] = _mm512_fmadd_ps(lane, vectors[v], sums[i][v]);
            }
        }
    }
}

/// # Safety
/// As [`TileKernel`] says; the job has `(VECTORS - 1)·LANES < columns <= VECTORS·LANES` columns.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")]
unsafe fn bf16_vectors<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; HEIGHT];
    let (a_row, a_step) = (job.a_row, job.a_step);
    for segment in 0..job.segments {
        // SAFETY: the caller promises that these lanes may be read. A vector of lanes has the bits of one of twice as
        // many bf16. Lanes of A are read unaligned, as rows of bf16 may start in the middle of a word.
        unsafe {
            let mut a = job.a.add(segment * job.a_segment).cast::<i32>();
            let mut b = job.b.add(segment * job.b_segment);
            for _ in 0..job.steps {
                let vectors: [__m512bh; VECTORS] =
                    std::array::from_fn(|v| std::mem::transmute(_mm512_loadu_si512(b.add(v * LANES).cast())));
                for i in 0..HEIGHT {
                    let lane: __m512bh = std::mem::transmute(_mm512_set1_epi32(a.add(i * a_row).read_unaligned()));
                    for v in 0..VECTORS {
                        sums[i][v] = _mm512_dpbf16_ps(sums[i][v], lane, vectors[v]);
                    }
                }
                a = a.wrapping_add(a_step);
                b = b.add(WIDTH);
            }
        }
    }
    // SAFETY: the caller promises what `store` asks for.
    unsafe { store(job, sums) }
}

/// Computes a tile one vector of columns at a time, because the two halves of a panel's lanes take a register each.
///
/// # Safety
/// As [`TileKernel`] says.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn widened_tile<const HEIGHT: usize>(job: &TileJob) {
    let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
    for left in (0..job.columns).step_by(LANES) {
        let mut sums = [[_mm512_setzero_ps(); 1]; HEIGHT];
        for segment in 0..job.segments {
            // SAFETY: the caller promises that these lanes may be read.
            unsafe {
                let a = job.a.add(segment * job.a_segment);
                let b = job.b.add(segment * job.b_segment + left);
                for step in 0..job.steps {
                    let lanes = _mm512_loadu_si512(b.add(step * WIDTH).cast());
                    let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(lanes));
                    let high = _mm512_castsi512_ps(_mm512_and_si512(lanes, upper));
                    for i in 0..HEIGHT {
                        let lane = a.add(i * job.a_row + step * job.a_step).read_unaligned();
                        let sum = _mm512_fmadd_ps(_mm512_set1_ps(f32::from_bits(lane << 16)), low, sums[i][0]);
                        let a_high = _mm512_set1_ps(f32::from_bits(lane & 0xffff_0000));
                        sums[i][0] = _mm512_fmadd_ps(a_high, high, sum);
                    }
                }
            }
        }
        let accumulator = match job.accumulator {
            TileAccumulator::Zero => TileAccumulator::Zero,
            TileAccumulator::Output => TileAccumulator::Output,
            TileAccumulator::Bias(bias) => TileAccumulator::Bias(bias.wrapping_add(left)),
        };
        let columns = LANES.min(job.columns - left);
        // SAFETY: the caller promises what `store` asks for, for all columns of the job, and these are some of them.
        unsafe { store(&TileJob { c: job.c.add(left), columns, accumulator, ..*job }, sums) }
    }
}

/// Adds sums to the accumulator and stores them. Always inlined, so that the sums need not be in memory before, and compiled for the
/// instructions of its caller.
///
/// # Safety
/// The CPU has AVX-512. `c` and the accumulator are as [`TileKernel`] says; the job has
/// `(VECTORS - 1)·LANES < columns <= VECTORS·LANES` columns.
#[inline(always)]
unsafe fn store<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob, sums: [[__m512; VECTORS]; HEIGHT]) {
    let last = u16::MAX >> (VECTORS * LANES - job.columns);
    // even a load whose mask leaves out every lane needs a valid address: with another one it is very slow on Intel's cores
    let (old, stride, read) = match job.accumulator {
        TileAccumulator::Zero => (job.c.cast_const(), job.c_stride, 0),
        TileAccumulator::Output => (job.c.cast_const(), job.c_stride, u16::MAX),
        TileAccumulator::Bias(bias) => (bias, 0, u16::MAX),
    };
    for i in 0..HEIGHT {
        for v in 0..VECTORS {
            let mask = if v + 1 < VECTORS { u16::MAX } else { last };
            // SAFETY: C has `columns` values in each row, as has what is read, by the promise of the caller; the mask keeps reads
            // and writes within these.
            unsafe {
                let old = _mm512_maskz_loadu_ps(read & mask, old.wrapping_add(i * stride + v * LANES));
                let c = job.c.add(i * job.c_stride + v * LANES);
                _mm512_mask_storeu_ps(c, mask, _mm512_add_ps(old, sums[i][v]));
            }
        }
    }
}
