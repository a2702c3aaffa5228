//! A pool of buffers, to which a buffer returns when it is dropped, so that a step reuses the memory of the last step.
//!
//! Without a pool, large buffers would come from the operating system anew in each step, and the first access to each
//! of their pages would cost a page fault.

use simmim_kernels::aligned::Aligned;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The buffers that are not in use.
struct FreeBuffers<T> {
    /// Buffers from [`BufferPool::take`], by length. There come to be as many of each length as a step has in use at a
    /// time.
    by_length: HashMap<usize, Vec<Aligned<T>>>,
    /// Buffers from [`BufferPool::temporary`].
    temporaries: Vec<Aligned<T>>,
}

/// The buffers of one element type.
pub(crate) struct BufferPool<T> {
    free: Arc<Mutex<FreeBuffers<T>>>,
}

impl<T> Default for BufferPool<T> {
    fn default() -> Self {
        let free = FreeBuffers { by_length: HashMap::new(), temporaries: Vec::new() };
        Self { free: Arc::new(Mutex::new(free)) }
    }
}

impl<T: Clone + Default> BufferPool<T> {
    /// A buffer of `len` values, which are those of an earlier use: write before reading.
    pub(crate) fn take(&self, len: usize) -> Buffer<T> {
        let reused = lock(&self.free).by_length.get_mut(&len).and_then(Vec::pop);
        let data = reused.unwrap_or_else(|| Aligned::new(len));
        Buffer { data, len, is_temporary: false, free: Arc::clone(&self.free) }
    }

    /// Like [`Self::take`], but only for the duration of one operation. Operations of different sizes share such
    /// buffers.
    ///
    /// Only the thread that runs operations may call this. Then there are as many of these buffers as one operation has
    /// in use at a time, however many workers there are.
    pub(crate) fn temporary(&self, len: usize) -> Buffer<T> {
        let free = &mut lock(&self.free).temporaries;
        let shortest_fitting = (0..free.len()).filter(|i| free[*i].len() >= len).min_by_key(|i| free[*i].len());
        let data = match shortest_fitting {
            Some(i) => free.swap_remove(i),
            None => {
                // replace the longest, so that the number of buffers stays the same and the shorter ones stay short
                let longest = (0..free.len()).max_by_key(|i| free[*i].len());
                drop(longest.map(|i| free.swap_remove(i)));
                Aligned::new(len)
            }
        };
        Buffer { data, len, is_temporary: true, free: Arc::clone(&self.free) }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeros(&self, len: usize) -> Buffer<T> {
        let mut buffer = self.take(len);
        buffer.fill(T::default());
        buffer
    }

    /// A buffer with a copy of `values`.
    pub(crate) fn copy(&self, values: &[T]) -> Buffer<T> {
        let mut buffer = self.take(values.len());
        buffer.clone_from_slice(values);
        buffer
    }
}

/// Values that return to their pool when they are dropped.
pub(crate) struct Buffer<T> {
    data: Aligned<T>,
    /// Values in use; a temporary buffer may be longer.
    len: usize,
    is_temporary: bool,
    free: Arc<Mutex<FreeBuffers<T>>>,
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
        let mut free = lock(&self.free);
        match self.is_temporary {
            true => free.temporaries.push(data),
            false => free.by_length.entry(data.len()).or_default().push(data),
        }
    }
}

/// The lists are valid even if a thread panicked while it held the lock.
fn lock<T>(free: &Mutex<FreeBuffers<T>>) -> MutexGuard<'_, FreeBuffers<T>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_for_the_same_length() {
        let pool = BufferPool::<f32>::default();
        let first = pool.zeros(100).as_ptr();
        assert_eq!(pool.take(100).as_ptr(), first);
        assert_ne!(pool.take(99).as_ptr(), first);
    }

    #[test]
    fn a_temporary_buffer_is_used_again_for_any_length_that_fits() {
        let pool = BufferPool::<f32>::default();
        let (short, long) = (pool.temporary(10), pool.temporary(100));
        let [at_short, at_long] = [&short, &long].map(|buffer| buffer.as_ptr());
        drop((short, long));
        let (shorter, less_long) = (pool.temporary(8), pool.temporary(60));
        assert_eq!([shorter.as_ptr(), less_long.as_ptr()], [at_short, at_long]);
        assert_eq!([shorter.len(), less_long.len()], [8, 60]);
        drop((shorter, less_long));
        drop(pool.temporary(200)); // longer than both, so the longer one is replaced
        let lengths: Vec<_> = lock(&pool.free).temporaries.iter().map(|data| data.len()).collect();
        assert_eq!(lengths, [10, 200]);
        assert_ne!(pool.take(10).as_ptr(), at_short, "other buffers are separate");
    }
}
