//! Packing: squares of sixteen rows and sixteen lanes are transposed in registers where rows become columns, and squares of eight
//! rows and sixteen lanes where lanes are two values of a column and become two of a row.

use super::LANES;
use super::bf16::{rounded, rounded_pairs};
use crate::dtype::{Bf16, Dtype, DtypeKind};
use crate::matrix::Matrix;
use crate::pack::{Packed, PackedLayout, SQUARE};
use crate::product::fetch_values;
use std::arch::x86_64::{
    __m512i, __mmask16, __mmask32, _mm_set_epi64x, _mm256_maskz_loadu_epi16, _mm512_broadcast_i32x4,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_loadu_si512, _mm512_maskz_loadu_epi16,
    _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_slli_epi32, _mm512_storeu_si512, _mm512_stream_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// See [`crate::pack::pack_depth_by_column`]. With `PAST_CACHES` lanes are stored past the caches.
///
/// # Safety
/// - If `T` is bf16, the CPU has AVX512-BF16.
/// - With `PAST_CACHES`, `out` starts at a cache line, and other threads are told of it only after an `sfence`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn columns_to_groups<S: Dtype, T: Dtype, const PAST_CACHES: bool>(
    b: Matrix<S>,
    first: usize,
    layout: PackedLayout,
    out: &mut [u32],
) {
    let (width, columns) = (layout.width(), layout.columns());
    for (group, lanes) in out.chunks_exact_mut(layout.group_lanes()).enumerate() {
        let left = (first + group) * width;
        // sixteen rows are packed to their end before the next sixteen: the hardware prefetches that many streams
        for j in (0..width).step_by(LANES) {
            for (part, lanes) in lanes.chunks_mut(LANES * width).enumerate() {
                let start = part * LANES * T::PER_LANE;
                let mut square = [_mm512_setzero_si512(); LANES];
                for (i, square) in square.iter_mut().enumerate() {
                    if left + j + i < columns {
                        // SAFETY: the caller promises the instructions.
                        *square = unsafe { lanes_of::<S, T>(&b.row(left + j + i)[start..]) };
                    }
                }
                for (step, lanes) in transposed(square).iter().zip(lanes.chunks_exact_mut(width)) {
                    let run = lanes[j..j + LANES].as_mut_ptr().cast();
                    // SAFETY: the run is sixteen lanes long. Groups are whole runs wide, so with `out` each run starts at a
                    // cache line.
                    unsafe {
                        match PAST_CACHES {
                            true => _mm512_stream_si512(run, *step),
                            false => _mm512_storeu_si512(run, *step),
                        }
                    }
                }
            }
        }
    }
}

/// Steps that a weight's rows are packed to in one group before the next group. With fewer, writes would go to many pages, whose
/// lines take each other's place in the cache.
const STEPS_AT_ONCE: usize = 8;

/// See [`crate::pack::pack_weight_rows`], for groups that are whole vectors wide. The next rows are fetched ahead.
///
/// # Safety
/// If `T` is bf16, the CPU has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn weight_rows_to_groups<T: Dtype>(rows: Matrix<f32>, width: usize, groups: &mut [&mut [u32]]) {
    let steps = groups.first().map_or(0, |group| group.len() / width);
    let rest = |row: usize, left: usize| match row < rows.rows() {
        true => &rows.row(row)[left.min(rows.columns())..],
        false => &[],
    };
    for first in (0..steps).step_by(STEPS_AT_ONCE) {
        let part = first..steps.min(first + STEPS_AT_ONCE);
        for row in part.end * T::PER_LANE..(part.end + STEPS_AT_ONCE) * T::PER_LANE {
            fetch_values(rest(row, 0));
        }
        for (group, lanes) in groups.iter_mut().enumerate() {
            let (runs, _) = lanes[part.start * width..part.end * width].as_chunks_mut::<LANES>();
            for (i, run) in runs.iter_mut().enumerate() {
                let (step, left) = (first + i / (width / LANES), group * width + i % (width / LANES) * LANES);
                // SAFETY: the run is sixteen lanes long, and the caller promises the instructions.
                unsafe {
                    let values = |row: usize| lanes_of::<f32, f32>(rest(row, left));
                    let lanes = match T::KIND {
                        DtypeKind::F32 => values(step),
                        DtypeKind::Bf16 => {
                            let rounded = |row| _mm512_cvtepu16_epi32(rounded(_mm512_castsi512_ps(values(row))));
                            _mm512_or_si512(rounded(2 * step), _mm512_slli_epi32::<16>(rounded(2 * step + 1)))
                        }
                    };
                    _mm512_storeu_si512(run.as_mut_ptr().cast(), lanes);
                }
            }
        }
    }
}

/// Steps of the depth, each two columns of the source, that a transposed square of lanes has.
const STEPS_OF_SQUARE: usize = LANES / 2;

/// See [`crate::pack::pack_columns_of_panels`], for groups that are whole vectors wide.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn columns_of_panels_to_groups(panels: Packed, first: usize, width: usize, groups: &mut [&mut [u32]]) {
    let all_steps = groups.first().map_or(0, |group| group.len() / width);
    // one panel after the other, each from its first step to its last; two of its columns are a step of the groups
    let at_once = panels.width() / 2;
    for first_step in (0..all_steps).step_by(at_once) {
        let panel = first / panels.width() + first_step / at_once;
        let source = match panel < panels.groups() {
            true => panels.lanes_of_groups(0, panel..panel + 1),
            false => &[],
        };
        let steps = first_step..all_steps.min(first_step + at_once);
        for (group, out) in groups.iter_mut().enumerate() {
            for left in (0..width).step_by(LANES) {
                let source_step = (group * width + left) / 2;
                for (i, step) in steps.clone().step_by(STEPS_OF_SQUARE).enumerate() {
                    let mut square = [_mm512_setzero_si512(); STEPS_OF_SQUARE];
                    for (row, square) in square.iter_mut().enumerate() {
                        let at = (source_step + row) * panels.width() + i * LANES;
                        if let Some(run) = source.get(at..at + LANES) {
                            // SAFETY: the run is sixteen lanes long.
                            *square = unsafe { _mm512_loadu_si512(run.as_ptr().cast()) };
                        }
                    }
                    let of_square = &mut out[step * width..steps.end.min(step + STEPS_OF_SQUARE) * width];
                    for (lanes, out) in transposed_pairs(square).iter().zip(of_square.chunks_exact_mut(width)) {
                        // SAFETY: the run is sixteen lanes long.
                        unsafe { _mm512_storeu_si512(out[left..left + LANES].as_mut_ptr().cast(), *lanes) };
                    }
                }
            }
        }
    }
}

/// See [`crate::pack::pack_depth_by_row`], for a layout in squares.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn rows_to_squares(b: Matrix<Bf16>, layout: PackedLayout, out: &mut [u32]) {
    let (width, columns) = (layout.width(), layout.columns());
    for (group, lanes) in out.chunks_exact_mut(layout.group_lanes()).enumerate() {
        for (square, lanes) in lanes.chunks_exact_mut(SQUARE * width).enumerate() {
            let top = 2 * SQUARE * square;
            let rows = b.rows().saturating_sub(top).min(2 * SQUARE);
            for (j, lanes) in lanes.as_chunks_mut::<{ SQUARE * LANES }>().0.iter_mut().enumerate() {
                let left = group * width + j * LANES;
                let used = columns.saturating_sub(left).min(LANES);
                let mut steps = [_mm512_setzero_si512(); SQUARE];
                if used > 0 {
                    // beyond the last row, the slice may end before another stride is over
                    let values = if rows > 0 { &b.data()[top * b.stride()..] } else { &[] };
                    // a square without zeros is the usual case, and a mask of ones costs nothing then
                    let mask = if used < LANES { (1 << used) - 1 } else { __mmask16::MAX };
                    for (row, values) in values.chunks(b.stride()).take(rows).enumerate() {
                        let part = &values[left..left + used];
                        // SAFETY: the mask keeps the load within `part`.
                        let half = unsafe { _mm256_maskz_loadu_epi16(mask, part.as_ptr().cast()) };
                        let lanes = _mm512_cvtepu16_epi32(half);
                        steps[row / 2] = match row % 2 {
                            0 => lanes,
                            _ => _mm512_or_si512(steps[row / 2], _mm512_slli_epi32::<16>(lanes)),
                        };
                    }
                }
                for (column, lanes) in transposed(steps).iter().zip(lanes.as_chunks_mut::<LANES>().0) {
                    // SAFETY: the run is sixteen lanes long.
                    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), *column) };
                }
            }
        }
    }
}

/// The first sixteen lanes of a row, filled up with zeros after its end.
///
/// # Safety
/// If `T` is bf16, the CPU has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn lanes_of<S: Dtype, T: Dtype>(row: &[S]) -> __m512i {
    let mask = |len: usize| if len < LANES { (1 << len) - 1 } else { __mmask16::MAX };
    let values = row.as_ptr();
    // SAFETY: the masks keep loads within the row, `KIND` says what type a value is, and the caller promises the
    // instructions.
    unsafe {
        match (S::KIND, T::KIND) {
            (DtypeKind::F32, DtypeKind::F32) => {
                _mm512_castps_si512(_mm512_maskz_loadu_ps(mask(row.len()), values.cast()))
            }
            (DtypeKind::Bf16, DtypeKind::Bf16) => {
                let both = if row.len() < 2 * LANES { (1 << row.len()) - 1 } else { __mmask32::MAX };
                _mm512_maskz_loadu_epi16(both, values.cast())
            }
            (DtypeKind::F32, DtypeKind::Bf16) => {
                let rest = &row[LANES.min(row.len())..];
                let lower = _mm512_maskz_loadu_ps(mask(row.len()), values.cast());
                let upper = _mm512_maskz_loadu_ps(mask(rest.len()), rest.as_ptr().cast());
                rounded_pairs(upper, lower)
            }
            (DtypeKind::Bf16, DtypeKind::F32) => {
                let half = _mm256_maskz_loadu_epi16(mask(row.len()), values.cast());
                _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
            }
        }
    }
}

/// The transpose. First it interleaves lanes and pairs of lanes of four rows each, then it exchanges quarters of
/// vectors.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    // of[g][k] has column 4·l + k of rows 4·g .. 4·g + 4 in its quarter l
    let mut of = [[_mm512_setzero_si512(); 4]; 4];
    for (g, of) in of.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| rows[4 * g + i]);
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        *of = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    let mut columns = rows;
    for k in 0..4 {
        [columns[k], columns[k + 4], columns[k + 8], columns[k + 12]] = transposed_quarters(of.map(|of| of[k]));
    }
    columns
}

/// The transpose of a square of 16 × 16 values, whose lanes are two values of a column, `(2·row, column)` and
/// `(2·row + 1, column)`, and become two values of a row, `(row, 2·column)` and `(row, 2·column + 1)`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn transposed_pairs(rows: [__m512i; STEPS_OF_SQUARE]) -> [__m512i; STEPS_OF_SQUARE] {
    // within two lanes, their first values and then their second ones; after that, two lanes move as one
    let order = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0f0e_0b0a_0d0c_0908, 0x0706_0302_0504_0100));
    let rows = rows.map(|row| _mm512_shuffle_epi8(row, order));
    let pairs = [0, 2, 4, 6].map(|i| (rows[i], rows[i + 1]));
    let even = transposed_quarters(pairs.map(|(a, b)| _mm512_unpacklo_epi64(a, b)));
    let odd = transposed_quarters(pairs.map(|(a, b)| _mm512_unpackhi_epi64(a, b)));
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}

/// The transpose of four rows of four quarters of a vector.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    const EVEN: i32 = 0b10_00_10_00; // quarters 0 and 2 of both operands
    const ODD: i32 = 0b11_01_11_01;
    let (ab, cd) = (_mm512_shuffle_i32x4::<EVEN>(a, b), _mm512_shuffle_i32x4::<EVEN>(c, d));
    let (ab_odd, cd_odd) = (_mm512_shuffle_i32x4::<ODD>(a, b), _mm512_shuffle_i32x4::<ODD>(c, d));
    [
        _mm512_shuffle_i32x4::<EVEN>(ab, cd),
        _mm512_shuffle_i32x4::<EVEN>(ab_odd, cd_odd),
        _mm512_shuffle_i32x4::<ODD>(ab, cd),
        _mm512_shuffle_i32x4::<ODD>(ab_odd, cd_odd),
    ]
}
