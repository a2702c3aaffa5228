//! The range of pixel values in the networks: values from 0 to 1 are mapped to 0.1 to 0.9, so that their logits are
//! finite (arXiv:2102.12092, appendix A.3; openai/DALL-E, `dall_e/utils.py`, `map_pixels`).

use simmim_engine::Images;

/// Distance of the mapped range from 0 and from 1.
const MARGIN: f32 = 0.1;

/// Maps values from 0 to 1 to values from 0.1 to 0.9.
pub(super) fn map(share: f32) -> f32 {
    (1.0 - 2.0 * MARGIN) * share + MARGIN
}

/// The inverse of [`map`], clamped to 0 and 1.
pub(super) fn unmap(mapped: f32) -> f32 {
    ((mapped - MARGIN) / (1.0 - 2.0 * MARGIN)).clamp(0.0, 1.0)
}

/// `ln (p / (1 − p))`.
pub(super) fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

/// The inverse of [`logit`].
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Converts images to channels last and applies `value` to each value.
///
/// # Shapes
/// `[B, C, H, W]` → `[B, H, W, C]`.
pub(super) fn channels_last(images: &Images, value: impl Fn(f32) -> f32) -> Vec<f32> {
    let (channels, plane) = (images.channels, images.height * images.width);
    let mut out = vec![0.0; images.pixels.len()];
    for (image, out) in images.pixels.chunks_exact(images.image_len()).zip(out.chunks_exact_mut(images.image_len())) {
        for (channel, values) in image.chunks_exact(plane).enumerate() {
            for (at, pixel) in values.iter().enumerate() {
                out[at * channels + channel] = value(*pixel);
            }
        }
    }
    out
}

/// Converts the first `channels` of the `stored` values per pixel to channels first, and applies `value` to each.
///
/// # Shapes
/// `[B, pixels, stored]` → `[B, C, pixels]`.
pub(super) fn channels_first(
    values: &[f32],
    pixels: usize,
    stored: usize,
    channels: usize,
    value: impl Fn(f32) -> f32,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len() / stored * channels);
    for image in values.chunks_exact(pixels * stored) {
        for channel in 0..channels {
            out.extend(image.iter().skip(channel).step_by(stored).map(|v| value(*v)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_and_logits_are_undone() {
        for share in [0.0, 0.25, 1.0] {
            assert!((unmap(sigmoid(logit(map(share)))) - share).abs() < 1e-5, "{share}");
        }
        assert_eq!((map(0.0), unmap(0.05), unmap(0.95)), (0.1, 0.0, 1.0));
    }

    #[test]
    fn channels_go_last_and_come_first_again() {
        // two images of two channels of 1×3
        let pixels: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let images = Images { pixels: &pixels, count: 2, channels: 2, height: 1, width: 3 };
        let last = channels_last(&images, |v| v);
        assert_eq!(last, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
        assert_eq!(channels_first(&last, 3, 2, 2, |v| v), pixels);
        assert_eq!(channels_first(&last, 3, 2, 1, |v| v), [0.0, 1.0, 2.0, 6.0, 7.0, 8.0]);
    }
}
