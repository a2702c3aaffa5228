//! The baseline that a model has to beat: predicting each hidden pixel as the mean of the visible ones.

use simmim_engine::Images;

/// Sum of absolute errors and number of values if each hidden pixel is predicted as the mean of the visible pixels of
/// its image, per channel.
///
/// # Shapes
/// images `[B, C, H, W]`, `hidden_pixels` `[B, H, W]`, `true` = hidden.
pub fn mean_color_error(images: &Images, hidden_pixels: &[bool]) -> (f64, usize) {
    let plane = images.height * images.width;
    let (mut sum, mut count) = (0.0, 0);
    for (i, hidden) in hidden_pixels.chunks_exact(plane).enumerate() {
        for values in images.image(i).chunks_exact(plane) {
            let where_hidden = |is_hidden: bool| {
                values.iter().zip(hidden).filter(move |(_, h)| **h == is_hidden).map(|(v, _)| *v as f64)
            };
            let mean = where_hidden(false).sum::<f64>() / where_hidden(false).count().max(1) as f64;
            sum += where_hidden(true).map(|v| (v - mean).abs()).sum::<f64>();
            count += where_hidden(true).count();
        }
    }
    (sum, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_pixels_are_compared_with_the_mean_of_the_visible_ones() {
        let images = Images { pixels: &[1.0, 3.0, 5.0, 0.0], count: 1, channels: 1, height: 2, width: 2 };
        // visible 1 and 3, mean 2; hidden 5 and 0
        assert_eq!(mean_color_error(&images, &[false, false, true, true]), (5.0, 2));
    }
}
