//! The time spent in each operation.

use crate::Cpu;
use simmim_engine::{Direction, OperationTime};
use std::time::Instant;

/// The time spent in each operation, without the operations that it calls.
#[derive(Default)]
pub(super) struct Profile {
    times: Vec<OperationTime>,
    /// Seconds in all operations so far.
    total: f64,
}

impl Cpu {
    /// Returns the times and starts again from none.
    pub(super) fn take_times(&self) -> Vec<OperationTime> {
        std::mem::take(&mut self.profile.borrow_mut().times)
    }

    /// Runs `work` and adds its time to that of the operation.
    pub(super) fn timed<T>(&self, operation: &'static str, direction: Direction, work: impl FnOnce() -> T) -> T {
        let (started, before) = (Instant::now(), self.profile.borrow().total);
        let result = work();
        let mut profile = self.profile.borrow_mut();
        // what was added to the total meanwhile are the operations that this one called
        let seconds = started.elapsed().as_secs_f64() - (profile.total - before);
        profile.total += seconds;
        match profile.times.iter_mut().find(|t| t.operation == operation && t.direction == direction) {
            Some(time) => {
                time.seconds += seconds;
                time.count += 1;
            }
            None => profile.times.push(OperationTime { operation, direction, seconds, count: 1 }),
        }
        result
    }
}
