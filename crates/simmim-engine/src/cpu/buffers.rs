//! Buffers that go back to a shelf when dropped, so that a step reuses the last step's memory.
//!
//! Large allocations come from the system anew on every step otherwise, and each page of them costs
//! a fault.

use simmim_kernels::aligned::Aligned;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers that nobody uses.
struct Waiting<T> {
    /// What operations keep and what tasks need, by length: as many of each as a step has at a time.
    by_length: HashMap<usize, Vec<Aligned<T>>>,
    /// What an operation needs for itself alone, as long as any needed yet.
    temporaries: Vec<Aligned<T>>,
}

/// Where buffers of one element type wait for reuse.
pub(crate) struct Shelf<T> {
    waiting: Arc<Mutex<Waiting<T>>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        let waiting = Waiting { by_length: HashMap::new(), temporaries: Vec::new() };
        Self { waiting: Arc::new(Mutex::new(waiting)) }
    }
}

impl<T: Clone + Default> Shelf<T> {
    /// A buffer of `len` values left over from earlier use: write before reading.
    pub(crate) fn take(&self, len: usize) -> Buffer<T> {
        let reused = lock(&self.waiting).by_length.get_mut(&len).and_then(Vec::pop);
        let data = reused.unwrap_or_else(|| Aligned::new(len));
        Buffer { data, len, is_temporary: false, home: Arc::clone(&self.waiting) }
    }

    /// Like [`Self::take`], for the time of one operation: operations of different sizes share such buffers.
    ///
    /// Only for the thread that runs operations, so that how many there are does not depend on the others.
    pub(crate) fn temporary(&self, len: usize) -> Buffer<T> {
        let waiting = &mut lock(&self.waiting).temporaries;
        let fitting = (0..waiting.len()).filter(|i| waiting[*i].len() >= len).min_by_key(|i| waiting[*i].len());
        let data = match fitting {
            Some(i) => waiting.swap_remove(i),
            None => {
                // the longest grows, and the shorter ones stay what they are
                let longest = (0..waiting.len()).max_by_key(|i| waiting[*i].len());
                drop(longest.map(|i| waiting.swap_remove(i)));
                Aligned::new(len)
            }
        };
        Buffer { data, len, is_temporary: true, home: Arc::clone(&self.waiting) }
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
    data: Aligned<T>,
    /// How many are in use.
    len: usize,
    is_temporary: bool,
    home: Arc<Mutex<Waiting<T>>>,
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[..self.len]
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let mut waiting = lock(&self.home);
        match self.is_temporary {
            true => waiting.temporaries.push(data),
            false => waiting.by_length.entry(data.len()).or_default().push(data),
        }
    }
}

/// Lists of vectors are sound wherever a panic struck.
fn lock<T>(waiting: &Mutex<Waiting<T>>) -> MutexGuard<'_, Waiting<T>> {
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

    #[test]
    fn temporaries_are_shared_by_whoever_they_are_long_enough_for() {
        let shelf = Shelf::<f32>::default();
        let (short, long) = (shelf.temporary(10), shelf.temporary(100));
        let [at_short, at_long] = [&short, &long].map(|buffer| buffer.as_ptr());
        drop((short, long));
        let (again_short, again_long) = (shelf.temporary(8), shelf.temporary(60));
        assert_eq!([again_short.as_ptr(), again_long.as_ptr()], [at_short, at_long]);
        assert_eq!([again_short.len(), again_long.len()], [8, 60]);
        drop((again_short, again_long));
        drop(shelf.temporary(200)); // longer than any: one of them grows
        let lengths =
            |shelf: &Shelf<f32>| lock(&shelf.waiting).temporaries.iter().map(|data| data.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&shelf), [10, 200]);
        assert_ne!(shelf.take(10).as_ptr(), at_short, "what is kept has buffers of its own");
    }
}
