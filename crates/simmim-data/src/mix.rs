//! Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of a batch, as in timm 0.4.12 in its mode `batch`
//! (`timm/data/mixup.py`): image `i` of a batch of B images is mixed with image `B - 1 - i`.

use crate::rng::{Rng, below, beta, uniform};

/// How often and how strongly the images of a batch are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The probability that a batch is mixed at all.
    pub probability: f64,
    /// Both shape parameters of the beta distribution that Mixup draws its share from; 0 for no Mixup.
    pub mixup_alpha: f64,
    /// Both shape parameters of the beta distribution that CutMix draws its share from; 0 for no CutMix.
    pub cutmix_alpha: f64,
    /// The probability that a mixed batch gets CutMix, if both are on.
    pub switch_probability: f64,
}

impl Default for Mix {
    /// The setting of SimMIM's fine-tuning (public repository, `config.py`).
    fn default() -> Self {
        Self { probability: 1.0, mixup_alpha: 0.8, cutmix_alpha: 1.0, switch_probability: 0.5 }
    }
}

/// What is done to one batch, which has an even number of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixture {
    /// Nothing.
    None,
    /// Every pixel becomes a weighted mean of two images.
    Mixup {
        /// The weight of the image itself; the other image has the weight `1 - share`.
        share: f64,
    },
    /// A rectangle, which may be empty, is replaced by that of the other image.
    CutMix {
        /// The first row of the rectangle, and the first row below it.
        rows: [usize; 2],
        /// The first column of the rectangle, and the first column to its right.
        columns: [usize; 2],
        /// The share of the image that is not replaced.
        share: f64,
    },
}

impl Mix {
    /// Draws what is done to a batch of images of `height` by `width` pixels.
    ///
    /// `rng` is `rng(seed, Purpose::Mix, epoch, number)` for batch `number`, so all ranks draw the same.
    #[must_use]
    pub fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Mixture {
        let is_mixed = uniform(rng) < self.probability;
        let is_cut = uniform(rng) < self.switch_probability;
        let is_cut = match (self.mixup_alpha > 0.0, self.cutmix_alpha > 0.0) {
            (true, true) => is_cut,
            (false, true) => true,
            (true, false) => false,
            (false, false) => return Mixture::None,
        };
        if !is_mixed {
            Mixture::None
        } else if is_cut {
            let share = beta(rng, self.cutmix_alpha, self.cutmix_alpha);
            Mixture::cut(height, width, share, [below(rng, height), below(rng, width)])
        } else {
            Mixture::Mixup { share: beta(rng, self.mixup_alpha, self.mixup_alpha) }
        }
    }
}

impl Mixture {
    /// Returns the CutMix of a rectangle that covers `1 - share` of the image and is centered at the row and column
    /// `middle`. Parts of it outside of the image are cut off, which makes the share larger.
    #[must_use]
    pub fn cut(height: usize, width: usize, share: f64, middle: [usize; 2]) -> Self {
        let side = (1.0 - share).sqrt();
        let within = |len: usize, middle: usize| {
            let half = (len as f64 * side) as usize / 2;
            [middle.saturating_sub(half), (middle + half).min(len)]
        };
        let (rows, columns) = (within(height, middle[0]), within(width, middle[1]));
        let area = (rows[1] - rows[0]) * (columns[1] - columns[0]);
        Self::CutMix { rows, columns, share: 1.0 - area as f64 / (height * width) as f64 }
    }

    /// Mixes the images of a batch.
    ///
    /// # Shapes
    ///
    /// `images`: `[B, C, H, W]`, where `shape` is `[C, H, W]`.
    ///
    /// # Panics
    ///
    /// Panics if B is odd or `images` does not have this shape.
    pub fn mix_images(&self, images: &mut [f32], shape: [usize; 3]) {
        let [channels, height, width] = shape;
        match *self {
            Self::None => {}
            Self::Mixup { share } => {
                pairs(images, channels * height * width, |one, other| average(one, other, share));
            }
            Self::CutMix { rows, columns, .. } => pairs(images, channels * height * width, |one, other| {
                let ones = one.chunks_exact_mut(width).zip(other.chunks_exact_mut(width));
                for (row, (one, other)) in ones.enumerate() {
                    if (rows[0]..rows[1]).contains(&(row % height)) {
                        let columns = columns[0]..columns[1];
                        one[columns.clone()].swap_with_slice(&mut other[columns]);
                    }
                }
            }),
        }
    }

    /// Mixes the targets of a batch in the way its images are mixed.
    ///
    /// # Shapes
    ///
    /// `targets`: `[B, classes]`.
    ///
    /// # Panics
    ///
    /// Panics if B is odd or `targets` does not have this shape.
    pub fn mix_targets(&self, targets: &mut [f32], classes: usize) {
        match *self {
            Self::None => {}
            Self::Mixup { share } | Self::CutMix { share, .. } => {
                pairs(targets, classes, |one, other| average(one, other, share));
            }
        }
    }
}

/// Calls `mix` with the first and the last row, then with the second and the second to last, and so on.
fn pairs(values: &mut [f32], row: usize, mix: impl Fn(&mut [f32], &mut [f32])) {
    assert!(values.len().is_multiple_of(2 * row), "{} values are no even number of rows of {row}", values.len());
    let (first, last) = values.split_at_mut(values.len() / 2);
    for (one, other) in first.chunks_exact_mut(row).zip(last.chunks_exact_mut(row).rev()) {
        mix(one, other);
    }
}

/// Replaces both slices by weighted means of the two, in which each has the weight `share` in its own mean.
fn average(one: &mut [f32], other: &mut [f32], share: f64) {
    let (own, rest) = (share as f32, (1.0 - share) as f32);
    for (one, other) in one.iter_mut().zip(other) {
        (*one, *other) = (*one * own + *other * rest, *other * own + *one * rest);
    }
}

/// Returns label-smoothed targets: for each of `labels`, a distribution over the classes of which `smoothing` is spread
/// evenly over all classes and the rest is at the label.
///
/// # Shapes
///
/// `labels`: `[B]`; returns `[B, classes]`.
///
/// # Panics
///
/// Panics if a label is not below `classes`.
#[must_use]
pub fn soft_targets(labels: &[usize], classes: usize, smoothing: f64) -> Vec<f32> {
    let off = smoothing / classes as f64;
    let on = 1.0 - smoothing + off;
    let mut targets = vec![off as f32; labels.len() * classes];
    for (row, label) in targets.chunks_exact_mut(classes).zip(labels) {
        row[*label] = on as f32;
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, rng};

    /// How many of 2,000 batches get Mixup, and how many get CutMix.
    fn counts(mix: Mix) -> [usize; 2] {
        let mut counts = [0; 2];
        for number in 0..2000 {
            match mix.draw(32, 48, &mut rng(3, Purpose::Mix, 1, number)) {
                Mixture::None => {}
                Mixture::Mixup { share } => {
                    assert!((0.0..=1.0).contains(&share));
                    counts[0] += 1;
                }
                Mixture::CutMix { rows, columns, share } => {
                    assert!(rows[0] <= rows[1] && rows[1] <= 32 && columns[0] <= columns[1] && columns[1] <= 48);
                    let area = ((rows[1] - rows[0]) * (columns[1] - columns[0])) as f64;
                    assert!((1.0 - area / (32.0 * 48.0) - share).abs() < 1e-12);
                    counts[1] += 1;
                }
            }
        }
        counts
    }

    #[test]
    fn mixup_and_cutmix_have_their_configured_frequencies() {
        // five standard deviations of a binomial distribution of 2,000 draws at one half are 112
        let near = |count: usize, expected: usize| count.abs_diff(expected) < 112;
        let mix = Mix::default();
        let both = counts(mix);
        assert!(near(both[0], 1000) && both[0] + both[1] == 2000, "{both:?}");
        let half = counts(Mix { probability: 0.5, ..mix });
        assert!(near(half[0], 500) && near(half[1], 500), "{half:?}");
        assert_eq!(counts(Mix { cutmix_alpha: 0.0, ..mix }), [2000, 0]);
        assert_eq!(counts(Mix { mixup_alpha: 0.0, ..mix }), [0, 2000]);
        assert_eq!(counts(Mix { mixup_alpha: 0.0, cutmix_alpha: 0.0, ..mix }), [0, 0]);
        assert_eq!(counts(Mix { probability: 0.0, ..mix }), [0, 0]);
    }

    #[test]
    fn cutmix_swaps_a_rectangle_between_two_images() {
        // two images of one channel and 4 by 4 pixels; the rectangle has half of each side
        let mut images: Vec<f32> = [vec![1.0; 16], vec![2.0; 16]].concat();
        let mixture = Mixture::cut(4, 4, 0.75, [2, 2]);
        assert_eq!(mixture, Mixture::CutMix { rows: [1, 3], columns: [1, 3], share: 0.75 });
        mixture.mix_images(&mut images, [1, 4, 4]);
        let [outer, mixed] = [[1.0_f32; 4], [1.0, 2.0, 2.0, 1.0]];
        let first = [outer, mixed, mixed, outer].concat();
        let second = first.iter().map(|value| 3.0 - value);
        assert_eq!(images, first.iter().copied().chain(second).collect::<Vec<_>>());
    }

    #[test]
    fn targets_are_distributions_before_and_after() {
        let mut targets = soft_targets(&[0, 3, 1, 1], 4, 0.1);
        assert_eq!(targets[..4], [0.925, 0.025, 0.025, 0.025]);
        Mixture::Mixup { share: 0.3 }.mix_targets(&mut targets, 4);
        for row in targets.chunks_exact(4) {
            // each of four values is rounded
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        }
        assert_eq!(soft_targets(&[1], 3, 0.0), [0.0, 1.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "9 values are no even number of rows of 3")]
    fn an_odd_batch_is_refused() {
        Mixture::Mixup { share: 0.5 }.mix_targets(&mut [0.0; 9], 3);
    }
}
