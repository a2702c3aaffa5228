//! The operations of RandAugment and of color jitter, as in Pillow.

mod affine;
mod blend;
mod lookup;

use super::resize::Filter;
use crate::image::Image;

/// One change of an image, with its strength.
///
/// For 8-bit images with one or three channels the results are those of Pillow (`PIL/ImageOps.py`,
/// `PIL/ImageEnhance.py`, `libImaging`). Other images are not supported by Pillow; for them:
///
/// - All channels are treated alike, also one that is alpha.
/// - [`Color`](Self::Color) changes only images with three channels, because others have no saturation.
/// - [`Contrast`](Self::Contrast) blends three channels with the mean gray. With any other number of channels it blends
///   each channel with its own mean, which is the same for one channel.
/// - Floats have neither a fixed range nor bits, so [`AutoContrast`](Self::AutoContrast), [`Equalize`](Self::Equalize),
///   [`Invert`](Self::Invert), [`Posterize`](Self::Posterize), [`Solarize`](Self::Solarize) and
///   [`SolarizeAdd`](Self::SolarizeAdd) do not change them. The other operations neither round nor clip them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Stretches the values of every channel to the full range.
    AutoContrast,
    /// Makes the values of every channel about equally frequent.
    Equalize,
    /// Makes dark values bright and bright values dark.
    Invert,
    /// Rotates the image counterclockwise around its center.
    Rotate {
        /// The angle.
        degrees: f64,
    },
    /// Keeps only the highest bits of every value.
    Posterize {
        /// The number of bits, from 0 to 8.
        bits: u32,
    },
    /// Inverts bright values.
    Solarize {
        /// The smallest value that is inverted.
        from: u32,
    },
    /// Makes values below 128 brighter.
    SolarizeAdd {
        /// The number that is added.
        add: u8,
    },
    /// Changes the saturation.
    Color {
        /// 0 gives gray, 1 does not change the image.
        factor: f64,
    },
    /// Changes the contrast.
    Contrast {
        /// 0 gives the mean, 1 does not change the image.
        factor: f64,
    },
    /// Changes the brightness.
    Brightness {
        /// 0 gives black, 1 does not change the image.
        factor: f64,
    },
    /// Changes the sharpness.
    Sharpness {
        /// 0 gives a smoothed image, 1 does not change the image.
        factor: f64,
    },
    /// Moves every row to the left, in proportion to its distance from the top.
    ShearX {
        /// By how many columns per row; negative moves to the right.
        factor: f64,
    },
    /// Moves every column up, in proportion to its distance from the left.
    ShearY {
        /// By how many rows per column; negative moves down.
        factor: f64,
    },
    /// Moves the image to the left.
    TranslateX {
        /// The distance as a share of the width; negative moves to the right.
        share: f64,
    },
    /// Moves the image up.
    TranslateY {
        /// The distance as a share of the height; negative moves down.
        share: f64,
    },
}

impl Operation {
    /// Applies the operation to `image`.
    ///
    /// Operations that move pixels compute values between pixels with `filter`, and fill pixels that come from outside
    /// of the image with the color `outside`, `[C]`, for pixels in `[0, 1]`.
    ///
    /// # Panics
    ///
    /// Panics if the length of `outside` is not the number of channels, or the number of values is not H·W·C.
    pub fn apply(self, image: &mut Image, filter: Filter, outside: &[f32]) {
        let (height, width) = (image.height as f64, image.width as f64);
        let source = match self {
            Self::Rotate { degrees } => affine::rotation(degrees, height, width),
            Self::ShearX { factor } => [1.0, factor, 0.0, 0.0, 1.0, 0.0],
            Self::ShearY { factor } => [1.0, 0.0, 0.0, factor, 1.0, 0.0],
            Self::TranslateX { share } => [1.0, 0.0, share * width, 0.0, 1.0, 0.0],
            Self::TranslateY { share } => [1.0, 0.0, 0.0, 0.0, 1.0, share * height],
            Self::AutoContrast
            | Self::Equalize
            | Self::Invert
            | Self::Posterize { .. }
            | Self::Solarize { .. }
            | Self::SolarizeAdd { .. }
            | Self::Color { .. }
            | Self::Contrast { .. }
            | Self::Brightness { .. }
            | Self::Sharpness { .. } => return self.apply_colors(image),
        };
        affine::transform(image, source, filter, outside);
    }

    /// Applies the operation to `image` if it changes colors; one that moves pixels does nothing here.
    pub(super) fn apply_colors(self, image: &mut Image) {
        match self {
            Self::AutoContrast => lookup::auto_contrast(image),
            Self::Equalize => lookup::equalize(image),
            Self::Invert => lookup::invert(image),
            Self::Posterize { bits } => lookup::posterize(image, bits),
            Self::Solarize { from } => lookup::solarize(image, from),
            Self::SolarizeAdd { add } => lookup::solarize_add(image, add),
            Self::Color { factor } => blend::color(image, factor as f32),
            Self::Contrast { factor } => blend::contrast(image, factor as f32),
            Self::Brightness { factor } => blend::brightness(image, factor as f32),
            Self::Sharpness { factor } => blend::sharpness(image, factor as f32),
            Self::Rotate { .. }
            | Self::ShearX { .. }
            | Self::ShearY { .. }
            | Self::TranslateX { .. }
            | Self::TranslateY { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::randaugment::OPERATIONS;
    use super::*;
    use crate::image::Pixels;

    fn bytes(channels: usize, height: usize, width: usize) -> Image {
        let pixels = (0..height * width * channels).map(|at| (at * 37 % 251) as u8).collect();
        Image { channels, height, width, pixels: Pixels::U8(pixels) }
    }

    fn floats(image: &Image) -> Image {
        let Pixels::U8(pixels) = &image.pixels else { panic!("bytes are given") };
        Image { pixels: Pixels::F32(pixels.iter().map(|value| f32::from(*value) / 255.0).collect()), ..image.clone() }
    }

    #[test]
    fn operations_keep_the_size_of_images_of_any_shape_and_number_of_channels() {
        for (height, width) in [(1, 1), (1, 7), (7, 1), (2, 2), (9, 5)] {
            for channels in 1..=6 {
                for (name, operation) in OPERATIONS {
                    for filter in [Filter::Bilinear, Filter::Bicubic] {
                        for original in [bytes(channels, height, width), floats(&bytes(channels, height, width))] {
                            let mut image = original.clone();
                            operation(9.4, -1.0).apply(&mut image, filter, &vec![0.5; channels]);
                            let values = |image: &Image| match &image.pixels {
                                Pixels::U8(pixels) => pixels.len(),
                                Pixels::F32(pixels) => pixels.iter().filter(|value| value.is_finite()).count(),
                            };
                            assert_eq!(values(&image), values(&original), "{name} of {height} by {width}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn five_channels_are_changed_independently() {
        let together = bytes(5, 8, 9);
        let Pixels::U8(pixels) = &together.pixels else { panic!("bytes are given") };
        for (name, operation) in OPERATIONS {
            let operation = operation(8.6, 1.0);
            let mut changed = together.clone();
            operation.apply(&mut changed, Filter::Bicubic, &[0.5; 5]);
            let Pixels::U8(changed) = changed.pixels else { panic!("bytes became floats") };
            for channel in 0..5 {
                let plane: Vec<u8> = pixels.iter().skip(channel).step_by(5).copied().collect();
                let mut alone = Image { channels: 1, height: 8, width: 9, pixels: Pixels::U8(plane) };
                operation.apply(&mut alone, Filter::Bicubic, &[0.5]);
                let together = changed.iter().skip(channel).step_by(5).copied().collect();
                assert_eq!(alone.pixels, Pixels::U8(together), "{name}, channel {channel}");
            }
        }
    }

    #[test]
    fn floats_are_blended_and_moved_like_bytes_and_not_changed_by_tables() {
        let original = bytes(3, 12, 10);
        for (name, operation) in OPERATIONS {
            let operation = operation(3.0, 1.0);
            let (mut of_bytes, mut of_floats) = (original.clone(), floats(&original));
            operation.apply(&mut of_bytes, Filter::Bilinear, &[0.4, 0.2, 0.6]);
            operation.apply(&mut of_floats, Filter::Bilinear, &[0.4, 0.2, 0.6]);
            let (Pixels::U8(bytes), Pixels::F32(actual)) = (of_bytes.pixels, &of_floats.pixels) else {
                panic!("pixels changed their type")
            };
            if matches!(name, "AutoContrast" | "Equalize" | "Invert") || name.starts_with(['P']) || name.contains("Sol")
            {
                assert_eq!(of_floats, floats(&original), "{name}");
                continue;
            }
            for (byte, float) in bytes.into_iter().zip(actual) {
                // bytes: rounding the degenerate image changes the result by up to 0.3, rounding it down by up to 1
                let float = (float * 255.0).clamp(0.0, 255.0);
                assert!((f32::from(byte) - float).abs() <= 1.3, "{name}: {byte} is not {float}");
            }
        }
    }
}
