//! Top-1 and top-5 accuracy.

use super::ranks::Place;

/// Number of highest scores that count for top-5.
const TOP_K: usize = 5;

/// Correctly classified images; where scores are tied, their expected number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// Number of images.
    pub images: usize,
    /// Images whose label has the highest score.
    pub correct: f64,
    /// Images whose label has one of the five highest scores.
    pub in_top5: f64,
}

impl Accuracy {
    /// Counts one image, given the place of its label; `None` if the label is not among those that were ranked.
    pub fn count(&mut self, place: Option<Place>) {
        self.images += 1;
        if let Some(place) = place {
            self.correct += place.chance_within(1);
            self.in_top5 += place.chance_within(TOP_K);
        }
    }

    /// Top-1 accuracy in percent.
    pub fn top1(self) -> f64 {
        percent(self.correct, self.images)
    }

    /// Top-5 accuracy in percent.
    pub fn top5(self) -> f64 {
        percent(self.in_top5, self.images)
    }
}

/// `part` in percent of `whole`; 0 if `whole` is 0.
fn percent(part: f64, whole: usize) -> f64 {
    100.0 * part / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_counts_by_how_many_classes_score_higher() {
        let mut accuracy = Accuracy::default();
        let mut count = |scores: &[f32], label: usize| accuracy.count(Some(Place::of(scores, &[label]).unwrap()));
        count(&[0.1, 0.9, 0.5, 0.2, 0.3, 0.4], 1);
        count(&[0.1, 0.9, 0.5, 0.2, 0.3, 0.4], 3); // four are higher
        count(&[0.1, 0.9, 0.5, 0.2, 0.3, 0.4], 0); // five are higher
        count(&[0.5, 0.5], 1);
        accuracy.count(None);
        assert_eq!(accuracy, Accuracy { images: 5, correct: 1.5, in_top5: 3.0 });
        assert_eq!((accuracy.top1(), accuracy.top5()), (30.0, 60.0));
    }

    #[test]
    fn scores_of_zero_are_chance() {
        let mut accuracy = Accuracy::default();
        (0..140).for_each(|image| accuracy.count(Some(Place::of(&[0.0f32; 7], &[image % 7]).unwrap())));
        assert!((accuracy.top1() - 100.0 / 7.0).abs() < 1e-9 && (accuracy.top5() - 500.0 / 7.0).abs() < 1e-9);
    }
}
