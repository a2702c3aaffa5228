//! A pool of buffers, to which a buffer returns when it is dropped, so that a step reuses the memory of the last step.
//!
//! Without a pool, large buffers would come from the operating system anew in each step, and the first access to each
//! of their pages would cost a page fault.
//!
//! Steps may need other lengths: how many features are hidden differs where a mask's unit is smaller than a feature. So a
//! buffer also serves lengths that are a little shorter, and one that was not used for some passes is freed.

use simmim_kernels::aligned::Aligned;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The buffers that are not in use.
struct FreeBuffers<T> {
    /// Buffers from [`BufferPool::take`], by length. There come to be as many of each length as a step has in use at a
    /// time.
    by_length: BTreeMap<usize, Vec<Free<T>>>,
    /// Buffers from [`BufferPool::temporary`].
    temporaries: Vec<Free<T>>,
    /// Passes that were begun.
    pass: u64,
}

struct Free<T> {
    data: Aligned<T>,
    /// The pass in which it was used last.
    used: u64,
}

/// The part of its length that a buffer may be longer than what is asked for, as a divisor: an eighth.
const SPARE: usize = 8;

/// Passes after which a buffer is freed that none of them used.
const KEPT_PASSES: u64 = 16;

/// The buffers of one element type.
pub(crate) struct BufferPool<T> {
    free: Arc<Mutex<FreeBuffers<T>>>,
}

impl<T> Default for BufferPool<T> {
    fn default() -> Self {
        let free = FreeBuffers { by_length: BTreeMap::new(), temporaries: Vec::new(), pass: 0 };
        Self { free: Arc::new(Mutex::new(free)) }
    }
}

impl<T: Clone + Default> BufferPool<T> {
    /// A buffer of `len` values, which are those of an earlier use: write before reading.
    pub(crate) fn take(&self, len: usize) -> Buffer<T> {
        let reused = {
            let free = &mut lock(&self.free).by_length;
            free.range_mut(len..=len + len / SPARE).find_map(|(_, of_length)| of_length.pop())
        };
        let data = reused.map_or_else(|| Aligned::new(len), |free| free.data);
        Buffer { data, len, is_temporary: false, free: Arc::clone(&self.free) }
    }

    /// Like [`Self::take`], but only for the duration of one operation. Operations of different sizes share such
    /// buffers.
    ///
    /// Only the thread that runs operations may call this. Then there are as many of these buffers as one operation has
    /// in use at a time, however many workers there are.
    pub(crate) fn temporary(&self, len: usize) -> Buffer<T> {
        let free = &mut lock(&self.free).temporaries;
        let length = |i: &usize| free[*i].data.len();
        let shortest_fitting = (0..free.len()).filter(|i| length(i) >= len).min_by_key(length);
        let data = match shortest_fitting {
            Some(i) => free.swap_remove(i).data,
            None => {
                // replace the longest, so that the number of buffers stays the same and the shorter ones stay short
                let longest = (0..free.len()).max_by_key(length);
                drop(longest.map(|i| free.swap_remove(i)));
                Aligned::new(len)
            }
        };
        Buffer { data, len, is_temporary: true, free: Arc::clone(&self.free) }
    }

    /// Begins a pass, forward or with its way back: frees what the last passes did not use.
    pub(crate) fn begin_pass(&self) {
        let free = &mut *lock(&self.free);
        free.pass += 1;
        let is_kept = |buffer: &Free<T>| buffer.used + KEPT_PASSES >= free.pass;
        free.by_length.retain(|_, of_length| {
            of_length.retain(is_kept);
            !of_length.is_empty()
        });
        free.temporaries.retain(is_kept);
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
    /// Values in use; the buffer may be longer.
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
        let (length, buffer) = (data.len(), Free { data, used: free.pass });
        match self.is_temporary {
            true => free.temporaries.push(buffer),
            false => free.by_length.entry(length).or_default().push(buffer),
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
    fn a_dropped_buffer_is_used_again_for_its_length_and_a_little_less() {
        let pool = BufferPool::<f32>::default();
        let first = pool.zeros(100).as_ptr();
        let shorter = pool.take(89);
        assert_eq!((shorter.as_ptr(), shorter.len()), (first, 89));
        drop(shorter);
        assert_eq!(pool.take(100).as_ptr(), first);
        assert_ne!(pool.take(88).as_ptr(), first); // would be longer by more than an eighth
        assert_ne!(pool.take(101).as_ptr(), first);
    }

    #[test]
    fn what_is_not_used_for_some_passes_is_freed() {
        let pool = BufferPool::<f32>::default();
        let lengths = |pool: &BufferPool<f32>| {
            let free = lock(&pool.free);
            let others = free.temporaries.iter().map(|buffer| buffer.data.len());
            free.by_length.values().flatten().map(|buffer| buffer.data.len()).chain(others).collect::<Vec<_>>()
        };
        drop((pool.take(10), pool.take(100), pool.temporary(1000)));
        for _ in 0..KEPT_PASSES {
            pool.begin_pass();
            drop(pool.take(100));
        }
        assert_eq!(lengths(&pool), [10, 100, 1000]);
        pool.begin_pass();
        assert_eq!(lengths(&pool), [100]);
        // lengths that change from pass to pass need no more memory in the end
        for pass in 0..1000 {
            pool.begin_pass();
            drop(pool.take(200 + pass * 7 % 23));
        }
        assert!(lengths(&pool).len() <= 4, "{:?}", lengths(&pool)); // of 23 lengths
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
        let lengths: Vec<_> = lock(&pool.free).temporaries.iter().map(|buffer| buffer.data.len()).collect();
        assert_eq!(lengths, [10, 200]);
        assert_ne!(pool.take(10).as_ptr(), at_short, "other buffers are separate");
    }
}
