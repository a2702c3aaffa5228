//! Histograms of the sizes and the shapes of images.

use std::collections::BTreeMap;

/// Sides in pixels at which bins begin: the customary ones, each about a third or a half larger than the one before.
const SIDES_PX: [f64; 17] =
    [0.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0, 1024.0, 1536.0, 2048.0, 4096.0];

/// Widths divided by heights at which bins begin; the bin around 1 has squares within 5 %.
const SHAPES: [f64; 9] = [0.0, 1.0 / 3.0, 0.5, 2.0 / 3.0, 0.95, 1.0 / 0.95, 1.5, 2.0, 3.0];

/// A bin of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// The smallest value that it counts.
    pub from: f64,
    /// The value that its values are below; `None` for the last one.
    pub below: Option<f64>,
    /// The number of images.
    pub images: usize,
}

impl Bin {
    /// Returns its range; one of whole numbers, without decimals, ends before the next one.
    #[must_use]
    pub fn label(&self, decimals: usize) -> String {
        let from = format!("{:.decimals$}", self.from);
        match self.below {
            Some(below) if decimals == 0 => format!("{from} – {}", below - 1.0),
            Some(below) => format!("{from} – {below:.decimals$}"),
            None => format!("{from} or more"),
        }
    }
}

/// Returns how many images have a shorter side of how many pixels, without empty bins at the ends.
#[must_use]
pub fn histogram_of_sides(shapes: &BTreeMap<[usize; 2], usize>) -> Vec<Bin> {
    counted(&SIDES_PX, shapes, |[height, width]| height.min(width) as f64)
}

/// Returns how many images have which width divided by height, without empty bins at the ends.
#[must_use]
pub fn histogram_of_shapes(shapes: &BTreeMap<[usize; 2], usize>) -> Vec<Bin> {
    counted(&SHAPES, shapes, |[height, width]| width as f64 / height as f64)
}

fn counted(edges: &[f64], shapes: &BTreeMap<[usize; 2], usize>, value: impl Fn([usize; 2]) -> f64) -> Vec<Bin> {
    let mut bins: Vec<Bin> = edges
        .iter()
        .enumerate()
        .map(|(at, from)| Bin { from: *from, below: edges.get(at + 1).copied(), images: 0 })
        .collect();
    for (shape, count) in shapes {
        let value = value(*shape);
        let bin = edges.partition_point(|edge| *edge <= value) - 1;
        bins[bin].images += count;
    }
    let is_used = |bin: &Bin| bin.images > 0;
    let (Some(first), Some(last)) = (bins.iter().position(is_used), bins.iter().rposition(is_used)) else {
        return Vec::new();
    };
    bins[first..=last].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins as `(from, below, images)`.
    fn bins(histogram: Vec<Bin>) -> Vec<(f64, Option<f64>, usize)> {
        histogram.into_iter().map(|bin| (bin.from, bin.below, bin.images)).collect()
    }

    #[test]
    fn a_side_is_counted_in_the_bin_that_begins_with_it() {
        let shapes = BTreeMap::from([([32, 40], 3), ([90, 47], 2), ([64, 65], 1), ([63, 63], 4)]);
        let expected = [(32.0, Some(48.0), 5), (48.0, Some(64.0), 4), (64.0, Some(96.0), 1)];
        assert_eq!(bins(histogram_of_sides(&shapes)), expected);
        let ends = BTreeMap::from([([1, 9], 1), ([5000, 4096], 1)]);
        let ends = bins(histogram_of_sides(&ends));
        assert_eq!((ends[0], ends[16]), ((0.0, Some(16.0), 1), (4096.0, None, 1)));
        assert_eq!(ends.len(), 17);
        assert_eq!(histogram_of_sides(&BTreeMap::new()), []);
    }

    #[test]
    fn bins_of_whole_numbers_end_before_the_next() {
        let bin = |from, below| Bin { from, below, images: 1 };
        assert_eq!(bin(32.0, Some(48.0)).label(0), "32 – 47");
        assert_eq!(bin(0.95, Some(1.0 / 0.95)).label(2), "0.95 – 1.05");
        assert_eq!(bin(4096.0, None).label(0), "4096 or more");
    }

    #[test]
    fn shapes_are_symmetric() {
        for (shape, counted) in [([100, 100], 4), ([100, 97], 4), ([97, 100], 4), ([2, 3], 6), ([3, 2], 3), ([1, 9], 8)]
        {
            let found = histogram_of_shapes(&BTreeMap::from([(shape, 7)]));
            assert_eq!(bins(found), [(SHAPES[counted], SHAPES.get(counted + 1).copied(), 7)], "{shape:?}");
        }
    }
}
