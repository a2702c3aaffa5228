//! How often the right class has the highest score, or one of the five highest.

/// Classes that count for top-5.
const FEW: usize = 5;

/// Right guesses among images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Images.
    pub images: usize,
    /// Those whose class had the highest score; of equal scores the right one counts as the highest.
    pub right: usize,
    /// Those whose class was among the five highest.
    pub among_five: usize,
}

impl Accuracy {
    /// Counts one image: the scores of all classes, and its own class.
    pub fn count<T: PartialOrd + Copy>(&mut self, scores: &[T], label: usize) {
        let higher = scores.iter().filter(|score| **score > scores[label]).count();
        self.images += 1;
        self.right += usize::from(higher == 0);
        self.among_five += usize::from(higher < FEW);
    }

    /// The counts of both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            images: self.images + other.images,
            right: self.right + other.right,
            among_five: self.among_five + other.among_five,
        }
    }

    /// Right ones in percent.
    pub fn top1(self) -> f64 {
        percent(self.right, self.images)
    }

    /// Those among the five highest in percent.
    pub fn top5(self) -> f64 {
        percent(self.among_five, self.images)
    }
}

/// A part in percent; 0 of nothing.
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
        assert_eq!(accuracy, Accuracy { images: 4, right: 2, among_five: 3 });
        assert_eq!((accuracy.top1(), accuracy.top5()), (50.0, 75.0));
    }
}
