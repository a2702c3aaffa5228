//! Top-1 and top-5 accuracy.

/// Number of highest scores that count for top-5.
const TOP_K: usize = 5;

/// Counts of correctly classified images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Number of images.
    pub images: usize,
    /// Images whose label has the highest score; in a tie, the label counts as the highest.
    pub correct: usize,
    /// Images whose label has one of the five highest scores.
    pub in_top5: usize,
}

impl Accuracy {
    /// Counts one image, given the scores of all classes and its label.
    pub fn count<T: PartialOrd + Copy>(&mut self, scores: &[T], label: usize) {
        let higher = scores.iter().filter(|score| **score > scores[label]).count();
        self.images += 1;
        self.correct += usize::from(higher == 0);
        self.in_top5 += usize::from(higher < TOP_K);
    }

    /// The sum of both counts.
    pub fn and(self, other: Self) -> Self {
        Self {
            images: self.images + other.images,
            correct: self.correct + other.correct,
            in_top5: self.in_top5 + other.in_top5,
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
pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_counts_by_how_many_classes_score_higher() {
        let mut accuracy = Accuracy::default();
        accuracy.count(&[0.1, 0.9, 0.5, 0.2, 0.3, 0.4], 1);
        accuracy.count(&[0.1, 0.9, 0.5, 0.2, 0.3, 0.4], 3); // four are higher
        accuracy.count(&[0.1, 0.9, 0.5, 0.2, 0.3, 0.4], 0); // five are higher
        accuracy.count(&[0.5, 0.5], 1);
        assert_eq!(accuracy, Accuracy { images: 4, correct: 2, in_top5: 3 });
        assert_eq!((accuracy.top1(), accuracy.top5()), (50.0, 75.0));
    }
}
