//! RandAugment (arXiv:1909.13719) in the variant of timm 0.4.12 that its `inc1` names
//! (`timm/data/auto_augment.py`): fifteen operations that grow stronger with their magnitude.

use super::fine_tuning::Interpolation;
use super::operation::Operation;
use crate::image::Image;
use crate::rng::{Rng, below, normal, uniform};

/// A few operations, each drawn from [`OPERATIONS`] and in fact done with some probability.
///
/// Pixels that come from outside of an image take the mean colour that the image is normalised by,
/// which is (124, 116, 104) for ImageNet's. What the operations do to images of other channels
/// than RGB, and to floats, is with [`Operation`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// How many are drawn, with replacement.
    pub operations: usize,
    /// The probability that one that was drawn is done.
    pub probability: f64,
    /// The mean of the magnitude, from 0 to 10.
    pub magnitude: f64,
    /// The deviation of the magnitude, which is drawn for every operation and cut off at 0 and 10.
    pub magnitude_std: f64,
}

impl Default for RandAugment {
    /// What SimMIM fine-tunes with, `rand-m9-mstd0.5-inc1` (public repository, `config.py`).
    fn default() -> Self {
        Self { operations: 2, probability: 0.5, magnitude: 9.0, magnitude_std: 0.5 }
    }
}

/// The greatest magnitude.
const MOST: f64 = 10.0;

/// An operation of a magnitude from 0 to 10 and of a sign, where it has one.
pub type AtMagnitude = fn(f64, f64) -> Operation;

/// The operations with their names in timm, in its order.
pub const OPERATIONS: [(&str, AtMagnitude); 15] = [
    ("AutoContrast", |_, _| Operation::AutoContrast),
    ("Equalize", |_, _| Operation::Equalise),
    ("Invert", |_, _| Operation::Invert),
    ("Rotate", |magnitude, sign| Operation::Rotate { degrees: sign * (magnitude / MOST * 30.0) }),
    ("PosterizeIncreasing", |magnitude, _| Operation::Posterise { bits: 4 - (magnitude / MOST * 4.0) as u32 }),
    ("SolarizeIncreasing", |magnitude, _| Operation::Solarise { from: 256 - (magnitude / MOST * 256.0) as u32 }),
    ("SolarizeAdd", |magnitude, _| Operation::SolariseAdd { add: (magnitude / MOST * 110.0) as u8 }),
    ("ColorIncreasing", |magnitude, sign| Operation::Colour { factor: factor(magnitude, sign) }),
    ("ContrastIncreasing", |magnitude, sign| Operation::Contrast { factor: factor(magnitude, sign) }),
    ("BrightnessIncreasing", |magnitude, sign| Operation::Brightness { factor: factor(magnitude, sign) }),
    ("SharpnessIncreasing", |magnitude, sign| Operation::Sharpness { factor: factor(magnitude, sign) }),
    ("ShearX", |magnitude, sign| Operation::ShearX { factor: sign * (magnitude / MOST * 0.3) }),
    ("ShearY", |magnitude, sign| Operation::ShearY { factor: sign * (magnitude / MOST * 0.3) }),
    ("TranslateXRel", |magnitude, sign| Operation::TranslateX { share: sign * (magnitude / MOST * 0.45) }),
    ("TranslateYRel", |magnitude, sign| Operation::TranslateY { share: sign * (magnitude / MOST * 0.45) }),
];

/// At magnitude 0 nothing changes; at 10 next to nothing is left, or it is almost doubled.
fn factor(magnitude: f64, sign: f64) -> f64 {
    1.0 + sign * (magnitude / MOST * 0.9)
}

impl RandAugment {
    /// Draws the operations to do, at most [`operations`](Self::operations).
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Vec<Operation> {
        let draw = |_| {
            let (_, operation) = OPERATIONS[below(rng, OPERATIONS.len())];
            let is_done = uniform(rng) < self.probability;
            let magnitude = (self.magnitude + self.magnitude_std * normal(rng)).clamp(0.0, MOST);
            let sign = if uniform(rng) < 0.5 { -1.0 } else { 1.0 };
            is_done.then(|| operation(magnitude, sign))
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

    fn draws(steps: RandAugment, images: u64) -> Vec<Vec<Operation>> {
        (0..images).map(|index| steps.draw(&mut rng(4, Purpose::Augment, 0, index))).collect()
    }

    #[test]
    fn half_of_two_operations_are_done_and_all_are_equally_likely() {
        let drawn = draws(RandAugment::default(), 6000);
        let mut of_length = [0_usize; 3];
        let mut of_kind = std::collections::HashMap::new();
        for operations in drawn {
            of_length[operations.len()] += 1;
            for operation in operations {
                *of_kind.entry(std::mem::discriminant(&operation)).or_insert(0_usize) += 1;
            }
        }
        // five standard deviations of binomials of 6,000 at 1/4, and of 12,000 at 1/30
        assert!(of_length[0].abs_diff(1500) < 168 && of_length[2].abs_diff(1500) < 168, "{of_length:?}");
        assert_eq!(of_kind.len(), OPERATIONS.len());
        assert!(of_kind.values().all(|count| count.abs_diff(400) < 99), "{of_kind:?}");
    }

    #[test]
    fn magnitudes_vary_around_their_mean_and_end_at_ten() {
        let steps = RandAugment { probability: 1.0, ..RandAugment::default() };
        let degrees = |operation: &Operation| {
            if let Operation::Rotate { degrees } = operation { Some(degrees / 3.0) } else { None }
        };
        let magnitudes: Vec<f64> = draws(steps, 30_000).iter().flatten().filter_map(degrees).collect();
        let count = magnitudes.len() as f64;
        assert!(magnitudes.iter().all(|magnitude| magnitude.abs() <= 10.0));
        // of a deviation of 1/2 only 2.3 % reach from 9 to 10; of about 4,000 the standard error is 1/126
        let mean = magnitudes.iter().map(|magnitude| magnitude.abs()).sum::<f64>() / count;
        assert!((mean - 9.0).abs() < 0.045, "{mean}");
        let at_most = magnitudes.iter().filter(|magnitude| magnitude.abs() == 10.0).count() as f64 / count;
        assert!((0.01..0.036).contains(&at_most), "{at_most}");
        let negative = magnitudes.iter().filter(|magnitude| **magnitude < 0.0).count() as f64 / count;
        assert!((negative - 0.5).abs() < 0.04, "{negative}");
    }
}
