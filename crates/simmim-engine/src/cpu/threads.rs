//! A pool of workers that take small tasks as they get free, so that a core which somebody else needs for a
//! moment holds up one task and not half of the work.
//!
//! How work is cut does not depend on the number of workers, and what tasks return is put together in
//! their order: any number of threads gives the same bits.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Parts that small work is cut into: several for each of a few cores, and few enough for sums of their own.
const PARTS: usize = 16;

/// A fixed number of workers: the calling thread and threads of a pool.
pub(crate) struct Threads {
    /// One thread fewer than there are workers; none for a single one.
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    /// Starts `count` workers.
    ///
    /// # Panics
    /// If the system refuses to start a thread.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.max(1);
        let start = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("simmim-{i}"))
                .build()
                .expect("the system starts worker threads")
        };
        Self { pool: (count > 1).then(|| start(count - 1)), count }
    }

    /// Number of workers.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` on every task, in the order of `tasks` whenever a worker is free, and returns the results
    /// in that order.
    pub(crate) fn map<T: Send, R: Send>(&self, tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        let workers = self.count.min(tasks.len());
        let Some(pool) = self.pool.as_ref().filter(|_| workers > 1) else {
            return tasks.into_iter().map(work).collect();
        };
        let mut results: Vec<Option<R>> = tasks.iter().map(|_| None).collect();
        let waiting = Mutex::new(tasks.into_iter().zip(&mut results));
        let take_turns = || {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((task, result)) = next else { break };
                *result = Some(work(task));
            }
        };
        pool.in_place_scope(|scope| {
            (1..workers).for_each(|_| scope.spawn(|_| take_turns()));
            take_turns();
        });
        results.into_iter().map(|r| r.expect("scope waits for every task")).collect()
    }
}

/// `items` cut into contiguous parts, each a task.
pub(crate) fn parts(items: usize) -> Vec<Range<usize>> {
    divide(items, PARTS)
}

/// `items` cut into `count` contiguous parts that differ by at most one (fewer if items are).
pub(crate) fn divide(items: usize, count: usize) -> Vec<Range<usize>> {
    let count = count.min(items).max(1);
    (0..count).map(|part| items * part / count..items * (part + 1) / count).collect()
}

/// Splits `data`, `stride` values per item, into one slice per part.
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
    fn the_calling_thread_goes_on_working() {
        let own = std::thread::current().id();
        let ran_here = Threads::new(2).map((0..60).collect(), |_: usize| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            std::thread::current().id() == own
        });
        let own = ran_here.iter().filter(|here| **here).count();
        assert!((2..59).contains(&own), "{own} of 60 tasks");
    }

    #[test]
    fn a_slow_task_holds_up_no_other() {
        // the first task waits for the last: whoever runs the one must not be meant to run the other
        let (done, waits) = std::sync::mpsc::channel();
        let (done, waits) = (Mutex::new(done), Mutex::new(waits));
        let found = Threads::new(2).map((0..10).collect(), |i: usize| match i {
            0 => waits.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20)).is_ok(),
            9 => done.lock().unwrap().send(()).is_ok(),
            _ => true,
        });
        assert!(found.into_iter().all(|is_done| is_done));
    }
}
