//! Buffers that go back to a shelf when dropped, so that a step reuses the last step's memory.
//!
//! Large allocations come from the system anew on every step otherwise, and each page of them costs
//! a fault.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers of each length that nobody uses.
type Waiting<T> = Mutex<HashMap<usize, Vec<Vec<T>>>>;

/// Where buffers of one element type wait for reuse, sorted by length.
pub(crate) struct Shelf<T> {
    waiting: Arc<Waiting<T>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

impl<T: Clone + Default> Shelf<T> {
    /// A buffer of `len` values left over from earlier use: write before reading.
    pub(crate) fn take(&self, len: usize) -> Buffer<T> {
        let reused = lock(&self.waiting).get_mut(&len).and_then(Vec::pop);
        let data = reused.unwrap_or_else(|| vec![T::default(); len]);
        Buffer { data, home: Arc::clone(&self.waiting) }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeros(&self, len: usize) -> Buffer<T> {
        let mut buffer = self.take(len);
        buffer.fill(T::default());
        buffer
    }

    /// A buffer holding a copy of `values`.
    pub(crate) fn copy(&self, values: &[T]) -> Buffer<T> {
        let mut buffer = self.take(values.len());
        buffer.clone_from_slice(values);
        buffer
    }
}

/// Values that return to their shelf when dropped.
pub(crate) struct Buffer<T> {
    data: Vec<T>,
    home: Arc<Waiting<T>>,
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        lock(&self.home).entry(data.len()).or_default().push(data);
    }
}

/// A map of vectors is sound wherever a panic struck.
fn lock<T>(waiting: &Waiting<T>) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<Vec<T>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where things that grow with use wait for it.
pub(crate) struct Pool<T> {
    waiting: Arc<Mutex<Vec<T>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

impl<T: Default> Pool<T> {
    /// One that was used before, or a new one.
    pub(crate) fn take(&self) -> Pooled<T> {
        let reused = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Pooled { item: reused.unwrap_or_default(), home: Arc::clone(&self.waiting) }
    }
}

/// A thing that returns to its pool when dropped.
pub(crate) struct Pooled<T: Default> {
    item: T,
    home: Arc<Mutex<Vec<T>>>,
}

impl<T: Default> Deref for Pooled<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T: Default> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T: Default> Drop for Pooled<T> {
    fn drop(&mut self) {
        let item = std::mem::take(&mut self.item);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let shelf = Shelf::<f32>::default();
        let first = shelf.zeros(100).as_ptr();
        assert_eq!(shelf.take(100).as_ptr(), first);
        assert_ne!(shelf.take(99).as_ptr(), first);
    }
}
