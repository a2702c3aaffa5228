//! Resizing of position tables to another grid.
//!
//! Relative position bias tables are resized as in microsoft/SimMIM (`utils.py`, `remap_pretrained_keys_swin`): the old
//! offsets are spread in a geometric progression, so that the table stays dense in its middle, and a cubic spline
//! through them is evaluated at the new offsets. Absolute position embeddings are resized by bicubic interpolation as
//! in PyTorch's `interpolate`. Both work on each axis separately, so grids need not be square.

/// The ratio of the progression is found by bisection between these bounds, to this tolerance (the official constants).
const RATIO_LOW: f64 = 1.01;
const RATIO_HIGH: f64 = 1.5;
const RATIO_TOLERANCE: f64 = 1e-6;

/// Parameter `A` of PyTorch's bicubic kernel (`aten/src/ATen/native/UpSample.h`).
const BICUBIC_A: f64 = -0.75;

/// Resizes a relative position bias table from `from` to `to` offsets along `(height, width)`.
///
/// # Shapes
/// `[from.0·from.1, A]` → `[to.0·to.1, A]`.
///
/// # Panics
/// If the table does not have that size, or a number of offsets is even.
pub fn resize_bias_table(table: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    assert!(
        [from.0, from.1, to.0, to.1].iter().all(|n| n % 2 == 1),
        "the number of offsets is odd: {from:?} to {to:?}"
    );
    separable(table, from, to, [offset_weights(from.0, to.0), offset_weights(from.1, to.1)])
}

/// Resizes absolute position embeddings from the grid `from` to the grid `to`.
///
/// # Shapes
/// `[from.0·from.1, D]` → `[to.0·to.1, D]`.
pub(super) fn resize_positions(table: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    separable(table, from, to, [bicubic_weights(from.0, to.0), bicubic_weights(from.1, to.1)])
}

/// Applies the interpolation weights `[to, from]` of each axis.
fn separable(table: &[f32], from: (usize, usize), to: (usize, usize), weights: [Vec<f64>; 2]) -> Vec<f32> {
    assert_eq!(table.len() % (from.0 * from.1), 0, "{} values do not fill {from:?} rows", table.len());
    let channels = table.len() / (from.0 * from.1);
    let [vertical, horizontal] = weights;
    let mut rows = vec![0.0f64; to.0 * from.1 * channels]; // [to.0, from.1, C]
    for y in 0..to.0 {
        for i in 0..from.0 {
            let weight = vertical[y * from.0 + i];
            let line = from.1 * channels;
            for (out, value) in rows[y * line..][..line].iter_mut().zip(&table[i * line..][..line]) {
                *out += weight * *value as f64;
            }
        }
    }
    let mut out = vec![0.0f64; to.0 * to.1 * channels];
    for position in 0..to.0 * to.1 {
        let (y, x) = (position / to.1, position % to.1);
        for j in 0..from.1 {
            let weight = horizontal[x * from.1 + j];
            for c in 0..channels {
                out[position * channels + c] += weight * rows[(y * from.1 + j) * channels + c];
            }
        }
    }
    out.into_iter().map(|v| v as f32).collect()
}

fn identity(len: usize) -> Vec<f64> {
    (0..len * len).map(|i| if i / len == i % len { 1.0 } else { 0.0 }).collect()
}

/// Interpolation weights `[to, from]` of the old offsets for each new one.
fn offset_weights(from: usize, to: usize) -> Vec<f64> {
    if from == to {
        return identity(from); // an axis of the same size is not changed
    }
    let positions = spread_offsets(from, to);
    let (first, last) = (positions[0], positions[from - 1]);
    let basis: Vec<Spline> = (0..from)
        .map(|i| Spline::through(&positions, &(0..from).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<_>>()))
        .collect();
    let new = (0..to).map(|i| (i as f64 - (to / 2) as f64).clamp(first, last));
    new.flat_map(|x| basis.iter().map(move |spline| spline.at(x)).collect::<Vec<_>>()).collect()
}

/// Positions of `from` old offsets on the axis of `to` new ones: 0, ±1, ±(1 + q), ±(1 + q + q²), …, with the ratio `q`
/// for which the outermost old offset equals the outermost new one.
fn spread_offsets(from: usize, to: usize) -> Vec<f64> {
    let (count, reach) = (from / 2, (to / 2) as f64);
    let (mut low, mut high, mut ratio) = (RATIO_LOW, RATIO_HIGH, RATIO_LOW);
    while high - low > RATIO_TOLERANCE {
        ratio = (low + high) / 2.0;
        let outermost = (1.0 - ratio.powi(count as i32)) / (1.0 - ratio);
        if outermost > reach {
            high = ratio;
        } else {
            low = ratio;
        }
    }
    let mut right = Vec::with_capacity(count);
    let mut position = 1.0;
    for i in 0..count {
        right.push(position);
        position += ratio.powi(i as i32 + 1);
    }
    right.iter().rev().map(|position| -position).chain([0.0]).chain(right.iter().copied()).collect()
}

/// A cubic spline with the not-a-knot condition, as in SciPy's `interp2d` along one axis. Fewer than four points give a
/// polynomial of lower degree.
struct Spline {
    x: Vec<f64>,
    y: Vec<f64>,
    /// Second derivatives at the points.
    second_derivatives: Vec<f64>,
}

impl Spline {
    fn through(x: &[f64], y: &[f64]) -> Self {
        let n = x.len();
        let gap = |i: usize| x[i + 1] - x[i];
        let mut rows = vec![vec![0.0; n + 1]; n];
        for i in 1..n.saturating_sub(1) {
            rows[i][i - 1] = gap(i - 1);
            rows[i][i] = 2.0 * (gap(i - 1) + gap(i));
            rows[i][i + 1] = gap(i);
            rows[i][n] = 6.0 * ((y[i + 1] - y[i]) / gap(i) - (y[i] - y[i - 1]) / gap(i - 1));
        }
        match n {
            0..3 => (0..n).for_each(|i| rows[i][i] = 1.0), // linear or constant
            3 => {
                (rows[0][0], rows[0][1]) = (1.0, -1.0); // quadratic
                (rows[2][1], rows[2][2]) = (1.0, -1.0);
            }
            _ => {
                let ends = [(0, 0), (n - 1, n - 3)];
                for (row, at) in ends {
                    let (left, right) = (gap(at), gap(at + 1));
                    (rows[row][at], rows[row][at + 1], rows[row][at + 2]) = (right, -left - right, left);
                }
            }
        }
        Self { x: x.to_vec(), y: y.to_vec(), second_derivatives: solve(rows) }
    }

    fn at(&self, x: f64) -> f64 {
        let n = self.x.len();
        if n == 1 {
            return self.y[0];
        }
        let i = self.x.partition_point(|position| *position <= x).clamp(1, n - 1) - 1;
        let gap = self.x[i + 1] - self.x[i];
        let (b, a) = ((x - self.x[i]) / gap, (self.x[i + 1] - x) / gap);
        let curve = (a.powi(3) - a) * self.second_derivatives[i] + (b.powi(3) - b) * self.second_derivatives[i + 1];
        a * self.y[i] + b * self.y[i + 1] + curve * gap * gap / 6.0
    }
}

/// Solves a small linear system by Gaussian elimination with partial pivoting. The last value of each row is the
/// right-hand side.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for column in 0..n {
        let largest = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n).max_by(|a, b| largest(a).total_cmp(&largest(b))).expect("a column has a pivot");
        rows.swap(column, pivot);
        for row in column + 1..n {
            let factor = rows[row][column] / rows[column][column];
            for k in column..=n {
                rows[row][k] -= factor * rows[column][k];
            }
        }
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| rows[row][k] * solution[k]).sum();
        solution[row] = (rows[row][n] - known) / rows[row][row];
    }
    solution
}

/// Weights `[to, from]` of PyTorch's bicubic interpolation with `align_corners=False`.
fn bicubic_weights(from: usize, to: usize) -> Vec<f64> {
    let mut weights = vec![0.0; to * from];
    for i in 0..to {
        let x = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        for tap in -1..=2 {
            let position = x.floor() as i64 + tap;
            let inside = position.clamp(0, from as i64 - 1) as usize;
            weights[i * from + inside] += cubic((x - position as f64).abs());
        }
    }
    weights
}

/// Keys' bicubic kernel at a distance `t ≥ 0`.
fn cubic(t: f64) -> f64 {
    let a = BICUBIC_A;
    if t <= 1.0 {
        ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        a * (((t - 5.0) * t + 8.0) * t - 4.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spline_gives_back_a_cubic() {
        let (x, f) = ([-3.0, -1.0, 0.0, 1.5, 4.0], |x: f64| 2.0 - x + 0.5 * x * x - 0.25 * x.powi(3));
        let spline = Spline::through(&x, &x.map(f));
        for at in [-3.0, -2.2, -0.5, 0.7, 2.0, 4.0] {
            assert!((spline.at(at) - f(at)).abs() < 1e-9, "{at}");
        }
        let few = Spline::through(&[-1.0, 0.0, 1.0], &[1.0, 0.0, 1.0]);
        assert!((few.at(0.5) - 0.25).abs() < 1e-12);
        assert_eq!(Spline::through(&[0.0], &[3.0]).at(0.0), 3.0);
    }

    #[test]
    fn offsets_spread_until_the_outermost_meet() {
        // windows of 6 and 7: the fifth old offset of each side is at the sixth new one
        let positions = spread_offsets(11, 13);
        assert!((positions[10] - 6.0).abs() < 1e-4 && positions[5] == 0.0 && positions[6] == 1.0, "{positions:?}");
    }

    #[test]
    fn an_axis_of_the_same_size_does_not_change() {
        let table: Vec<f32> = (0..3 * 5).map(|v| v as f32).collect();
        assert_eq!(resize_bias_table(&table, (3, 5), (3, 5)), table);
        let wider = resize_bias_table(&table, (3, 5), (3, 9));
        // the middle offset of each row keeps its value
        assert!((0..3).all(|y| (wider[y * 9 + 4] - table[y * 5 + 2]).abs() < 1e-5), "{wider:?}");
    }

    #[test]
    fn positions_are_interpolated_as_pytorch_does() {
        // torch.nn.functional.interpolate([[0, 1, 2]], size=(1, 4), mode="bicubic"), PyTorch 2.15
        let resized = resize_positions(&[0.0, 1.0, 2.0], (1, 3), (1, 4));
        for (found, expected) in resized.iter().zip([-0.071_777_34f32, 0.529_785_16, 1.470_214_8, 2.071_777_3]) {
            assert!((found - expected).abs() < 1e-6, "{resized:?}");
        }
    }
}
