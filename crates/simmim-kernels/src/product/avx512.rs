//! Tiles of 8 × 48 sums in 24 of the 32 registers of AVX-512: three vectors of a panel are loaded per
//! step, and one lane of each row of A is broadcast. A panel with fewer columns takes fewer vectors.

use super::{TileJob, TileKernel, TileStart};
use std::arch::x86_64::{
    __m512, __m512bh, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
};

/// Lanes of a vector.
const LANES: usize = 16;

/// Lanes of a panel.
const WIDTH: usize = 48;

pub(super) const F32: [TileKernel; 8] = [
    f32_tile::<1>,
    f32_tile::<2>,
    f32_tile::<3>,
    f32_tile::<4>,
    f32_tile::<5>,
    f32_tile::<6>,
    f32_tile::<7>,
    f32_tile::<8>,
];

pub(super) const BF16: [TileKernel; 8] = [
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
pub(super) const WIDENED: [TileKernel; 8] = [
    widened_tile::<1>,
    widened_tile::<2>,
    widened_tile::<3>,
    widened_tile::<4>,
    widened_tile::<5>,
    widened_tile::<6>,
    widened_tile::<7>,
    widened_tile::<8>,
];

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn f32_tile<const HEIGHT: usize>(job: &TileJob) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match job.columns.div_ceil(LANES) {
            1 => f32_vectors::<HEIGHT, 1>(job),
            2 => f32_vectors::<HEIGHT, 2>(job),
            _ => f32_vectors::<HEIGHT, 3>(job),
        }
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")]
unsafe fn bf16_tile<const HEIGHT: usize>(job: &TileJob) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match job.columns.div_ceil(LANES) {
            1 => bf16_vectors::<HEIGHT, 1>(job),
            2 => bf16_vectors::<HEIGHT, 2>(job),
            _ => bf16_vectors::<HEIGHT, 3>(job),
        }
    }
}

/// # Safety
/// The job's rows, steps and columns exist.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn f32_vectors<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; HEIGHT];
    let (a_row, a_step) = (job.a_row, job.a_step);
    for segment in 0..job.segments {
        // SAFETY: as the caller promises.
        unsafe {
            let mut a = job.a.add(segment * job.a_segment).cast::<f32>();
            let mut b = job.b.add(segment * job.b_segment).cast::<f32>();
            for _ in 0..job.steps {
                let vectors: [__m512; VECTORS] = std::array::from_fn(|v| _mm512_loadu_ps(b.add(v * LANES)));
                for i in 0..HEIGHT {
                    let lane = _mm512_set1_ps(*a.add(i * a_row));
                    for v in 0..VECTORS {
                        sums[i][v] = _mm512_fmadd_ps(lane, vectors[v], sums[i][v]);
                    }
                }
                a = a.wrapping_add(a_step);
                b = b.add(WIDTH);
            }
        }
    }
    // SAFETY: as the caller promises.
    unsafe { store(job, &sums) }
}

/// # Safety
/// The job's rows, steps and columns exist.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")]
unsafe fn bf16_vectors<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; HEIGHT];
    let (a_row, a_step) = (job.a_row, job.a_step);
    for segment in 0..job.segments {
        // SAFETY: as the caller promises; a vector of lanes is a vector of twice as many bf16.
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
    // SAFETY: as the caller promises.
    unsafe { store(job, &sums) }
}

/// One vector of columns at a time: both halves of a panel's lanes take registers of their own.
///
/// # Safety
/// The job's rows, steps and columns exist.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn widened_tile<const HEIGHT: usize>(job: &TileJob) {
    let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
    for left in (0..job.columns).step_by(LANES) {
        let mut sums = [[_mm512_setzero_ps(); 1]; HEIGHT];
        for segment in 0..job.segments {
            // SAFETY: as the caller promises.
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
        let start = match job.start {
            TileStart::Zero => TileStart::Zero,
            TileStart::Old => TileStart::Old,
            TileStart::Bias(bias) => TileStart::Bias(bias.wrapping_add(left)),
        };
        let columns = LANES.min(job.columns - left);
        // SAFETY: as the caller promises: these columns are some of the job's.
        unsafe { store(&TileJob { c: job.c.add(left), columns, start, ..*job }, &sums) }
    }
}

/// # Safety
/// The job's rows of C and columns exist.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn store<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob, sums: &[[__m512; VECTORS]; HEIGHT]) {
    for v in 0..VECTORS {
        let left = v * LANES;
        let used = job.columns - left;
        let mask = if used < LANES { (1u16 << used) - 1 } else { u16::MAX };
        // SAFETY: as the caller promises; what the mask leaves out is not touched.
        unsafe {
            match job.start {
                TileStart::Zero => {
                    for i in 0..HEIGHT {
                        _mm512_mask_storeu_ps(job.c.add(i * job.c_stride + left), mask, sums[i][v]);
                    }
                }
                TileStart::Old => {
                    for i in 0..HEIGHT {
                        let c = job.c.add(i * job.c_stride + left);
                        _mm512_mask_storeu_ps(c, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sums[i][v]));
                    }
                }
                TileStart::Bias(bias) => {
                    let bias = _mm512_maskz_loadu_ps(mask, bias.add(left));
                    for i in 0..HEIGHT {
                        let c = job.c.add(i * job.c_stride + left);
                        _mm512_mask_storeu_ps(c, mask, _mm512_add_ps(sums[i][v], bias));
                    }
                }
            }
        }
    }
}
