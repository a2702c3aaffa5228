//! A vector whose first value lies at the start of a cache line.
//!
//! The longest vector instructions read a whole cache line. From any other address, each of them touches two lines.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the longest vector register.
pub(crate) const CACHE_LINE: usize = 64;

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
        let data = vec![T::default(); len + CACHE_LINE / size_of::<T>()];
        // `align_offset` may find no aligned value; then any start is correct, only slower
        let start = data.as_ptr().align_offset(CACHE_LINE).min(data.len() - len);
        Self { data, start, len }
    }
}

/// The first `len` values of a buffer that is grown if it is shorter.
pub(crate) fn grown<T: Copy + Default>(buffer: &mut Aligned<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        *buffer = Aligned::new(len);
    }
    &mut buffer[..len]
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
    use crate::dtype::Bf16;

    fn is_aligned<T>(values: &Aligned<T>) -> bool {
        values.as_ptr().addr().is_multiple_of(CACHE_LINE)
    }

    fn check<T: Clone + Default + PartialEq>(value: T) {
        for len in [0, 1, 16, 1000] {
            let mut values = Aligned::<T>::new(len);
            values.fill(value.clone());
            let copy = values.clone();
            assert!(values.len() == len && copy[..] == values[..]);
            assert!(is_aligned(&values) && is_aligned(&copy), "{len} values");
        }
    }

    #[test]
    fn values_start_with_a_cache_line_and_so_do_their_copies() {
        check(1.5f32);
        check(Bf16::ONE);
        check(7u32);
    }
}
