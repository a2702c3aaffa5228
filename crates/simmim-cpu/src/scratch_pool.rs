//! A pool of scratch memory that kernels grow as they need it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// The scratch memory that is not in use.
pub(crate) struct ScratchPool<T> {
    free: Arc<Mutex<Vec<T>>>,
}

impl<T> Default for ScratchPool<T> {
    fn default() -> Self {
        Self { free: Arc::default() }
    }
}

impl<T: Default> ScratchPool<T> {
    /// Scratch memory of an earlier use, or else new one.
    pub(crate) fn take(&self) -> PooledScratch<T> {
        let reused = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        PooledScratch { scratch: reused.unwrap_or_default(), free: Arc::clone(&self.free) }
    }
}

/// Scratch memory that returns to its pool when it is dropped.
pub(crate) struct PooledScratch<T: Default> {
    scratch: T,
    free: Arc<Mutex<Vec<T>>>,
}

impl<T: Default> Deref for PooledScratch<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.scratch
    }
}

impl<T: Default> DerefMut for PooledScratch<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.scratch
    }
}

impl<T: Default> Drop for PooledScratch<T> {
    fn drop(&mut self) {
        let scratch = std::mem::take(&mut self.scratch);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}
