//! RandAugment (arXiv:1909.13719) in the variant that timm 0.4.12 calls `inc1` (`timm/data/auto_augment.py`): fifteen
//! operations, whose strength, where they have one, increases with the magnitude.

use super::operation::Operation;
use super::resize::Interpolation;
use crate::image::Image;
use crate::rng::{Rng, below, normal, uniform};

/// A few operations, each of which is drawn from [`OPERATIONS`] and applied with some probability.
///
/// Pixels that come from outside of an image get the mean color of the normalization, which for ImageNet is (124, 116,
/// 104). [`Operation`] describes what the operations do to floats and to images that are not RGB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// How many operations are drawn, with replacement.
    pub operations: usize,
    /// The probability that an operation that was drawn is applied.
    pub probability: f64,
    /// The mean of the magnitude, from 0 to 10.
    pub magnitude: f64,
    /// The standard deviation of the magnitude, which is drawn for every operation and clipped to 0 to 10.
    pub magnitude_std: f64,
}

impl Default for RandAugment {
    /// The setting of SimMIM's fine-tuning, `rand-m9-mstd0.5-inc1` (public repository, `config.py`).
    fn default() -> Self {
        Self { operations: 2, probability: 0.5, magnitude: 9.0, magnitude_std: 0.5 }
    }
}

/// The largest magnitude, as in timm.
const MAX: f64 = 10.0;

/// Makes an operation from a magnitude, 0 to 10, and a sign, 1 or -1, which operations without a direction ignore.
pub type AtMagnitude = fn(f64, f64) -> Operation;

/// The operations with their names in timm, in the order of timm.
pub const OPERATIONS: [(&str, AtMagnitude); 15] = [
    ("AutoContrast", |_, _| Operation::AutoContrast),
    ("Equalize", |_, _| Operation::Equalize),
    ("Invert", |_, _| Operation::Invert),
    ("Rotate", |magnitude, sign| Operation::Rotate { degrees: sign * (magnitude / MAX * 30.0) }),
    ("PosterizeIncreasing", |magnitude, _| Operation::Posterize { bits: 4 - (magnitude / MAX * 4.0) as u32 }),
    ("SolarizeIncreasing", |magnitude, _| Operation::Solarize { from: 256 - (magnitude / MAX * 256.0) as u32 }),
    ("SolarizeAdd", |magnitude, _| Operation::SolarizeAdd { add: (magnitude / MAX * 110.0) as u8 }),
    ("ColorIncreasing", |magnitude, sign| Operation::Color { factor: factor(magnitude, sign) }),
    ("ContrastIncreasing", |magnitude, sign| Operation::Contrast { factor: factor(magnitude, sign) }),
    ("BrightnessIncreasing", |magnitude, sign| Operation::Brightness { factor: factor(magnitude, sign) }),
    ("SharpnessIncreasing", |magnitude, sign| Operation::Sharpness { factor: factor(magnitude, sign) }),
    ("ShearX", |magnitude, sign| Operation::ShearX { factor: sign * (magnitude / MAX * 0.3) }),
    ("ShearY", |magnitude, sign| Operation::ShearY { factor: sign * (magnitude / MAX * 0.3) }),
    ("TranslateXRel", |magnitude, sign| Operation::TranslateX { share: sign * (magnitude / MAX * 0.45) }),
    ("TranslateYRel", |magnitude, sign| Operation::TranslateY { share: sign * (magnitude / MAX * 0.45) }),
];

/// The factor of a property such as brightness: 1 at magnitude 0; 0.1 or 1.9, depending on the sign, at magnitude 10.
fn factor(magnitude: f64, sign: f64) -> f64 {
    1.0 + sign * (magnitude / MAX * 0.9)
}

impl RandAugment {
    /// Draws the operations to apply, at most [`operations`](Self::operations).
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Vec<Operation> {
        let draw = |_| {
            let (_, operation) = OPERATIONS[below(rng, OPERATIONS.len())];
            let is_applied = uniform(rng) < self.probability;
            let magnitude = (self.magnitude + self.magnitude_std * normal(rng)).clamp(0.0, MAX);
            let sign = if uniform(rng) < 0.5 { -1.0 } else { 1.0 };
            is_applied.then(|| operation(magnitude, sign))
        };
        (0..self.operations).filter_map(draw).collect()
    }

    pub(super) fn apply(&self, image: &mut Image, interpolation: Interpolation, mean: &[f32], rng: &mut Rng) {
        for operation in self.draw(rng) {
            let filter = interpolation.filter(rng);
            operation.apply(image, filter, mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, rng};

    fn draws(augment: RandAugment, images: u64) -> Vec<Vec<Operation>> {
        (0..images).map(|index| augment.draw(&mut rng(4, Purpose::Augment, 0, index))).collect()
    }

    #[test]
    fn half_of_the_operations_are_applied_and_all_are_equally_likely() {
        let drawn = draws(RandAugment::default(), 6000);
        let mut of_length = [0_usize; 3];
        let mut of_kind = std::collections::HashMap::new();
        for operations in drawn {
            of_length[operations.len()] += 1;
            for operation in operations {
                *of_kind.entry(std::mem::discriminant(&operation)).or_insert(0_usize) += 1;
            }
        }
        // five standard deviations of binomial distributions of 6,000 draws at 1/4 and of 12,000 draws at 1/30
        assert!(of_length[0].abs_diff(1500) < 168 && of_length[2].abs_diff(1500) < 168, "{of_length:?}");
        assert_eq!(of_kind.len(), OPERATIONS.len());
        assert!(of_kind.values().all(|count| count.abs_diff(400) < 99), "{of_kind:?}");
    }

    #[test]
    fn magnitudes_vary_around_their_mean_and_are_at_most_ten() {
        let augment = RandAugment { probability: 1.0, ..RandAugment::default() };
        let degrees = |operation: &Operation| {
            if let Operation::Rotate { degrees } = operation { Some(degrees / 3.0) } else { None }
        };
        let magnitudes: Vec<f64> = draws(augment, 30_000).iter().flatten().filter_map(degrees).collect();
        let count = magnitudes.len() as f64;
        assert!(magnitudes.iter().all(|magnitude| magnitude.abs() <= 10.0));
        // 2.3 % of the draws are two standard deviations of 1/2 above 9 and are clipped to 10; with about 4,000 draws
        // the standard error of the mean is 1/126
        let mean = magnitudes.iter().map(|magnitude| magnitude.abs()).sum::<f64>() / count;
        assert!((mean - 9.0).abs() < 0.045, "{mean}");
        let at_most = magnitudes.iter().filter(|magnitude| magnitude.abs() == 10.0).count() as f64 / count;
        assert!((0.01..0.036).contains(&at_most), "{at_most}");
        let negative = magnitudes.iter().filter(|magnitude| **magnitude < 0.0).count() as f64 / count;
        assert!((negative - 0.5).abs() < 0.04, "{negative}");
    }
}
