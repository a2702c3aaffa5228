//! The specification of the operations on images and of a discrete VAE's loss, in plain f64 loops.

/// Sizes `[B, H, W, C]`.
///
/// # Panics
/// If a shape is another one.
pub(super) fn image_shape(shape: &[usize]) -> (usize, usize, usize, usize) {
    match *shape {
        [images, height, width, channels] => (images, height, width, channels),
        ref other => panic!("expected [B, H, W, C], got {other:?}"),
    }
}

/// `[B, H, W, C]`, weight `[O, C, k, k]` → `[B, H, W, O]`, zeros around the image.
pub(super) fn convolution(
    x: &[f64],
    (images, height, width, channels): (usize, usize, usize, usize),
    weight: &[f64],
    side: usize,
    bias: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let outputs = weight.len() / (channels * side * side);
    let mut out = Vec::new();
    for at in 0..images * height * width * outputs {
        let (pixel, o) = (at / outputs, at % outputs);
        let (image, row, column) = (pixel / (height * width), pixel / width % height, pixel % width);
        let mut sum = bias(o);
        for i in 0..side {
            for j in 0..side {
                let (y, x_at) = ((row + i).wrapping_sub(side / 2), (column + j).wrapping_sub(side / 2));
                if y < height && x_at < width {
                    for c in 0..channels {
                        let value = x[((image * height + y) * width + x_at) * channels + c];
                        sum += value * weight[((o * channels + c) * side + i) * side + j];
                    }
                }
            }
        }
        out.push(sum);
    }
    out
}

/// `[B, H, W, C]` → `[B, H/2, W/2, C]`.
pub(super) fn max_pool(x: &[f64], (images, height, width, channels): (usize, usize, usize, usize)) -> Vec<f64> {
    let mut out = Vec::new();
    for at in 0..images * (height / 2) * (width / 2) * channels {
        let (pixel, c) = (at / channels, at % channels);
        // rows are numbered across images, which halve to whole rows
        let (row, column) = (pixel / (width / 2), pixel % (width / 2));
        let value = |i: usize, j: usize| x[((2 * row + i) * width + 2 * column + j) * channels + c];
        out.push(value(0, 0).max(value(0, 1)).max(value(1, 0)).max(value(1, 1)));
    }
    out
}

/// `[B, H, W, C]` → `[B, 2H, 2W, C]`.
pub(super) fn upsample(x: &[f64], (images, height, width, channels): (usize, usize, usize, usize)) -> Vec<f64> {
    let value = |at: usize| {
        let (pixel, c) = (at / channels, at % channels);
        let (row, column) = (pixel / (2 * width), pixel % (2 * width));
        x[(row / 2 * width + column / 2) * channels + c]
    };
    (0..4 * images * height * width * channels).map(value).collect()
}

/// Softmax of each row of `classes` values.
pub(super) fn softmax(rows: &[f64], classes: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|v| (v - largest).exp()).sum();
        row.iter().map(|v| (v - largest).exp() / total).collect::<Vec<_>>()
    };
    rows.chunks(classes).flat_map(row).collect()
}

/// `Σ |t − μ|/b + ln b`; `prediction` `[rows, 2C]`, `target` `[rows, C]`.
pub(super) fn laplace(prediction: &[f64], target: &[f32], channels: usize) -> f64 {
    let rows = prediction.chunks(2 * channels).zip(target.chunks(channels));
    let term = |p: &[f64], t: &[f32], i: usize| (t[i] as f64 - p[i]).abs() / p[channels + i].exp() + p[channels + i];
    rows.map(|(p, t)| (0..channels).map(|i| term(p, t, i)).sum::<f64>()).sum()
}

/// `Σ q·ln q + ln K` over rows, `q` the softmax of a row.
pub(super) fn uniform_divergence(logits: &[f64], classes: usize) -> f64 {
    let row = |q: &[f64]| q.iter().map(|q| q * q.ln()).sum::<f64>() + (classes as f64).ln();
    softmax(logits, classes).chunks(classes).map(row).sum()
}
