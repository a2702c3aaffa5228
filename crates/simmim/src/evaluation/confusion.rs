//! The confusion matrix, and the accuracy of each class.

/// Images by label and predicted class. A prediction that is tied is shared evenly among the tied classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Confusion {
    classes: usize,
    /// `[K, K]`: images of a label (row) by predicted class (column).
    cells: Vec<f64>,
    /// Number of images that have a label, `[K]`.
    images: Vec<usize>,
}

/// The images of a class, and how many of them are classified correctly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassAccuracy {
    /// Number of images.
    pub images: usize,
    /// Top-1 accuracy in percent; `None` if the row of the class in the confusion matrix has no image.
    pub top1: Option<f64>,
}

impl Confusion {
    /// The matrix of no images.
    pub fn new(classes: usize) -> Self {
        Self { classes, cells: vec![0.0; classes * classes], images: vec![0; classes] }
    }

    /// Counts one image, whose scores are finite. An image with several labels is in the row of the one with the highest
    /// score, the first of them in a tie, and is classified correctly if any of them is predicted.
    ///
    /// # Panics
    /// If there is no label.
    pub fn count(&mut self, scores: &[f32], labels: &[usize]) {
        let higher = |row: usize, label: usize| if scores[label] > scores[row] { label } else { row };
        let row = labels.iter().copied().reduce(higher).expect("an image has a label");
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let predicted: Vec<usize> = (0..self.classes).filter(|class| scores[*class] == highest).collect();
        for class in &predicted {
            let column = if labels.contains(class) { row } else { *class };
            self.cells[row * self.classes + column] += 1.0 / predicted.len() as f64;
        }
        labels.iter().for_each(|label| self.images[*label] += 1);
    }

    /// Images in the row of a label, by predicted class, `[K]`.
    pub fn row(&self, label: usize) -> &[f64] {
        &self.cells[label * self.classes..][..self.classes]
    }

    /// Number of images of a class, and the share of those in its row that are classified correctly.
    pub fn per_class(&self) -> Vec<ClassAccuracy> {
        let of_class = |class: usize| {
            let in_row: f64 = self.row(class).iter().sum();
            let top1 = (in_row > 0.0).then(|| 100.0 * self.row(class)[class] / in_row);
            ClassAccuracy { images: self.images[class], top1 }
        };
        (0..self.classes).map(of_class).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion(classes: usize, images: &[(&[f32], &[usize])]) -> Confusion {
        let mut confusion = Confusion::new(classes);
        images.iter().for_each(|(scores, labels)| confusion.count(scores, labels));
        confusion
    }

    #[test]
    fn a_class_without_images_has_no_accuracy() {
        let found = confusion(3, &[(&[0.9, 0.1, 0.0], &[0]), (&[0.1, 0.9, 0.0], &[0]), (&[0.9, 0.1, 0.0], &[2])]);
        assert_eq!(
            (found.row(0), found.row(1), found.row(2)),
            (&[1.0, 1.0, 0.0][..], &[0.0; 3][..], &[1.0, 0.0, 0.0][..])
        );
        let class = |images, top1| ClassAccuracy { images, top1 };
        assert_eq!(found.per_class(), [class(2, Some(50.0)), class(0, None), class(1, Some(0.0))]);
    }

    #[test]
    fn a_tied_prediction_is_shared() {
        let found = confusion(4, &[(&[0.0; 4], &[2]), (&[0.5, 0.5, 0.1, 0.5], &[3])]);
        assert_eq!(found.row(2), [0.25; 4]);
        assert_eq!(found.row(3), [1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0]);
    }

    #[test]
    fn an_image_of_several_classes_is_in_the_row_of_the_highest() {
        let images: [(&[f32], &[usize]); 3] =
            [(&[0.1, 0.9, 0.5], &[0, 2]), (&[0.9, 0.1, 0.9], &[0, 2]), (&[0.9, 0.9, 0.1], &[1, 2])];
        let found = confusion(3, &images);
        assert_eq!(found.row(2), [0.0, 1.0, 0.0]);
        assert_eq!(found.row(0), [1.0, 0.0, 0.0], "both labels are predicted");
        assert_eq!(found.row(1), [0.5, 0.5, 0.0]);
        let images = |class: usize| found.per_class()[class].images;
        assert_eq!((images(0), images(1), images(2)), (2, 1, 3));
    }
}
