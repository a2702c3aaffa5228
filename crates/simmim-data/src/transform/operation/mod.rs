//! The operations of RandAugment and of colour jitter on one image, as Pillow does them.

mod affine;
mod blend;
mod lookup;

use super::fine_tuning::Filter;
use crate::image::Image;

/// One change of an image, with its strength.
///
/// On 8-bit images the results are those of Pillow (`PIL/ImageOps.py`, `PIL/ImageEnhance.py`,
/// `libImaging`), which knows one channel and three. Beyond that:
///
/// - Every channel counts the same, so one that holds alpha is changed like any other.
/// - [`Colour`](Self::Colour) changes images of three channels only: others have no saturation.
/// - [`Contrast`](Self::Contrast) blends three channels with the mean grey, and any other number
///   of them with the mean of each, which for one channel is what Pillow does.
/// - Floats have no darkest and no brightest value, and no bits: [`AutoContrast`](Self::AutoContrast),
///   [`Equalise`](Self::Equalise), [`Invert`](Self::Invert), [`Posterise`](Self::Posterise),
///   [`Solarise`](Self::Solarise) and [`SolariseAdd`](Self::SolariseAdd) leave them as they are,
///   and the others neither round nor cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Stretches every channel to the full range.
    AutoContrast,
    /// Makes the grey levels of every channel about equally frequent.
    Equalise,
    /// Turns dark to bright.
    Invert,
    /// Turns the image anticlockwise around its middle.
    Rotate {
        /// The angle.
        degrees: f64,
    },
    /// Keeps only the highest bits of every value.
    Posterise {
        /// How many, from 0 to 8.
        bits: u32,
    },
    /// Inverts bright values.
    Solarise {
        /// The least value that is inverted.
        from: u32,
    },
    /// Brightens dark values, those below 128.
    SolariseAdd {
        /// By how much.
        add: u8,
    },
    /// Moves the colours away from grey, or towards it.
    Colour {
        /// 0 is grey, 1 the image.
        factor: f64,
    },
    /// Moves the values away from their mean, or towards it.
    Contrast {
        /// 0 is the mean, 1 the image.
        factor: f64,
    },
    /// Makes the image brighter or darker.
    Brightness {
        /// 0 is black, 1 the image.
        factor: f64,
    },
    /// Moves the image away from a smooth one, or towards it.
    Sharpness {
        /// 0 is smooth, 1 the image.
        factor: f64,
    },
    /// Moves every row sideways by its height.
    ShearX {
        /// Columns per row.
        factor: f64,
    },
    /// Moves every column by its place.
    ShearY {
        /// Rows per column.
        factor: f64,
    },
    /// Moves the image to the left.
    TranslateX {
        /// By which share of its width.
        share: f64,
    },
    /// Moves the image up.
    TranslateY {
        /// By which share of its height.
        share: f64,
    },
}

impl Operation {
    /// Changes `image`; an operation that moves pixels reads between them by `filter`, and takes
    /// the colour `outside`, `[C]`, of pixels in `[0, 1]` for what lies outside of the image.
    ///
    /// # Panics
    ///
    /// Panics if `outside` has not the image's number of channels, or the pixels are not of the size
    /// that the image says.
    pub fn apply(self, image: &mut Image, filter: Filter, outside: &[f32]) {
        let (height, width) = (image.height as f64, image.width as f64);
        let source = match self {
            Self::Rotate { degrees } => affine::rotation(degrees, height, width),
            Self::ShearX { factor } => [1.0, factor, 0.0, 0.0, 1.0, 0.0],
            Self::ShearY { factor } => [1.0, 0.0, 0.0, factor, 1.0, 0.0],
            Self::TranslateX { share } => [1.0, 0.0, share * width, 0.0, 1.0, 0.0],
            Self::TranslateY { share } => [1.0, 0.0, 0.0, 0.0, 1.0, share * height],
            Self::AutoContrast
            | Self::Equalise
            | Self::Invert
            | Self::Posterise { .. }
            | Self::Solarise { .. }
            | Self::SolariseAdd { .. }
            | Self::Colour { .. }
            | Self::Contrast { .. }
            | Self::Brightness { .. }
            | Self::Sharpness { .. } => return self.apply_colours(image),
        };
        affine::transform(image, source, filter, outside);
    }

    /// Changes the colours of `image`; what moves pixels does nothing here.
    pub(super) fn apply_colours(self, image: &mut Image) {
        match self {
            Self::AutoContrast => lookup::auto_contrast(image),
            Self::Equalise => lookup::equalise(image),
            Self::Invert => lookup::invert(image),
            Self::Posterise { bits } => lookup::posterise(image, bits),
            Self::Solarise { from } => lookup::solarise(image, from),
            Self::SolariseAdd { add } => lookup::solarise_add(image, add),
            Self::Colour { factor } => blend::colour(image, factor as f32),
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
    fn any_shape_and_number_of_channels_is_changed_within_it() {
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
    fn every_channel_is_changed_as_if_it_were_alone() {
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
                let found = changed.iter().skip(channel).step_by(5).copied().collect();
                assert_eq!(alone.pixels, Pixels::U8(found), "{name}, channel {channel}");
            }
        }
    }

    #[test]
    fn floats_are_blended_and_moved_like_bytes_and_looked_up_not_at_all() {
        let original = bytes(3, 12, 10);
        for (name, operation) in OPERATIONS {
            let operation = operation(3.0, 1.0);
            let (mut of_bytes, mut of_floats) = (original.clone(), floats(&original));
            operation.apply(&mut of_bytes, Filter::Bilinear, &[0.4, 0.2, 0.6]);
            operation.apply(&mut of_floats, Filter::Bilinear, &[0.4, 0.2, 0.6]);
            let (Pixels::U8(of_bytes), Pixels::F32(found)) = (of_bytes.pixels, &of_floats.pixels) else {
                panic!("pixels changed their type")
            };
            if matches!(name, "AutoContrast" | "Equalize" | "Invert") || name.starts_with(['P']) || name.contains("Sol")
            {
                assert_eq!(of_floats, floats(&original), "{name}");
                continue;
            }
            for (byte, float) in of_bytes.into_iter().zip(found) {
                // a poorer image rounded to a byte, times up to 0.3, and the result rounded down
                let float = (float * 255.0).clamp(0.0, 255.0);
                assert!((f32::from(byte) - float).abs() <= 1.3, "{name}: {byte} is not {float}");
            }
        }
    }
}
