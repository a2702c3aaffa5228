//! Fetching of operands from far caches while a unit for tiles multiplies others.
//!
//! Such a unit multiplies about as fast as the third-level cache can be read. Where a product waits for a weight before it
//! multiplies, it takes nearly twice as long (`docs/LOG.md`). The hardware fetches ahead too, but only within a page.

use super::{LINE, fetch};
use crate::dtype::Dtype;

/// Operands that will be multiplied next, which are fetched into the second-level cache bit by bit.
#[derive(Debug, Default)]
pub struct Ahead<'a> {
    /// What is left to fetch, the first part last.
    parts: Vec<&'a [u32]>,
    /// Lanes to fetch at a time.
    at_once: usize,
}

impl<'a> Ahead<'a> {
    /// Will fetch `parts` in `times` times.
    pub fn new(mut parts: Vec<&'a [u32]>, times: usize) -> Self {
        let lines: usize = parts.iter().map(|part| part.len().div_ceil(LINE)).sum();
        parts.reverse();
        Self { parts, at_once: lines.div_ceil(times.max(1)) * LINE }
    }

    /// Fetches the next bit.
    #[inline(always)]
    pub fn fetch_some(&mut self) {
        let mut left = self.at_once;
        while left > 0
            && let Some(part) = self.parts.last_mut()
        {
            let (now, later) = part.split_at(left.min(part.len()));
            now.chunks(LINE).for_each(|line| fetch(line.as_ptr()));
            left -= now.len();
            match later {
                [] => drop(self.parts.pop()),
                _ => *part = later,
            }
        }
    }
}

/// Fetches values into the second-level cache that will be read soon, in an order or after a pause that the hardware does not
/// foresee.
#[inline]
pub fn fetch_values<T: Dtype>(values: &[T]) {
    values.chunks(LINE * size_of::<u32>() / size_of::<T>()).for_each(|line| fetch(line.as_ptr().cast()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_fetched_in_order_and_in_as_many_times() {
        let (first, second) = ([0; 100], [0; 40]);
        let mut ahead = Ahead::new(vec![&first, &second], 5); // 7 and 3 lines, 2 at a time
        let mut left = Vec::new();
        for _ in 0..5 {
            ahead.fetch_some();
            left.push(ahead.parts.iter().map(|part| part.len()).collect::<Vec<_>>());
        }
        assert_eq!(left, [vec![40, 68], vec![40, 36], vec![40, 4], vec![12], vec![]]);
        Ahead::new(Vec::new(), 0).fetch_some();
    }
}
