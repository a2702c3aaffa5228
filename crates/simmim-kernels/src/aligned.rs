//! Memory from the start of a cache line on: a vector as long as a line that is read from anywhere else touches two.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the longest vector.
const LINE: usize = 64;

/// A fixed number of values, the first at the start of a cache line.
#[derive(Debug)]
pub struct Aligned<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Clone + Default> Aligned<T> {
    /// `len` default values.
    pub fn new(len: usize) -> Self {
        let data = vec![T::default(); len + LINE / size_of::<T>()];
        // where no alignment is known, the values lie where they lie: they are as good, only slower
        let start = data.as_ptr().align_offset(LINE).min(data.len() - len);
        Self { data, start, len }
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { data: Vec::new(), start: 0, len: 0 }
    }
}

impl<T: Clone + Default> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len);
        copy.clone_from_slice(self);
        copy
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Bf16;

    fn starts_with_a_line<T>(values: &Aligned<T>) -> bool {
        values.as_ptr().addr().is_multiple_of(LINE)
    }

    fn check<T: Clone + Default + PartialEq>(value: T) {
        for len in [0, 1, 16, 1000] {
            let mut values = Aligned::<T>::new(len);
            values.fill(value.clone());
            let copy = values.clone();
            assert!(values.len() == len && copy[..] == values[..]);
            assert!(starts_with_a_line(&values) && starts_with_a_line(&copy), "{len} values");
        }
    }

    #[test]
    fn values_start_with_a_line_and_so_do_their_copies() {
        check(1.5f32);
        check(Bf16::ONE);
        check(7u32);
    }
}
