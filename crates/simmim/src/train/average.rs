//! A running mean of the weights, which is often better than the last of them (arXiv:1803.05407, and timm's
//! `ModelEmaV2`).

/// The mean of all parameters, one flat buffer.
pub(super) struct Average {
    decay: f64,
    values: Vec<f32>,
}

impl Average {
    /// A mean that stands at `values`.
    pub(super) fn new(decay: f64, values: Vec<f32>) -> Self {
        Self { decay, values }
    }

    /// Moves towards the weights after update `number`, early on faster, so that the first values are soon
    /// forgotten (TensorFlow, `ExponentialMovingAverage`).
    pub(super) fn take(&mut self, number: u64, weights: &[f32]) {
        let decay = self.decay.min((1.0 + number as f64) / (10.0 + number as f64)) as f32;
        for (mean, weight) in self.values.iter_mut().zip(weights) {
            *mean += (1.0 - decay) * (weight - *mean);
        }
    }

    /// The mean.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_fast_at_first_and_slowly_later() {
        let mut average = Average::new(0.9, vec![0.0]);
        average.take(1, &[1.0]); // decay 2/11
        assert!((average.values()[0] - 9.0 / 11.0).abs() < 1e-6);
        average.take(1000, &[0.0]);
        assert!((average.values()[0] - 0.9 * 9.0 / 11.0).abs() < 1e-6);
    }
}
