//! Effective rank and variance of features. Both fall when features collapse, earlier than a loss shows it, and need no
//! labels.

use super::Features;
use nalgebra::DMatrix;

/// Added to each share of the singular values (arXiv:2210.02885, section 3).
const EPS: f64 = 1e-7;

/// Effective rank and variance of features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureSpread {
    /// RankMe (arXiv:2210.02885): the exponential of the entropy of the singular values, each a share of their sum;
    /// from 1 to the width of the features.
    pub rank_me: f64,
    /// Variance over the images, averaged over the dimensions of the features.
    pub variance: f64,
}

/// Computes effective rank and variance of the features of some images, `[N, D]`.
///
/// # Panics
/// If there is no image.
pub fn feature_spread(features: &Features) -> FeatureSpread {
    assert!(!features.is_empty(), "there is at least one image");
    let (rows, width) = (features.len(), features.width);
    let z = DMatrix::from_row_iterator(rows, width, features.values.iter().map(|v| *v as f64));
    // the singular values of Z are the square roots of the eigenvalues of ZᵀZ
    let eigenvalues = z.tr_mul(&z).symmetric_eigenvalues();
    let singular: Vec<f64> = eigenvalues.iter().map(|value| value.max(0.0).sqrt()).collect();
    let sum: f64 = singular.iter().sum();
    let entropy = |value: &f64| {
        let share = value / sum.max(f64::MIN_POSITIVE) + EPS;
        -share * share.ln()
    };
    let means = z.row_mean();
    let variance = z
        .column_iter()
        .zip(means.iter())
        .map(|(column, mean)| column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64);
    FeatureSpread {
        rank_me: singular.iter().map(entropy).sum::<f64>().exp(),
        variance: variance.sum::<f64>() / width as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(width: usize, values: &[f32]) -> FeatureSpread {
        let labels = vec![0; values.len() / width];
        feature_spread(&Features { width, values: values.to_vec(), labels, skipped: Vec::new(), not_cached: None })
    }

    #[test]
    fn equal_directions_count_fully_and_a_single_one_once() {
        let all = spread(3, &[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]);
        assert!((all.rank_me - 3.0).abs() < 1e-3, "{all:?}");
        // in each dimension one value of three is 2: mean 2/3, variance 8/9
        assert!((all.variance - 8.0 / 9.0).abs() < 1e-12);
        let one = spread(3, &[1.0, 2.0, -1.0, 2.0, 4.0, -2.0, -3.0, -6.0, 3.0]);
        assert!((one.rank_me - 1.0).abs() < 1e-3, "{one:?}");
        let collapsed = spread(2, &[5.0, 1.0, 5.0, 1.0]);
        assert!(collapsed.variance == 0.0 && (collapsed.rank_me - 1.0).abs() < 1e-3, "{collapsed:?}");
    }

    #[test]
    fn unequal_directions_count_by_the_entropy_of_their_shares() {
        // singular values 3 and 1: shares 3/4 and 1/4
        let found = spread(2, &[3.0, 0.0, 0.0, 1.0]);
        let expected = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((found.rank_me - expected.exp()).abs() < 1e-3, "{found:?}");
    }
}
