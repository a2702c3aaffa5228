//! Tiles of 6 × 16 sums, which take 12 of the 16 registers of AVX2.
//!
//! In each step of the depth, two vectors of the panel are loaded, and one lane of each row of A is broadcast and multiplied
//! with them. A panel of at most 8 columns takes one vector. Written out, because the compiler stores sums that it is left to
//! arrange itself once in every step, which halves the speed.

use super::rows::{InBlock, InPlace, Rows, row_of};
use super::{TileAccumulator, TileJob, TileKernel};
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cmpgt_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_maskload_ps, _mm256_maskstore_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
};

/// Lanes of a vector.
const LANES: usize = 8;

/// Lanes of a panel.
pub(super) const WIDTH: usize = 16;

/// Rows of a block of A, the greatest height of a tile.
const BLOCK: usize = 6;

pub(super) const F32: [TileKernel; BLOCK] =
    [f32_tile::<1>, f32_tile::<2>, f32_tile::<3>, f32_tile::<4>, f32_tile::<5>, f32_tile::<6>];

/// bf16 operands, whose halves of a lane are widened to f32.
pub(super) const BF16: [TileKernel; BLOCK] =
    [bf16_tile::<1>, bf16_tile::<2>, bf16_tile::<3>, bf16_tile::<4>, bf16_tile::<5>, bf16_tile::<6>];

/// # Safety
/// As [`TileKernel`] says.
#[target_feature(enable = "avx2,fma")]
unsafe fn f32_tile<const HEIGHT: usize>(job: &TileJob) {
    // SAFETY: the caller promises what these functions ask for, but for the distances, which are those of the job.
    unsafe {
        match (job.a_row, job.a_step, job.columns.div_ceil(LANES)) {
            (stride, 1, 1) => f32_vectors::<HEIGHT, 1>(job, InPlace { stride }),
            (stride, 1, _) => f32_vectors::<HEIGHT, 2>(job, InPlace { stride }),
            (1, BLOCK, 1) => f32_vectors::<HEIGHT, 1>(job, InBlock::<BLOCK>),
            (1, BLOCK, _) => f32_vectors::<HEIGHT, 2>(job, InBlock::<BLOCK>),
            (row, step, _) => unreachable!("no product reads rows {row} and steps {step} apart"),
        }
    }
}

/// # Safety
/// As [`TileKernel`] says.
#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_tile<const HEIGHT: usize>(job: &TileJob) {
    // SAFETY: the caller promises what these functions ask for.
    unsafe {
        match job.columns.div_ceil(LANES) {
            1 => bf16_vectors::<HEIGHT, 1>(job),
            _ => bf16_vectors::<HEIGHT, 2>(job),
        }
    }
}

/// Steps of the depth that share their additions to addresses.
const STEPS: usize = 4;

/// # Safety
/// As [`TileKernel`] says; the job has `(VECTORS - 1)·LANES < columns <= VECTORS·LANES` columns, and `rows` are its distances
/// in A.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn f32_vectors<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob, rows: impl Rows) {
    let mut sums = [[_mm256_setzero_ps(); VECTORS]; HEIGHT];
    job.prefetch_output::<HEIGHT, 1>();
    for segment in 0..job.segments {
        // SAFETY: the caller promises that these lanes may be read.
        unsafe {
            let mut a = job.a.add(segment * job.a_segment).cast::<f32>();
            let mut b = job.b.add(segment * job.b_segment).cast::<f32>();
            let mut ahead = job.ahead.first.wrapping_add(segment * job.b_segment);
            for _ in 0..job.steps / STEPS {
                for step in 0..STEPS {
                    add_step(&mut sums, a, step, b.add(step * WIDTH), rows);
                }
                // one line in two steps is the whole share of two and more tiles
                _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(STEPS / 2 * job.ahead.step).cast());
                ahead = ahead.wrapping_add(STEPS * job.ahead.step);
                a = a.wrapping_add(STEPS * rows.step());
                b = b.add(STEPS * WIDTH);
            }
            for step in 0..job.steps % STEPS {
                add_step(&mut sums, a, step, b.add(step * WIDTH), rows);
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
#[target_feature(enable = "avx2,fma")]
unsafe fn add_step<const HEIGHT: usize, const VECTORS: usize>(
    sums: &mut [[__m256; VECTORS]; HEIGHT],
    a: *const f32,
    step: usize,
    b: *const f32,
    rows: impl Rows,
) {
    // SAFETY: the caller promises that these lanes may be read.
    unsafe {
        let vectors: [__m256; VECTORS] = std::array::from_fn(|v| _mm256_loadu_ps(b.add(v * LANES)));
        for i in 0..HEIGHT {
            let lane = _mm256_set1_ps(*row_of(a, i, rows).add(step * rows.step()));
            for v in 0..VECTORS {
                sums[i][v] = _mm256_fmadd_ps(lane, vectors[v], sums[i][v]);
            }
        }
    }
}

/// The lower halves of all lanes first, then the upper ones, because both together take too many registers.
///
/// # Safety
/// As [`TileKernel`] says; the job has `(VECTORS - 1)·LANES < columns <= VECTORS·LANES` columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_vectors<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob) {
    let mut sums = [[_mm256_setzero_ps(); VECTORS]; HEIGHT];
    let (a_row, a_step) = (job.a_row, job.a_step);
    for segment in 0..job.segments {
        // SAFETY: the caller promises that these lanes may be read. Lanes of A are read unaligned, as rows of bf16 may start
        // in the middle of a word.
        unsafe {
            let mut a = job.a.add(segment * job.a_segment).cast::<i32>();
            let mut b = job.b.add(segment * job.b_segment);
            for _ in 0..job.steps {
                add_halves::<false, HEIGHT, VECTORS>(&mut sums, a, a_row, b);
                add_halves::<true, HEIGHT, VECTORS>(&mut sums, a, a_row, b);
                a = a.wrapping_add(a_step);
                b = b.add(WIDTH);
            }
        }
    }
    // SAFETY: the caller promises what `store` asks for.
    unsafe { store(job, sums) }
}

/// Adds the products of the lower or the upper halves of the lanes of one step.
///
/// # Safety
/// A lane of each row from `a` on and all of the panel from `b` on may be read.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_halves<const UPPER: bool, const HEIGHT: usize, const VECTORS: usize>(
    sums: &mut [[__m256; VECTORS]; HEIGHT],
    a: *const i32,
    a_row: usize,
    b: *const u32,
) {
    // SAFETY: the caller promises that these lanes may be read.
    unsafe {
        let vectors: [__m256; VECTORS] =
            std::array::from_fn(|v| half::<UPPER>(_mm256_loadu_si256(b.add(v * LANES).cast())));
        for i in 0..HEIGHT {
            let lane = half::<UPPER>(_mm256_set1_epi32(a.add(i * a_row).read_unaligned()));
            for v in 0..VECTORS {
                sums[i][v] = _mm256_fmadd_ps(lane, vectors[v], sums[i][v]);
            }
        }
    }
}

/// The lower or the upper halves of lanes as f32.
#[inline]
#[target_feature(enable = "avx2")]
fn half<const UPPER: bool>(lanes: __m256i) -> __m256 {
    if UPPER {
        _mm256_castsi256_ps(_mm256_and_si256(lanes, _mm256_set1_epi32(0xffff_0000u32 as i32)))
    } else {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(lanes))
    }
}

/// Adds sums to the accumulator and stores them. Always inlined, so that sums stay in registers; it is compiled for the
/// instructions of its caller.
///
/// # Safety
/// The CPU has AVX2. `c` and the accumulator are as [`TileKernel`] says; the job has
/// `(VECTORS - 1)·LANES < columns <= VECTORS·LANES` columns.
#[inline(always)]
unsafe fn store<const HEIGHT: usize, const VECTORS: usize>(job: &TileJob, sums: [[__m256; VECTORS]; HEIGHT]) {
    let whole = job.columns == VECTORS * LANES;
    // SAFETY: C has `columns` values in each row, and a bias as many, by the promise of the caller.
    unsafe {
        match job.accumulator {
            TileAccumulator::Zero if whole => store_whole(job, sums, |sum, _, _| sum),
            TileAccumulator::Output if whole => {
                store_whole(job, sums, |sum, c, _| _mm256_add_ps(_mm256_loadu_ps(c), sum));
            }
            TileAccumulator::Bias(bias) if whole => {
                let bias: [__m256; VECTORS] = std::array::from_fn(|v| _mm256_loadu_ps(bias.add(v * LANES)));
                store_whole(job, sums, |sum, _, v| _mm256_add_ps(sum, bias[v]));
            }
            _ => {
                for i in 0..HEIGHT {
                    store_row(job, job.c.add(i * job.c_stride), &sums[i]);
                }
            }
        }
    }
}

/// Stores what `value` makes of each vector of sums, its place in C, and its number in the row.
///
/// # Safety
/// The CPU has AVX2, and C has `VECTORS·LANES` values in each row.
#[inline(always)]
unsafe fn store_whole<const HEIGHT: usize, const VECTORS: usize>(
    job: &TileJob,
    sums: [[__m256; VECTORS]; HEIGHT],
    value: impl Fn(__m256, *const f32, usize) -> __m256,
) {
    for i in 0..HEIGHT {
        for v in 0..VECTORS {
            // SAFETY: the caller promises that the row has these values.
            unsafe {
                let c = job.c.add(i * job.c_stride + v * LANES);
                _mm256_storeu_ps(c, value(sums[i][v], c, v));
            }
        }
    }
}

/// [`store`] for one row.
///
/// # Safety
/// `c` leads to a row of C, and otherwise as [`store`] says.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store_row<const VECTORS: usize>(job: &TileJob, c: *mut f32, sums: &[__m256; VECTORS]) {
    for (v, &sum) in sums.iter().enumerate() {
        let left = v * LANES;
        let used = if v + 1 < VECTORS { LANES } else { job.columns - left };
        // SAFETY: `used` keeps reads and writes within `columns` values of a row or of the bias, as the caller promises.
        unsafe {
            let c = c.add(left);
            let sum = match job.accumulator {
                TileAccumulator::Zero => sum,
                TileAccumulator::Output => _mm256_add_ps(load(c, used), sum),
                TileAccumulator::Bias(bias) => _mm256_add_ps(sum, load(bias.add(left), used)),
            };
            if used == LANES {
                _mm256_storeu_ps(c, sum);
            } else {
                _mm256_maskstore_ps(c, mask(used), sum);
            }
        }
    }
}

/// Loads the first `used` lanes of a vector; the others are zeros. Masks are slow, so whole vectors do without.
///
/// # Safety
/// These lanes may be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(from: *const f32, used: usize) -> __m256 {
    // SAFETY: the caller promises that these lanes may be read.
    unsafe { if used == LANES { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, mask(used)) } }
}

/// A mask of the first `used` lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn mask(used: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(used as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}
