//! Worker threads that share a list of small tasks, and the division of work into tasks.
//!
//! A worker takes the next task whenever it is free. So if another program occupies a core for a while, one task is
//! late, not half of the work.
//!
//! An operation may be over in less time than it takes to wake a thread. So after an operation as many threads as took part in it
//! look out for the next one for a while before they sleep, and so does the caller before it sleeps until the others are done.
//!
//! How work is divided does not depend on the number of workers where that would change a sum, and results are returned in the
//! order of the tasks. So any number of threads gives the same bits.

use simmim_kernels::product::release;
use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tasks that the work of a small operation is divided into: several for each of a few cores, yet so few that each can
/// have sums of its own.
const PARTS: usize = 16;

/// A fixed number of workers: the calling thread and the threads of a pool.
pub(crate) struct Threads {
    /// All workers but the calling thread; `None` if there are no others.
    pool: Option<rayon::ThreadPool>,
    count: usize,
    /// Changes whenever several workers have tasks.
    calls: Arc<AtomicUsize>,
}

/// How long a thread looks out for work, or for the end of the others' work, before it sleeps.
const LOOKOUT: Duration = Duration::from_micros(200);

impl Threads {
    /// Starts `count` workers.
    ///
    /// # Panics
    /// If the operating system refuses to start a thread.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.max(1);
        let start = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("simmim-{i}"))
                .build()
                .expect("the system starts worker threads")
        };
        Self { pool: (count > 1).then(|| start(count - 1)), count, calls: Arc::default() }
    }

    /// The number of workers.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` on all tasks, which workers begin in the order of `tasks`, and returns the results in that order.
    pub(crate) fn map<T: Send, R: Send>(&self, tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        let workers = self.count.min(tasks.len());
        let Some(pool) = self.pool.as_ref().filter(|_| workers > 1) else {
            let _at_end = ReleaseAtEnd;
            return tasks.into_iter().map(work).collect();
        };
        let mut results: Vec<Option<R>> = tasks.iter().map(|_| None).collect();
        let remaining = Mutex::new(tasks.into_iter().zip(&mut results));
        let run_tasks = || {
            let _at_end = ReleaseAtEnd;
            loop {
                let next = remaining.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((task, result)) = next else { break };
                *result = Some(work(task));
            }
        };
        let call = self.calls.fetch_add(1, Ordering::Release) + 1;
        let others = AtomicUsize::new(workers - 1);
        pool.in_place_scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|_| {
                    run_tasks();
                    others.fetch_sub(1, Ordering::Release);
                });
            }
            run_tasks();
            look_out_until(|| others.load(Ordering::Acquire) == 0);
        });
        for _ in 1..workers {
            let calls = Arc::clone(&self.calls);
            pool.spawn(move || look_out_until(|| calls.load(Ordering::Acquire) != call));
        }
        results.into_iter().map(|r| r.expect("the scope ends after all tasks")).collect()
    }
}

/// Releases what products have occupied of the CPU, also if a task panics: other code of the thread may use it otherwise.
struct ReleaseAtEnd;

impl Drop for ReleaseAtEnd {
    fn drop(&mut self) {
        release();
    }
}

/// Waits awake until something is so, but not longer than [`LOOKOUT`].
fn look_out_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() && start.elapsed() < LOOKOUT {
        spin_loop();
    }
}

/// Divides `items` into contiguous parts, each for a task.
pub(crate) fn parts(items: usize) -> Vec<Range<usize>> {
    divide(items, PARTS)
}

/// Divides `items` into `count` contiguous parts, or as many as there are items. Their lengths differ by at most one.
pub(crate) fn divide(items: usize, count: usize) -> Vec<Range<usize>> {
    let count = count.min(items).max(1);
    (0..count).map(|part| items * part / count..items * (part + 1) / count).collect()
}

/// Splits `data`, which has `stride` values per item, into the slices of the parts.
///
/// # Panics
/// If the parts do not cover `data` exactly.
pub(crate) fn split_mut<'a, T>(mut data: &'a mut [T], parts: &[Range<usize>], stride: usize) -> Vec<&'a mut [T]> {
    let slices = parts
        .iter()
        .map(|part| {
            let (slice, rest) = std::mem::take(&mut data).split_at_mut(part.len() * stride);
            data = rest;
            slice
        })
        .collect();
    assert!(data.is_empty(), "parts leave {} values over", data.len());
    slices
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Condvar;

    /// How long a test waits for another thread before it fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn parts_are_contiguous_cover_everything_and_differ_by_at_most_one() {
        for (count, items) in [(1, 5), (2, 5), (3, 7), (4, 3), (2, 0)] {
            let parts = divide(items, count);
            let mut next = 0;
            for part in &parts {
                assert_eq!(part.start, next);
                next = part.end;
            }
            assert_eq!(next, items);
            let sizes: Vec<_> = parts.iter().map(Range::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn results_come_in_the_order_of_tasks() {
        let squares = Threads::new(3).map((0..100).collect(), |i: usize| i * i);
        assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
    }

    #[test]
    fn the_calling_thread_is_one_of_the_workers() {
        // each of two tasks waits until the other one has begun, so two threads must run one each
        let (begun, changed) = (Mutex::new(0), Condvar::new());
        let caller = std::thread::current().id();
        let ran_on = Threads::new(2).map(vec![(), ()], |()| {
            let mut count = begun.lock().unwrap();
            *count += 1;
            changed.notify_all();
            let waited = changed.wait_timeout_while(count, PATIENCE, |count| *count < 2).unwrap();
            assert!(!waited.1.timed_out(), "the two tasks do not run at the same time");
            std::thread::current().id()
        });
        assert_eq!(ran_on.iter().filter(|id| **id == caller).count(), 1);
    }

    #[test]
    fn calls_of_any_size_follow_each_other_with_and_without_a_pause() {
        let threads = Threads::new(3);
        for call in 0..300 {
            let count = [1, 2, 3, 50][call % 4];
            assert_eq!(
                threads.map((0..count).collect(), |i: usize| i + call),
                (call..call + count).collect::<Vec<_>>()
            );
            if call % 100 == 99 {
                std::thread::sleep(3 * LOOKOUT); // all have gone to sleep
            }
            if call % 100 == 50 {
                let panics = std::panic::AssertUnwindSafe(|| threads.map(vec![0, 1, 2], |i| assert!(i != 1)));
                assert!(std::panic::catch_unwind(panics).is_err());
            }
        }
    }

    #[test]
    fn a_slow_task_holds_up_no_other() {
        // the first task waits for the last, so the worker that runs the first must not be meant to run the last
        let (sender, receiver) = std::sync::mpsc::channel();
        let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
        let is_done = Threads::new(2).map((0..10).collect(), |i: usize| match i {
            0 => receiver.lock().unwrap().recv_timeout(PATIENCE).is_ok(),
            9 => sender.lock().unwrap().send(()).is_ok(),
            _ => true,
        });
        assert!(is_done.into_iter().all(|is_done| is_done));
    }
}
