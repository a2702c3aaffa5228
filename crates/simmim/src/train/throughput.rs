//! Elapsed time and throughput of a run.

use std::collections::VecDeque;
use std::time::Instant;

/// Number of counts that the recent throughput is averaged over: of a step each, or of all that a device was not waited for.
const SPEED_WINDOW: usize = 20;

/// Elapsed time of a run, and the throughput of this process.
pub(super) struct Throughput {
    before_s: f64,
    since: Instant,
    images: usize,
    seconds: f64,
    recent: VecDeque<Step>,
}

/// What one step took.
struct Step {
    images: usize,
    seconds: f64,
    /// Seconds of waiting for the images of the step.
    waited_s: f64,
}

impl Throughput {
    /// Starts the clock of a run that took `before_s` seconds in earlier processes.
    pub(super) fn new(before_s: f64) -> Self {
        Self { before_s, since: Instant::now(), images: 0, seconds: 0.0, recent: VecDeque::new() }
    }

    /// Counts the images of steps that began at `started` and waited for images in all.
    pub(super) fn count(&mut self, images: usize, started: Instant, waited_s: f64) {
        let seconds = started.elapsed().as_secs_f64();
        self.images += images;
        self.seconds += seconds;
        if self.recent.len() == SPEED_WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(Step { images, seconds, waited_s });
    }

    /// Elapsed seconds of the run, over all processes.
    pub(super) fn seconds(&self) -> f64 {
        self.before_s + self.since.elapsed().as_secs_f64()
    }

    /// Images per second of the steps of this process.
    pub(super) fn speed(&self) -> f64 {
        if self.seconds > 0.0 { self.images as f64 / self.seconds } else { 0.0 }
    }

    /// Images per second of the last few steps.
    pub(super) fn recent_speed(&self) -> f64 {
        self.recent_sum(|step| step.images as f64)
    }

    /// The share of the last few steps that passed in waiting for images.
    pub(super) fn recent_waiting(&self) -> f64 {
        self.recent_sum(|step| step.waited_s)
    }

    /// The sum of what each of the last few steps counts, divided by their seconds.
    fn recent_sum(&self, of_step: impl Fn(&Step) -> f64) -> f64 {
        let seconds: f64 = self.recent.iter().map(|step| step.seconds).sum();
        if seconds > 0.0 { self.recent.iter().map(of_step).sum::<f64>() / seconds } else { 0.0 }
    }
}
