//! Where the time of a step goes, operation by operation.

use super::Cpu;
use std::time::Instant;

/// Direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Outputs from inputs.
    Forward,
    /// Gradients.
    Backward,
    /// Clipping and the optimizer.
    Update,
}

/// Time spent in one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// The operation.
    pub operation: &'static str,
    /// Its direction.
    pub pass: Pass,
    /// Seconds in all.
    pub seconds: f64,
    /// How often it ran.
    pub count: usize,
}

/// Time spent in operations, each without those that it calls.
#[derive(Default)]
pub(super) struct Profile {
    spent: Vec<Spent>,
    total: f64,
}

impl Cpu {
    /// What was spent since the last call, in the order of first use.
    pub fn take_profile(&self) -> Vec<Spent> {
        std::mem::take(&mut self.profile.borrow_mut().spent)
    }

    pub(super) fn timed<T>(&self, operation: &'static str, pass: Pass, work: impl FnOnce() -> T) -> T {
        let (started, before) = (Instant::now(), self.profile.borrow().total);
        let result = work();
        let mut profile = self.profile.borrow_mut();
        let seconds = started.elapsed().as_secs_f64() - (profile.total - before);
        profile.total += seconds;
        match profile.spent.iter_mut().find(|s| s.operation == operation && s.pass == pass) {
            Some(spent) => {
                spent.seconds += seconds;
                spent.count += 1;
            }
            None => profile.spent.push(Spent { operation, pass, seconds, count: 1 }),
        }
        result
    }
}
