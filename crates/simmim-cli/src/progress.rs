//! Progress on stderr: a bar on a terminal, a line now and then in a file.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use simmim::train::Event;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows a run's events.
pub(crate) struct Progress {
    bar: ProgressBar,
    is_quiet: bool,
    is_terminal: bool,
    last_line: Option<Instant>,
    batch_size: usize,
    total: u64,
}

impl Progress {
    /// A display for a run with this many images per update.
    pub(crate) fn new(is_quiet: bool, batch_size: usize) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            match is_quiet || !is_terminal {
                true => ProgressDrawTarget::hidden(),
                false => ProgressDrawTarget::stderr(),
            },
        );
        Self { bar, is_quiet, is_terminal, last_line: None, batch_size, total: 0 }
    }

    fn say(&self, line: &str) {
        if self.is_quiet {
            return;
        }
        if self.is_terminal { self.bar.println(line) } else { eprintln!("{line}") }
    }

    fn warn(&self, line: &str) {
        if self.is_terminal && !self.is_quiet { self.bar.println(line) } else { eprintln!("{line}") }
    }

    /// Shows one event.
    pub(crate) fn on(&mut self, event: &Event) {
        match event {
            Event::Started { updates, total, parameters, images, precision, precision_reason, threads } => {
                self.say(&format!(
                    "{:.2} M parameters · {images} images · {total} updates of {} · {precision} ({precision_reason}) · {threads} threads",
                    *parameters as f64 / 1e6,
                    self.batch_size
                ));
                if *updates > 0 {
                    self.say(&format!("going on after update {updates}"));
                }
                self.total = *total;
                self.bar.set_length(*total);
                self.bar.set_position(*updates);
                let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}").expect("the template is valid");
                self.bar.set_style(style);
            }
            Event::Head { head } => self.say(&format!(
                "head {}: {:.2} M parameters, {:.2} times the operations of a linear head's step",
                head.kind.name(),
                head.parameters as f64 / 1e6,
                head.step_cost
            )),
            Event::Updated { updates, loss, lr, images_per_second } => {
                let left_s = (self.total - updates) as f64 * self.batch_size as f64 / images_per_second.max(1e-9);
                let left = HumanDuration(Duration::from_secs_f64(left_s.min(1e9)));
                let message = format!("loss {loss:.4}  lr {lr:.1e}  {images_per_second:.0} images/s  {left:#} left");
                self.bar.set_position(*updates);
                self.bar.set_message(message.clone());
                if !self.is_terminal && self.last_line.is_none_or(|at| at.elapsed() > LINE_EVERY) {
                    self.last_line = Some(Instant::now());
                    self.say(&format!("update {updates}/{}  {message}", self.total));
                }
            }
            Event::Validated { updates, loss, baseline } => {
                let baseline = baseline.map_or(String::new(), |b| format!(" (predicting the visible mean {b:.4})"));
                self.say(&format!("update {updates}: held-out loss {loss:.4}{baseline}"));
            }
            Event::Evaluated { updates, loss, top1, top5 } => {
                self.say(&format!("update {updates}: top-1 {top1:.2} %, top-5 {top5:.2} %, held-out loss {loss:.4}"));
            }
            Event::Reconstructed { updates, measured } => self.say(&format!(
                "update {updates}: pixels from tokens are {:.4} off, {} of {} tokens in use, perplexity {:.0}",
                measured.l1, measured.tokens_in_use, measured.vocabulary, measured.perplexity
            )),
            Event::Transferred { transfer } => transfer.lines().iter().for_each(|line| self.say(line)),
            Event::Saved { path } => self.say(&format!("saved {}", path.display())),
            Event::Skipped { name, reason } => self.warn(&format!("warning: skipped `{name}`: {reason}")),
            Event::Damaged { error } => self.warn(&format!("warning: {error}; using the checkpoint before it")),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
