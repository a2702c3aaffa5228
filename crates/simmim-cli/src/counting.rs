//! Progress of a pass over images on stderr: a bar on a terminal, else a line every few seconds.

use crate::terminal;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Time between lines if stderr is not a terminal; also the time before the first one.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Time between two changes of the bar.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

/// Counts images.
pub(crate) struct Counting {
    bar: ProgressBar,
    is_terminal: bool,
    is_quiet: bool,
    total: usize,
    /// Images that were done before.
    before: usize,
    start: Instant,
    last: Instant,
}

impl Counting {
    /// Progress of a pass over `total` images.
    pub(crate) fn new(is_quiet: bool, total: usize) -> Self {
        let is_terminal = terminal::is_terminal();
        let target = match is_quiet || !is_terminal {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}").expect("the template is valid"));
        let now = Instant::now();
        Self { bar, is_terminal, is_quiet, total, before: 0, start: now, last: now }
    }

    /// Says that `done` images were done before, which do not count in the rate.
    pub(crate) fn begin_at(&mut self, done: usize) {
        self.before = done;
    }

    /// Shows that `done` images are done.
    pub(crate) fn on(&mut self, done: usize) {
        let every = if self.is_terminal { CHANGE_EVERY } else { LINE_EVERY };
        if self.is_quiet || self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let message = rate(done - self.before, self.total - self.before, self.start.elapsed());
        if self.is_terminal {
            self.bar.set_position(done as u64);
            self.bar.set_message(message);
        } else {
            terminal::line(&format!("{done} of {} images  {message}", self.total));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The rate, and the time that is left at this rate.
fn rate(done: usize, total: usize, elapsed: Duration) -> String {
    let per_second = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let left_s = total.saturating_sub(done) as f64 / per_second.max(1e-9);
    let left = HumanDuration(Duration::from_secs_f64(left_s.min(1e9)));
    format!("{per_second:.0} images/s  {left:#} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_the_rate() {
        assert_eq!(rate(500, 2000, Duration::from_secs(5)), "100 images/s  15s left");
        assert_eq!(rate(7, 7, Duration::from_secs(7)), "1 images/s  0s left");
    }
}
