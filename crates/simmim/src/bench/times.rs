//! Times of repeated measurements.

/// Times of repeated measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Milliseconds, sorted.
    sorted_ms: Vec<f64>,
}

impl Times {
    /// Times in any order.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(mut ms: Vec<f64>) -> Self {
        assert!(!ms.is_empty(), "there is at least one time");
        ms.sort_by(f64::total_cmp);
        Self { sorted_ms: ms }
    }

    /// Median in milliseconds.
    pub fn median(&self) -> f64 {
        let n = self.sorted_ms.len();
        (self.sorted_ms[(n - 1) / 2] + self.sorted_ms[n / 2]) / 2.0
    }

    /// Shortest time in milliseconds.
    pub fn least(&self) -> f64 {
        self.sorted_ms[0]
    }

    /// Longest time in milliseconds.
    pub fn most(&self) -> f64 {
        self.sorted_ms[self.sorted_ms.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        let of = |ms: &[f64]| Times::new(ms.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]).median(), 2.0);
        let four = of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((four.least(), four.median(), four.most()), (1.0, 2.5, 4.0));
    }
}
