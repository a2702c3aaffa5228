//! Packing of operands: their lanes are written in the order in which the product reads them.
//!
//! ```text
//! B [K, N] in groups of `width` columns, the last one filled up with zeros; a step is one lane of depth
//!     group 0: step 0 [b[0, 0] … b[0, w-1]]  step 1 [b[1, 0] … b[1, w-1]] …     f32: a lane is one row
//!              step 0 [b[0..2, 0] …]          step 1 [b[2..4, 0] …] …            bf16: two rows
//!     group 1: …
//! several segments, each with all groups over a part of the depth, follow each other
//! ```
//!
//! The product calls the groups of `B` panels and those of `Aᵀ` blocks. For vector instructions they differ only in
//! their width. A unit for tiles reads whole squares of 16 steps × 16 columns, so the depth is filled up with zeros, and
//! it reads those of blocks row by row, each row a column of the operand:
//!
//! ```text
//! block in squares     steps 0 to 15:   column 0 [step 0 … step 15]  column 1 [step 0 … step 15]  … column w-1
//!                      steps 16 to 31:  column 0 [step 16 … ] …
//! ```
//!
//! Segments let an operand be packed chunk by chunk, each while it is in the cache. [`Tile`](crate::product::Tile) knows
//! the layouts that its products read.

mod layout;

pub(crate) use layout::SQUARE;
pub use layout::{Packed, PackedLayout};

use crate::dtype::Dtype;
use crate::matrix::Matrix;
#[cfg(target_arch = "x86_64")]
use crate::{amx, avx512, instructions::Avx512, instructions::Avx512Bf16, instructions::Avx512Of};
use layout::Order;
use multiversion::multiversion;

/// Packs one segment of an operand whose rows are the depth, such as the right side of a product.
///
/// # Shapes
/// `b` `[K, N]` with `K` at most the depth of `layout`; the rest of the depth is filled up with zeros.
///
/// # Panics
/// If the sizes do not fit together.
pub fn pack_depth_by_row<T: Dtype>(b: Matrix<T>, layout: PackedLayout, out: &mut [u32]) {
    assert!(b.columns() == layout.columns && b.rows().div_ceil(T::PER_LANE) <= layout.steps, "{layout:?}");
    assert!(layout.segments == 1 && out.len() == layout.lanes(), "one segment is packed at a time");
    if out.is_empty() {
        return;
    }
    match layout.order {
        Order::Steps => rows_to_groups::<T, T>(b, 0, layout, out),
        Order::Squares => rows_to_squares(b, layout, out),
    }
}

/// Packs groups `first ..`, as many as `out` has space for, of an f32 weight whose rows are the depth.
///
/// # Shapes
/// `weight` `[K, N]`.
///
/// # Panics
/// If the sizes do not fit together.
pub fn pack_weight_by_row<T: Dtype>(weight: Matrix<f32>, layout: PackedLayout, first: usize, out: &mut [u32]) {
    assert!(weight.columns() == layout.columns && weight.rows().div_ceil(T::PER_LANE) <= layout.steps, "{layout:?}");
    assert!(out.len().is_multiple_of(layout.group_lanes()), "groups are packed whole");
    if !out.is_empty() {
        rows_to_groups::<f32, T>(weight, first, layout, out);
    }
}

/// Packs some rows of an f32 weight whose rows are the depth: into each of `groups`, their steps of that group.
///
/// # Shapes
/// `rows` `[R, N]`, whole lanes of the depth unless they are its last ones; `groups` are equally long, in steps of `width`
/// lanes. Steps after the last row become zero.
///
/// # Panics
/// If the sizes do not fit together, or `width` is that of no tile.
pub fn pack_weight_rows<T: Dtype>(rows: Matrix<f32>, width: usize, groups: &mut [&mut [u32]]) {
    assert_eq!(groups.len(), rows.columns().div_ceil(width), "groups of {width} columns");
    let lanes = groups.first().map_or(0, |group| group.len());
    assert!(lanes.is_multiple_of(width) && groups.iter().all(|group| group.len() == lanes), "groups of whole steps");
    assert!(rows.rows().div_ceil(T::PER_LANE) <= lanes / width, "{} rows in {} steps", rows.rows(), lanes / width);
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512Of::<T>::detect().filter(|_| width.is_multiple_of(avx512::LANES)) {
        return avx512.weight_rows_to_groups(rows, width, groups);
    }
    for (group, out) in groups.iter_mut().enumerate().filter(|(_, out)| !out.is_empty()) {
        let left = group * width;
        let columns = width.min(rows.columns() - left);
        let part = Matrix::strided(&rows.data()[left..], rows.rows(), columns, rows.stride());
        let layout = PackedLayout { columns, width, steps: lanes / width, segments: 1, order: Order::Steps };
        rows_to_groups::<f32, T>(part, 0, layout, out);
    }
}

/// Packs some columns of a bf16 operand, so that they are the depth, from its panels: into each of `groups`, their steps of that
/// group. Panels are half as large as the values that they were packed from. Returns whether this CPU has AVX-512; if not, nothing is
/// done.
///
/// # Shapes
/// `panels` `[K, N]` in one segment, of which columns `first ..` are packed, whole lanes of the depth; `groups` are equally long, in
/// steps of `width` lanes, and have `K` columns. Steps after the last column become zero.
///
/// # Panics
/// If the sizes do not fit together, or `first` is not the first column of a panel.
pub fn pack_columns_of_panels(panels: Packed, first: usize, width: usize, groups: &mut [&mut [u32]]) -> bool {
    let lanes = groups.first().map_or(0, |group| group.len());
    assert!(lanes.is_multiple_of(width) && groups.iter().all(|group| group.len() == lanes), "groups of whole steps");
    assert!(panels.segments() == 1 && first.is_multiple_of(panels.width()), "column {first} begins no panel");
    assert_eq!(panels.order(), Order::Steps, "panels are packed step by step");
    let rows = groups.len() * width;
    assert!(rows <= (2 * panels.steps()).next_multiple_of(width), "{rows} rows in {} steps", panels.steps());
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect()
        && [width, panels.width()].iter().all(|width| width.is_multiple_of(avx512::LANES))
    {
        avx512.columns_of_panels_to_groups(panels, first, width, groups);
        return true;
    }
    false
}

/// Packs one segment of an operand whose columns are the depth, such as the transpose of the right side of a product.
///
/// # Shapes
/// `b` `[N, K]`.
///
/// # Panics
/// If the sizes do not fit together.
pub fn pack_depth_by_column<T: Dtype>(b: Matrix<T>, layout: PackedLayout, out: &mut [u32]) {
    assert!(b.rows() == layout.columns && b.columns().div_ceil(T::PER_LANE) <= layout.steps, "{layout:?}");
    assert!(layout.segments == 1 && out.len() == layout.lanes(), "one segment is packed at a time");
    if !out.is_empty() {
        columns_to_groups::<T, T>(b, 0, layout, out);
    }
}

/// Packs groups `first ..`, as many as `out` has space for, of an f32 weight whose columns are the depth.
///
/// # Shapes
/// `weight` `[N, K]`.
///
/// # Panics
/// If the sizes do not fit together.
pub fn pack_weight_by_column<T: Dtype>(weight: Matrix<f32>, layout: PackedLayout, first: usize, out: &mut [u32]) {
    check_weight::<T>(weight, layout, out);
    if !out.is_empty() {
        columns_to_groups::<f32, T>(weight, first, layout, out);
    }
}

fn check_weight<T: Dtype>(weight: Matrix<f32>, layout: PackedLayout, out: &[u32]) {
    assert!(weight.rows() == layout.columns && weight.columns().div_ceil(T::PER_LANE) <= layout.steps, "{layout:?}");
    assert!(out.len().is_multiple_of(layout.group_lanes()), "groups are packed whole");
}

/// [`pack_weight_by_column`] past the caches, for weights that are not read soon.
pub fn pack_weight_by_column_past_caches<T: Dtype>(
    weight: Matrix<f32>,
    layout: PackedLayout,
    first: usize,
    out: &mut [u32],
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = past_caches::<T>().filter(|_| !out.is_empty() && layout.width.is_multiple_of(avx512::LANES)) {
        check_weight::<T>(weight, layout, out);
        return avx512.columns_to_groups_past_caches(weight, first, layout, out);
    }
    pack_weight_by_column::<T>(weight, layout, first, out);
}

/// The instructions that pack weights past the caches. After a step all weights are packed, more than the caches hold, and an
/// ordinary store reads its line first. That gains something by AMX (`docs/LOG.md`); elsewhere it was not tried.
#[cfg(target_arch = "x86_64")]
fn past_caches<T: Dtype>() -> Option<Avx512Of<T>> {
    Avx512Of::detect().filter(|_| amx::is_available())
}

/// Specification of all packing: looks up the lane of every place. `at(k, j)` is the element of `B` in row `k`, column
/// `j`.
pub fn pack_naive<T: Dtype>(depth: usize, layout: PackedLayout, at: impl Fn(usize, usize) -> f32, out: &mut [u32]) {
    for (place, lane) in out.iter_mut().enumerate() {
        let (group, inside) = (place / layout.group_lanes(), place % layout.group_lanes());
        let (step, column) = match layout.order {
            Order::Steps => (inside / layout.width, inside % layout.width),
            Order::Squares => {
                let (square, inside) = (inside / (SQUARE * layout.width), inside % (SQUARE * layout.width));
                (square * SQUARE + inside % SQUARE, inside / SQUARE)
            }
        };
        let column = group * layout.width + column;
        let element =
            |k: usize| if k < depth && column < layout.columns { T::narrowed(at(k, column)) } else { T::default() };
        *lane = T::lane(&std::array::from_fn::<T, 2, _>(|i| element(step * T::PER_LANE + i)));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rows_to_groups<S: Dtype, T: Dtype>(b: Matrix<S>, first: usize, layout: PackedLayout, out: &mut [u32]) {
    // loops of constant length for each side of a tile, over columns that are whole groups and whole vectors
    match layout.width {
        6 => rows_to_runs::<S, T, 6, 48>(b, first, layout, out),
        8 => rows_to_runs::<S, T, 8, 64>(b, first, layout, out),
        16 => rows_to_runs::<S, T, 16, 64>(b, first, layout, out),
        48 => rows_to_runs::<S, T, 48, 48>(b, first, layout, out),
        other => unreachable!("no tile has a side of {other}"),
    }
}

/// Packs `COLUMNS` columns at a time, step by step, so that writes go to a few places and proceed there without gaps.
#[inline(always)]
fn rows_to_runs<S: Dtype, T: Dtype, const WIDTH: usize, const COLUMNS: usize>(
    b: Matrix<S>,
    first: usize,
    layout: PackedLayout,
    out: &mut [u32],
) {
    let steps = layout.steps;
    let (runs, _) = out.as_chunks_mut::<WIDTH>(); // each is one step of a group
    let columns = (layout.columns - first * WIDTH).min(runs.len() / steps * WIDTH);
    let zeros = [S::default(); COLUMNS];
    for start in (0..columns).step_by(COLUMNS) {
        let used = COLUMNS.min(columns - start);
        let left = first * WIDTH + start;
        let runs = &mut runs[start / WIDTH * steps..][..used.div_ceil(WIDTH) * steps];
        for step in 0..steps {
            let row = step * T::PER_LANE;
            let part = |row: usize| if row < b.rows() { &b.row(row)[left..left + used] } else { &zeros[..used] };
            let (upper, lower) = (part(row), part(row + T::PER_LANE - 1));
            let ((upper, upper_rest), (lower, lower_rest)) = (upper.as_chunks::<WIDTH>(), lower.as_chunks::<WIDTH>());
            for (group, (upper, lower)) in upper.iter().zip(lower).enumerate() {
                let run = &mut runs[group * steps + step];
                for j in 0..WIDTH {
                    run[j] = T::lane(&[T::convert(upper[j]), T::convert(lower[j])]);
                }
            }
            if !upper_rest.is_empty() {
                let run = &mut runs[upper.len() * steps + step];
                run.fill(0);
                for ((lane, upper), lower) in run.iter_mut().zip(upper_rest).zip(lower_rest) {
                    *lane = T::lane(&[T::convert(*upper), T::convert(*lower)]);
                }
            }
        }
    }
}

fn rows_to_squares<T: Dtype>(b: Matrix<T>, layout: PackedLayout, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    let avx512 = Avx512Bf16::detect().filter(|_| layout.width.is_multiple_of(avx512::LANES));
    #[cfg(target_arch = "x86_64")]
    if let (Some(avx512), Some(b)) = (avx512, T::as_bf16(b)) {
        return avx512.rows_to_squares(b, layout, out);
    }
    rows_to_squares_portable(b, layout, out);
}

fn rows_to_squares_portable<T: Dtype>(b: Matrix<T>, layout: PackedLayout, out: &mut [u32]) {
    let value = |row: usize, column: usize| match row < b.rows() && column < layout.columns {
        true => b.row(row)[column],
        false => T::default(),
    };
    for (group, lanes) in out.chunks_exact_mut(layout.group_lanes()).enumerate() {
        for (square, lanes) in lanes.chunks_exact_mut(SQUARE * layout.width).enumerate() {
            for (j, lanes) in lanes.chunks_exact_mut(SQUARE).enumerate() {
                for (step, lane) in lanes.iter_mut().enumerate() {
                    let (row, column) = ((square * SQUARE + step) * T::PER_LANE, group * layout.width + j);
                    *lane = T::lane(&[value(row, column), value(row + T::PER_LANE - 1, column)]);
                }
            }
        }
    }
}

/// Lanes that are read from a row before the next row's turn.
const STEPS_AT_ONCE: usize = 16;

/// Rows that are read in turns: few enough for the hardware to prefetch all of them, and enough to write several lanes
/// in each place.
const ROWS_AT_ONCE: usize = 8;

fn columns_to_groups<S: Dtype, T: Dtype>(b: Matrix<S>, first: usize, layout: PackedLayout, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512Of::<T>::detect().filter(|_| layout.width.is_multiple_of(avx512::LANES)) {
        return avx512.columns_to_groups::<S>(b, first, layout, out);
    }
    columns_to_groups_portable::<S, T>(b, first, layout, out);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn columns_to_groups_portable<S: Dtype, T: Dtype>(b: Matrix<S>, first: usize, layout: PackedLayout, out: &mut [u32]) {
    let PackedLayout { width, columns, .. } = layout;
    for (group, lanes) in out.chunks_exact_mut(layout.group_lanes()).enumerate() {
        let left = (first + group) * width;
        let used = width.min(columns - left);
        if used < width {
            lanes.fill(0);
        }
        for j in (0..used).step_by(ROWS_AT_ONCE) {
            let count = ROWS_AT_ONCE.min(used - j);
            for (part, lanes) in lanes.chunks_mut(STEPS_AT_ONCE * width).enumerate() {
                let start = part * STEPS_AT_ONCE * T::PER_LANE;
                let mut square = [[0; STEPS_AT_ONCE]; ROWS_AT_ONCE];
                for (i, square) in square[..count].iter_mut().enumerate() {
                    *square = lanes_of_row::<S, T>(&b.row(left + j + i)[start..]);
                }
                for (step, lanes) in transposed(square).iter().zip(lanes.chunks_exact_mut(width)) {
                    match lanes[j..].first_chunk_mut() {
                        Some(run) if count == ROWS_AT_ONCE => *run = *step,
                        _ => lanes[j..j + count].copy_from_slice(&step[..count]),
                    }
                }
            }
        }
    }
}

/// The transpose.
#[inline(always)]
fn transposed(rows: [[u32; STEPS_AT_ONCE]; ROWS_AT_ONCE]) -> [[u32; ROWS_AT_ONCE]; STEPS_AT_ONCE] {
    let mut columns = [[0; ROWS_AT_ONCE]; STEPS_AT_ONCE];
    for (half, columns) in columns.chunks_exact_mut(8).enumerate() {
        let part = |row: usize| std::array::from_fn(|i| rows[row][half * 8 + i]);
        columns.copy_from_slice(&transposed_square(std::array::from_fn(part)));
    }
    columns
}

/// The transpose in three rounds, which interleave neighbors, then pairs, then halves. Each round shuffles whole
/// vectors.
#[inline(always)]
fn transposed_square(r: [[u32; 8]; 8]) -> [[u32; 8]; 8] {
    let neighbors = |a: [u32; 8], b: [u32; 8]| {
        [[a[0], b[0], a[1], b[1], a[4], b[4], a[5], b[5]], [a[2], b[2], a[3], b[3], a[6], b[6], a[7], b[7]]]
    };
    let pairs = |a: [u32; 8], b: [u32; 8]| {
        [[a[0], a[1], b[0], b[1], a[4], a[5], b[4], b[5]], [a[2], a[3], b[2], b[3], a[6], a[7], b[6], b[7]]]
    };
    let halves = |a: [u32; 8], b: [u32; 8]| {
        [[a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]], [a[4], a[5], a[6], a[7], b[4], b[5], b[6], b[7]]]
    };
    let four = |[a, b, c, d]: [[u32; 8]; 4]| {
        let ([ab_0, ab_2], [cd_0, cd_2]) = (neighbors(a, b), neighbors(c, d));
        let ([first, second], [third, fourth]) = (pairs(ab_0, cd_0), pairs(ab_2, cd_2));
        [first, second, third, fourth] // columns 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four rows
    };
    let (upper, lower) = (four([r[0], r[1], r[2], r[3]]), four([r[4], r[5], r[6], r[7]]));
    let mut columns = [[0; 8]; 8];
    for i in 0..4 {
        [columns[i], columns[i + 4]] = halves(upper[i], lower[i]);
    }
    columns
}

/// The first lanes of a row, filled up with zeros after its end.
#[inline(always)]
fn lanes_of_row<S: Dtype, T: Dtype>(row: &[S]) -> [u32; STEPS_AT_ONCE] {
    let mut filled = [S::default(); 2 * STEPS_AT_ONCE];
    let values = match row.first_chunk() {
        Some(values) => values,
        None => {
            let len = (STEPS_AT_ONCE * T::PER_LANE).min(row.len());
            filled[..len].copy_from_slice(&row[..len]);
            &filled
        }
    };
    let mut elements = [T::default(); 2 * STEPS_AT_ONCE];
    for (element, value) in elements.iter_mut().zip(values) {
        *element = T::convert(*value);
    }
    std::array::from_fn(|step| T::lane(&[elements[step * T::PER_LANE], elements[(step + 1) * T::PER_LANE - 1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "x86_64")]
    use crate::aligned::Aligned;
    use crate::dtype::{Bf16, padded};
    use crate::testing::numbers;

    fn check<T: Dtype>() {
        for (depth, columns) in [(1, 1), (5, 16), (9, 17), (33, 40), (64, 6), (12, 100)] {
            let weight = numbers(depth * columns, 1);
            let by_row = |k: usize, j: usize| weight[k * columns + j];
            let by_column = |k: usize, j: usize| weight[j * depth + k];
            for (width, whole_squares) in [(6, false), (8, false), (16, false), (48, false), (48, true)] {
                let mut layout = PackedLayout::new::<T>(depth, columns, width);
                if whole_squares {
                    layout = layout.with_whole_squares();
                }
                let [mut fast, mut naive] = [1, 2].map(|v| vec![v; layout.lanes()]);
                for first in 0..layout.groups() {
                    let rest = first * layout.group_lanes()..layout.lanes();
                    pack_naive::<T>(depth, layout, by_row, &mut naive);
                    let rows = Matrix::strided(&weight, depth, columns, columns);
                    pack_weight_by_row::<T>(rows, layout, first, &mut fast[rest.clone()]);
                    assert_eq!(fast[rest.clone()], naive[rest.clone()], "{depth}×{columns} by row, width {width}");

                    pack_naive::<T>(depth, layout, by_column, &mut naive);
                    let rows = Matrix::strided(&weight, columns, depth, depth);
                    pack_weight_by_column::<T>(rows, layout, first, &mut fast[rest.clone()]);
                    assert_eq!(fast[rest.clone()], naive[rest.clone()], "{depth}×{columns} by column, width {width}");
                    columns_to_groups_portable::<f32, T>(rows, first, layout, &mut fast[rest.clone()]);
                    assert_eq!(fast[rest.clone()], naive[rest], "{depth}×{columns} by column, width {width}, portable");
                }
                // the same rows in two parts
                let upper = depth / 2 / T::PER_LANE * T::PER_LANE;
                let mut in_parts = vec![3; layout.lanes()];
                let (mut first, mut second): (Vec<_>, Vec<_>) = in_parts
                    .chunks_exact_mut(layout.group_lanes())
                    .map(|group| group.split_at_mut(upper / T::PER_LANE * width))
                    .unzip();
                let rows = Matrix::strided(&weight, depth, columns, columns);
                pack_weight_rows::<T>(rows.rows_from(0, upper), width, &mut first);
                pack_weight_rows::<T>(rows.rows_from(upper, depth - upper), width, &mut second);
                pack_naive::<T>(depth, layout, by_row, &mut naive);
                assert_eq!(in_parts, naive, "{depth}×{columns} in two parts, width {width}");

                // operands that are stored as T; the last layout is deeper than its operand by two rows
                let stored = |rows: usize, columns: usize| -> Vec<T> {
                    let mut out = vec![T::default(); rows * padded::<T>(columns)];
                    for i in 0..rows {
                        T::narrow(&weight[i * columns..][..columns], &mut out[i * padded::<T>(columns)..][..columns]);
                    }
                    out
                };
                pack_naive::<T>(depth, layout, by_column, &mut naive);
                pack_depth_by_column(Matrix::new(&stored(columns, depth), columns, depth), layout, &mut fast);
                assert_eq!(fast, naive);
                let (mut fast, rows) = (vec![1; layout.lanes()], stored(columns, depth));
                columns_to_groups_portable::<T, T>(Matrix::new(&rows, columns, depth), 0, layout, &mut fast);
                assert_eq!(fast, naive);
                let longer = PackedLayout::new::<T>(depth + 2, columns, width);
                for layout in [longer, longer.in_squares()] {
                    let [mut fast, mut naive] = [1, 2].map(|v| vec![v; layout.lanes()]);
                    pack_naive::<T>(depth, layout, by_row, &mut naive);
                    let rows = stored(depth, columns);
                    let rows = Matrix::new(&rows, depth, columns);
                    pack_depth_by_row(rows, layout, &mut fast);
                    assert_eq!(fast, naive, "{depth}×{columns}, {layout:?}");
                    if layout.order == Order::Squares {
                        fast.fill(1);
                        rows_to_squares_portable(rows, layout, &mut fast);
                        assert_eq!(fast, naive, "{depth}×{columns}, {layout:?}, portable");
                    }
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn columns_of_panels_equal_naive_in_two_parts() {
        for (rows, columns) in [(1, 1), (5, 49), (48, 96), (33, 100), (97, 50), (200, 150)] {
            let values = numbers(rows * columns, 1);
            let whole = |layout: PackedLayout, is_whole| if is_whole { layout.with_whole_squares() } else { layout };
            for is_whole in [false, true] {
                let from = whole(PackedLayout::new::<Bf16>(rows, columns, 48), is_whole);
                let to = whole(PackedLayout::new::<Bf16>(columns, rows, 48), is_whole);
                let (mut panels, mut naive) = (vec![1; from.lanes()], vec![2; to.lanes()]);
                pack_naive::<Bf16>(rows, from, |k, j| values[k * columns + j], &mut panels);
                pack_naive::<Bf16>(columns, to, |k, j| values[j * columns + k], &mut naive);
                let mut packed = vec![3; to.lanes()];
                let upper = columns / 2 / 48 * 48;
                let (mut first, mut second): (Vec<_>, Vec<_>) =
                    packed.chunks_exact_mut(to.group_lanes()).map(|group| group.split_at_mut(upper / 2 * 48)).unzip();
                let panels = Packed::new(&panels, from);
                let is_done = [(0, &mut first), (upper, &mut second)]
                    .map(|(column, groups)| pack_columns_of_panels(panels, column, 48, groups));
                assert_eq!(is_done, [Avx512::detect().is_some(); 2]);
                assert!(!is_done[0] || packed == naive, "{rows} × {columns}, {is_whole}");
            }
        }
    }

    #[test]
    fn rows_that_end_with_their_slice_are_packed_into_a_deeper_layout() {
        // 32 rows of 32 columns, from column 64 of rows of 96 on
        let values: Vec<Bf16> = numbers(32 * 96, 1).into_iter().map(Bf16::from_f32).collect();
        let rows = Matrix::strided(&values[64..], 32, 32, 96);
        let layout = PackedLayout::new::<Bf16>(64, 32, 32).in_squares();
        let (mut fast, mut naive) = (vec![1; layout.lanes()], vec![2; layout.lanes()]);
        pack_depth_by_row(rows, layout, &mut fast);
        pack_naive::<Bf16>(32, layout, |k, j| rows.at(k, j), &mut naive);
        assert_eq!(fast, naive);
    }

    #[test]
    fn a_weight_that_is_deeper_than_its_layout_is_refused() {
        let (weight, layout) = (numbers(48 * 40, 1), PackedLayout::new::<Bf16>(20, 48, 48));
        let weight = Matrix::strided(&weight, 48, 40, 40);
        for pack in [pack_weight_by_column::<Bf16>, pack_weight_by_column_past_caches::<Bf16>] {
            let packed = std::panic::catch_unwind(|| pack(weight, layout, 0, &mut vec![0; layout.lanes()]));
            assert!(packed.is_err());
        }
    }

    #[test]
    fn a_weight_without_depth_has_no_lanes() {
        let layout = PackedLayout::new::<Bf16>(0, 5, 48);
        for pack in [pack_weight_by_column::<Bf16>, pack_weight_by_column_past_caches::<Bf16>] {
            pack(Matrix::strided(&[], 5, 0, 0), layout, 0, &mut []);
        }
    }

    /// Packs weights past the caches by the function that is used only where it gains something.
    #[cfg(target_arch = "x86_64")]
    fn check_past_caches<T: Dtype>() {
        let Some(avx512) = Avx512Of::<T>::detect() else { return };
        for (depth, columns) in [(1, 1), (9, 17), (33, 48), (64, 40), (12, 100)] {
            let weight = numbers(depth * columns, 1);
            let layout = PackedLayout::new::<T>(depth, columns, 48);
            let mut naive = vec![2; layout.lanes()];
            for start in [0, 1] {
                let mut places = Aligned::new(layout.lanes() + 1);
                let by_column = Matrix::strided(&weight, columns, depth, depth);
                let out = &mut places[start..][..layout.lanes()];
                avx512.columns_to_groups_past_caches(by_column, 0, layout, out);
                pack_naive::<T>(depth, layout, |k, j| weight[j * depth + k], &mut naive);
                assert_eq!(out, naive, "{depth}×{columns} by column, from lane {start} on");
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn packing_past_the_caches_equals_naive() {
        check_past_caches::<f32>();
        check_past_caches::<Bf16>();
    }

    #[test]
    fn packing_equals_naive_in_both_orders_and_at_odd_sizes() {
        check::<f32>();
        check::<Bf16>();
    }
}
