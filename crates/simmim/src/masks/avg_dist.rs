//! AvgDist: mean distance of hidden pixels to the nearest visible one (arXiv:2111.09886, section 4.1.2).
//!
//! The distances are exact and take linear time (Meijster, Roerdink & Hesselink, "A general algorithm for computing
//! distance transforms in linear time", 2000). A pass down and a pass up each column find the nearest visible pixel of
//! the column. Then, along each row, the squared distance is the lower envelope of one parabola per column.

/// Mean Euclidean distance from hidden pixels to the nearest visible one, in pixels; `None` if no pixel is hidden or
/// none is visible.
///
/// # Shapes
/// `hidden` `[H, W]`, `true` = hidden; `width` is `W`.
pub fn avg_dist(hidden: &[bool], width: usize) -> Option<f64> {
    let count = hidden.iter().filter(|h| **h).count();
    if count == 0 || count == hidden.len() {
        return None;
    }
    let sum: f64 = squared_distances(hidden, width).iter().map(|d| (*d as f64).sqrt()).sum();
    Some(sum / count as f64)
}

/// Squared distance of every pixel to the nearest visible one, `[H, W]`. At least one pixel must be visible.
fn squared_distances(hidden: &[bool], width: usize) -> Vec<i64> {
    let columns = distances_in_columns(hidden, width);
    let mut squared = vec![0; hidden.len()];
    let mut envelope = Vec::new();
    for (row, squared) in columns.chunks_exact(width).zip(squared.chunks_exact_mut(width)) {
        lower_envelope(row, &mut envelope);
        let ends = envelope.iter().skip(1).map(|segment| segment.start).chain([width]);
        for (segment, end) in envelope.iter().zip(ends) {
            for x in segment.start..end {
                squared[x] = height_at(row, segment.column, x);
            }
        }
    }
    squared
}

/// Distance of every pixel to the nearest visible one in its column, `[H, W]`. In a column without one, it is larger
/// than any distance in the image.
fn distances_in_columns(hidden: &[bool], width: usize) -> Vec<i64> {
    let far = (hidden.len() / width + width) as i64;
    let mut nearest: Vec<i64> = hidden.iter().map(|h| if *h { far } else { 0 }).collect();
    for i in width..nearest.len() {
        nearest[i] = nearest[i].min(nearest[i - width] + 1);
    }
    for i in (0..nearest.len() - width).rev() {
        nearest[i] = nearest[i].min(nearest[i + width] + 1);
    }
    nearest
}

/// A segment of the lower envelope, on which the parabola of `column` is the lowest; it ends where the next one starts.
struct Segment {
    column: usize,
    start: usize,
}

/// Value at `x` of the parabola with its vertex at `column`.
fn height_at(row: &[i64], column: usize, x: usize) -> i64 {
    let distance = x as i64 - column as i64;
    distance * distance + row[column] * row[column]
}

/// The lower envelope of the parabolas of a row, from left to right.
fn lower_envelope(row: &[i64], envelope: &mut Vec<Segment>) {
    envelope.clear();
    for column in 0..row.len() {
        // a segment at whose start the new parabola is lower is not part of the envelope any more
        let is_undercut = |segment: &mut Segment| {
            height_at(row, segment.column, segment.start) > height_at(row, column, segment.start)
        };
        while envelope.pop_if(is_undercut).is_some() {}
        let start = match envelope.last() {
            None => 0,
            Some(Segment { column: before, .. }) => {
                let (left, right) = (*before as i64, column as i64);
                let difference = row[column] * row[column] - row[*before] * row[*before];
                // the first x at which the new parabola is below the one before
                (right * right - left * left + difference).div_euclid(2 * (right - left)) as usize + 1
            }
        };
        if start < row.len() {
            envelope.push(Segment { column, start });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::{Grid, MaskStrategy, Random, Square};
    use simmim_data::Purpose;
    use simmim_data::rng::rng;

    /// The definition: each pixel is compared with every visible one.
    fn squared_distances_naive(hidden: &[bool], width: usize) -> Vec<i64> {
        let coordinates = |i: usize| ((i / width) as i64, (i % width) as i64);
        let squared = |a: usize, b: usize| {
            let ((y, x), (v, u)) = (coordinates(a), coordinates(b));
            (y - v).pow(2) + (x - u).pow(2)
        };
        let visible: Vec<usize> = (0..hidden.len()).filter(|i| !hidden[*i]).collect();
        (0..hidden.len()).map(|i| visible.iter().map(|v| squared(i, *v)).min().unwrap()).collect()
    }

    #[test]
    fn distances_equal_naive() {
        for (rows, columns) in [(1, 1), (1, 17), (17, 1), (9, 14), (31, 23)] {
            let grid = Grid { rows, columns };
            for (index, ratio) in [0.05, 0.3, 0.6, 0.9, 0.99].into_iter().enumerate() {
                for strategy in [&Random { ratio } as &dyn MaskStrategy, &Square { ratio }] {
                    let mask = strategy.sample(&mut rng(0, Purpose::Mask, 0, index as u64), grid);
                    if mask.count() < grid.cells() {
                        let found = squared_distances(mask.hidden(), columns);
                        let expected = squared_distances_naive(mask.hidden(), columns);
                        assert_eq!(found, expected, "{ratio} of {rows}×{columns}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_mean_is_over_hidden_pixels() {
        // one row, visible at its ends: distances 1, 2, 1
        assert_eq!(avg_dist(&[false, true, true, true, false], 5), Some(4.0 / 3.0));
        // a visible corner of 2×2: 1, 1, √2
        assert_eq!(avg_dist(&[false, true, true, true], 2), Some((2.0 + 2f64.sqrt()) / 3.0));
    }

    #[test]
    fn nothing_hidden_or_nothing_visible_has_no_distance() {
        assert_eq!(avg_dist(&[false; 4], 2), None);
        assert_eq!(avg_dist(&[true; 4], 2), None);
    }
}
