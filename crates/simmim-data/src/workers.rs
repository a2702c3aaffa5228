//! Results that several threads make and one thread takes in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result, panic_message};

/// A function that makes the result with a given number; `None` after the last one, or if the flag is set to stop.
pub(crate) type Make<T> = dyn Fn(u64, &AtomicBool) -> Option<Result<T>> + Send + Sync;

/// An iterator over the results with the numbers `first`, `first + 1`, … in this order.
///
/// Each of `W` threads makes every `W`-th result, thread `w` starting with `first + w`, and sends them through its own
/// channel. The results are taken from the channels in turn, so they need no sorting, and a full channel stops a thread
/// that is too far ahead. Without threads a result is made when it is taken.
pub(crate) struct InOrder<T> {
    make: Arc<Make<T>>,
    stop: Arc<AtomicBool>,
    threads: Vec<Thread<T>>,
    next: u64,
    first: u64,
    has_ended: bool,
}

struct Thread<T> {
    results: Receiver<Result<T>>,
    handle: JoinHandle<()>,
}

impl<T: Send + 'static> InOrder<T> {
    /// Starts `workers` threads that together make up to `ahead` results ahead, and each at least one.
    ///
    /// # Errors
    ///
    /// [`Error::NoThread`] if the system does not start a thread.
    pub(crate) fn new(make: Arc<Make<T>>, first: u64, workers: usize, ahead: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut results = Self { make, stop, threads: Vec::new(), next: first, first, has_ended: false };
        for worker in 0..workers {
            // one less, because a thread that waits for room in its channel holds one more result
            let (sender, receiver) = sync_channel(ahead.div_ceil(workers).saturating_sub(1));
            let (make, stop) = (Arc::clone(&results.make), Arc::clone(&results.stop));
            let numbers = (first + worker as u64..).step_by(workers);
            let handle = Builder::new()
                .name(format!("loader-{worker}"))
                .spawn(move || run(&*make, numbers, &stop, &sender))
                .map_err(|cause| Error::NoThread { cause })?;
            results.threads.push(Thread { results: receiver, handle });
        }
        Ok(results)
    }
}

fn run<T>(make: &Make<T>, numbers: impl Iterator<Item = u64>, stop: &AtomicBool, sender: &SyncSender<Result<T>>) {
    for number in numbers {
        let Some(result) = make(number, stop) else { return };
        if sender.send(result).is_err() {
            return;
        }
    }
}

impl<T> InOrder<T> {
    fn make_or_receive(&mut self) -> Option<Result<T>> {
        if self.threads.is_empty() {
            return (self.make)(self.next, &self.stop);
        }
        let turn = ((self.next - self.first) % self.threads.len() as u64) as usize;
        if let Ok(result) = self.threads[turn].results.recv() {
            return Some(result);
        }
        // the thread has ended, either after its last result or by a panic
        match self.threads.swap_remove(turn).handle.join() {
            Ok(()) => None,
            Err(panic) => Some(Err(Error::WorkerPanicked { message: panic_message(&*panic) })),
        }
    }

    /// Stops all threads and waits for them; they abandon unfinished results at the next sample.
    fn end(&mut self) {
        self.has_ended = true;
        self.stop.store(true, Ordering::Relaxed);
        let (receivers, handles): (Vec<_>, Vec<_>) =
            self.threads.drain(..).map(|thread| (thread.results, thread.handle)).unzip();
        drop(receivers); // wakes threads that wait for room in their channel
        for handle in handles {
            // nobody takes its results any more, so a panic does not matter
            drop(handle.join());
        }
    }
}

impl<T> Iterator for InOrder<T> {
    type Item = Result<T>;

    /// Returns the next result; the iterator ends after an error.
    fn next(&mut self) -> Option<Result<T>> {
        if self.has_ended {
            return None;
        }
        let result = self.make_or_receive();
        self.next += 1;
        if !matches!(result, Some(Ok(_))) {
            self.end();
        }
        result
    }
}

impl<T> Drop for InOrder<T> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn numbers(last: u64, workers: usize, ahead: usize) -> InOrder<u64> {
        let make = move |number: u64, _: &AtomicBool| {
            // a pseudo-random delay, so that later numbers are often ready first
            std::thread::sleep(std::time::Duration::from_micros((number * 7919 % 5) * 200));
            (number < last).then_some(Ok(number))
        };
        InOrder::new(Arc::new(make), 3, workers, ahead).unwrap()
    }

    #[test]
    fn results_come_in_order_and_end() {
        for (workers, ahead) in [(0, 0), (1, 0), (1, 4), (2, 1), (5, 3), (5, 20), (30, 0)] {
            let mut results = numbers(20, workers, ahead);
            let taken: Vec<u64> = results.by_ref().map(Result::unwrap).collect();
            assert_eq!(taken, (3..20).collect::<Vec<_>>(), "{workers} workers, {ahead} ahead");
            assert!(results.next().is_none());
        }
    }

    #[test]
    fn dropping_early_does_not_hang() {
        for taken in [0, 1, 7] {
            let mut results = numbers(u64::MAX, 4, 8);
            assert_eq!(results.by_ref().take(taken).count(), taken);
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_ends_the_results() {
        let make = |number: u64, _: &AtomicBool| {
            assert!(number < 5, "number {number} is too much");
            Some(Ok(number))
        };
        let mut results = InOrder::new(Arc::new(make), 0, 2, 2).unwrap();
        assert_eq!(results.by_ref().take(5).filter(Result::is_ok).count(), 5);
        let error = results.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a loader thread panicked: number 5 is too much");
        assert!(results.next().is_none());
    }

    #[test]
    fn threads_are_six_results_ahead_and_no_further() {
        let taken = Arc::new(AtomicU64::new(0));
        let (sender, made) = std::sync::mpsc::channel();
        let make = {
            let taken = Arc::clone(&taken);
            move |number: u64, _: &AtomicBool| {
                let taken = taken.load(Ordering::Relaxed);
                // a panic here becomes an error of the result
                assert!(number < taken + 6, "number {number} is made when only {taken} are taken");
                sender.send(number).unwrap();
                Some(Ok(number))
            }
        };
        let mut results = InOrder::new(Arc::new(make), 0, 2, 6).unwrap();
        let mut last_made = 0;
        for number in 0..100 {
            // the threads go on until six are ready; the limit only keeps a failure from hanging
            while last_made < number + 6 {
                made.recv_timeout(std::time::Duration::from_secs(60)).expect("a thread does not use its room");
                last_made += 1;
            }
            taken.fetch_add(1, Ordering::Relaxed);
            assert_eq!(results.next().unwrap().unwrap(), number);
        }
    }
}
