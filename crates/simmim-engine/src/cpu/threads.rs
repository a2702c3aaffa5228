//! A pool whose work is divided before it starts, never by who is free first.
//!
//! Which images a group holds depends only on their number and the pool's size, so sums taken per
//! group and then added in order are the same in every run.

use std::ops::Range;

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

    /// `items` divided into as many contiguous groups as there are workers (fewer if items are).
    pub(crate) fn groups(&self, items: usize) -> Vec<Range<usize>> {
        let groups = self.count.min(items).max(1);
        (0..groups).map(|g| items * g / groups..items * (g + 1) / groups).collect()
    }

    /// Runs `work` on every task, one task per worker at a time, and returns the results in order.
    pub(crate) fn map<T: Send, R: Send>(&self, tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        let Some(pool) = self.pool.as_ref().filter(|_| tasks.len() > 1) else {
            return tasks.into_iter().map(work).collect();
        };
        let mut results: Vec<Option<R>> = tasks.iter().map(|_| None).collect();
        let work = &work;
        pool.in_place_scope(|scope| {
            let mut tasks = tasks.into_iter().zip(&mut results);
            let own = tasks.next();
            for (task, result) in tasks {
                scope.spawn(move |_| *result = Some(work(task)));
            }
            if let Some((task, result)) = own {
                *result = Some(work(task));
            }
        });
        results.into_iter().map(|r| r.expect("scope waits for every task")).collect()
    }
}

/// Splits `data`, `stride` values per item, into one slice per group.
///
/// # Panics
/// If the groups do not cover `data` exactly.
pub(crate) fn split_mut<'a, T>(mut data: &'a mut [T], groups: &[Range<usize>], stride: usize) -> Vec<&'a mut [T]> {
    let parts = groups
        .iter()
        .map(|g| {
            let (part, rest) = std::mem::take(&mut data).split_at_mut(g.len() * stride);
            data = rest;
            part
        })
        .collect();
    assert!(data.is_empty(), "groups leave {} values over", data.len());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_contiguous_cover_everything_and_differ_by_at_most_one() {
        for (count, items) in [(1, 5), (2, 5), (3, 7), (4, 3), (2, 0)] {
            let groups = Threads::new(count).groups(items);
            let mut next = 0;
            for g in &groups {
                assert_eq!(g.start, next);
                next = g.end;
            }
            assert_eq!(next, items);
            let sizes: Vec<_> = groups.iter().map(Range::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn results_come_in_the_order_of_tasks() {
        let squares = Threads::new(2).map((0..100).collect(), |i: usize| i * i);
        assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
    }
}
