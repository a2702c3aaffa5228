//! Stores that go past the caches.
//!
//! What a forward pass saves for backward is read again only after much else. An ordinary store first reads its cache line
//! from memory, and makes room for it by throwing out a line that may be wanted sooner. A streaming store does neither:
//! where a batch's activations are larger than the caches, it is more than twice as fast (`docs/LOG.md`).

use std::marker::PhantomData;

/// Permission to store past the caches. Other threads see such values once it is dropped, so it must be dropped before
/// another thread is told that they are there. It stays on its thread.
#[derive(Debug)]
pub struct Streaming {
    /// Keeps the permission from being sent.
    thread: PhantomData<*const ()>,
}

impl Streaming {
    pub(crate) fn new() -> Self {
        Self { thread: PhantomData }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        crate::avx512::fence_stores();
    }
}
