//! One process at a time fetches a model: ranks and commands that start together would each download it.
//!
//! The lock is the operating system's and on an open file, so that it ends with the process that has it, whichever way that
//! ends. Where the file system has no locks, each process fetches by itself; downloads have names of their own in the cache.

use super::cache::Cache;
use std::fs::{File, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long is waited for another process before this one fetches as well.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The pause between looks at the lock.
const PAUSE: Duration = Duration::from_millis(100);

/// A lock that is held until it is dropped.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process fetches this model, and calls `wait` once if one does. `None` if there can be no lock, or
    /// the other takes longer than the patience.
    pub(super) fn of(cache: &Cache, wait: impl FnOnce()) -> Option<Self> {
        Self::within(cache, PATIENCE, wait)
    }

    fn within(cache: &Cache, patience: Duration, wait: impl FnOnce()) -> Option<Self> {
        let path = cache.lock();
        std::fs::create_dir_all(path.parent()?).ok()?;
        let file = File::options().create(true).append(true).open(&path).ok()?;
        let (begun, mut wait) = (Instant::now(), Some(wait));
        loop {
            match file.try_lock() {
                Ok(()) => return Some(Self { _file: file }),
                Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                    if let Some(wait) = wait.take() {
                        wait();
                    }
                    sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Address;
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_given_up_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), &Address::of("hf://a/b").unwrap().unwrap());
        let first = Lock::of(&cache, || panic!("nobody else has it")).unwrap();
        let mut waits = 0;
        assert!(Lock::within(&cache, Duration::from_millis(150), || waits += 1).is_none());
        assert_eq!(waits, 1);
        drop(first);
        assert!(Lock::within(&cache, Duration::ZERO, || panic!("it is free")).is_some());
    }
}
