//! Progress on stderr: a progress bar on a terminal, else a line every few seconds.

use crate::commands::{overlap_warning, passed_over_notes, passed_over_warnings};
use crate::terminal::{self, escaped};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use simmim::train::Event;
use simmim_engine::Slot;
use std::time::{Duration, Instant};

/// Time between lines if stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the events of a run.
pub(crate) struct Progress {
    bar: ProgressBar,
    is_quiet: bool,
    is_terminal: bool,
    last_line: Option<Instant>,
    batch_size: usize,
    total: u64,
}

impl Progress {
    /// Progress of a run with this batch size.
    pub(crate) fn new(is_quiet: bool, batch_size: usize) -> Self {
        let is_terminal = terminal::is_terminal();
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
        if self.is_terminal { self.bar.println(escaped(line)) } else { terminal::line(line) }
    }

    fn warn(&self, line: &str) {
        if self.is_terminal && !self.is_quiet { self.bar.println(escaped(line)) } else { terminal::line(line) }
    }

    /// Shows one event.
    pub(crate) fn on(&mut self, event: &Event) {
        match event {
            Event::Started { steps, total, parameters, images, device, precision, precision_reason, threads } => {
                self.say(&format!(
                    "{} parameters · {images} images · {total} steps of {} · {precision} ({precision_reason}) · {device}, {threads} threads",
                    short(*parameters),
                    self.batch_size
                ));
                if *steps > 0 {
                    self.say(&format!("resuming after step {steps}"));
                }
                self.total = *total;
                self.bar.set_length(*total);
                self.bar.set_position(*steps);
                let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}").expect("the template is valid");
                self.bar.set_style(style);
            }
            Event::Head { head } => self.say(&format!(
                "head {}: {} parameters, {:.2} × the FLOPs of a model with a linear head",
                head.kind.name(),
                short(head.parameters),
                head.step_cost
            )),
            Event::Stepped { steps, loss, lr, images_per_second } => {
                let left_s = (self.total - steps) as f64 * self.batch_size as f64 / images_per_second.max(1e-9);
                let left = HumanDuration(Duration::from_secs_f64(left_s.min(1e9)));
                let message = format!("loss {loss:.4}  lr {lr:.1e}  {images_per_second:.0} images/s  {left:#} left");
                self.bar.set_position(*steps);
                self.bar.set_message(message.clone());
                if !self.is_terminal && self.last_line.is_none_or(|at| at.elapsed() > LINE_EVERY) {
                    self.last_line = Some(Instant::now());
                    self.say(&format!("step {steps}/{}  {message}", self.total));
                }
            }
            Event::Validated { steps, loss, baseline } => {
                let baseline = baseline.map_or(String::new(), |b| format!(" (predicting the mean of the visible pixels: {b:.4})"));
                self.say(&format!("step {steps}: held-out loss {loss:.4}{baseline}"));
            }
            Event::Classified { steps, loss, top1, top5, mean_average_precision } => {
                let mean = mean_average_precision.map_or(String::new(), |m| format!("mean average precision {m:.2} %, "));
                self.say(&format!("step {steps}: {mean}top-1 {top1:.2} %, top-5 {top5:.2} %, held-out loss {loss:.4}"));
            }
            Event::Monitored { steps, quality, time_share } => self.say(&format!(
                "step {steps}: features: k-NN {:.1} %, linear probe {}, effective rank {:.1} ({:.1} % of the time)",
                quality.knn_top1,
                quality.probe_top1.map_or("diverged".into(), |top1| format!("{top1:.1} %")),
                quality.spread.rank_me,
                100.0 * time_share
            )),
            Event::Reconstructed { steps, report } => self.say(&format!(
                "step {steps}: reconstruction error {:.4} (L1), {} of {} tokens in use, perplexity {:.0}",
                report.l1, report.tokens_in_use, report.vocabulary, report.perplexity
            )),
            Event::Transferred { transfer } => transfer.lines().iter().for_each(|line| self.say(line)),
            Event::Frozen { frozen, parameters } => {
                let (frozen, parameters) = (short(*frozen), short(*parameters));
                self.say(&format!("frozen: {frozen} of {parameters} parameters"));
            }
            Event::Kept { slots } => {
                let each: Vec<String> = slots
                    .iter()
                    .filter(|(_, bytes)| *bytes > 0)
                    .map(|(slot, bytes)| format!("{} {:.1} MB", name_of(*slot), *bytes as f64 / 1e6))
                    .collect();
                self.say(&format!("this rank keeps {}", each.join(", ")));
            }
            Event::Saved { path } => self.say(&format!("saved {}", path.display())),
            Event::Skipped { name, reason } => self.warn(&format!("warning: skipped `{name}`: {reason}")),
            Event::Unreadable { collection, images, replaced } => {
                let how = match *replaced {
                    0 => "they are left out".to_owned(),
                    times => format!("other images took their place {times} times"),
                };
                self.warn(&format!("warning: {images} {} cannot be read; {how}", collection.name()));
            }
            Event::PassedOver { passed_over } => {
                passed_over_warnings(passed_over).iter().for_each(|line| self.warn(line));
                passed_over_notes(passed_over).iter().for_each(|line| self.say(line));
            }
            Event::Overlapping { collections, overlap } => self.warn(&overlap_warning(*collections, overlap)),
            Event::OtherStart { then, now } => {
                let name = |from: Option<&str>| from.map_or("random weights".to_owned(), |from| format!("the weights in `{from}`"));
                self.warn(&format!(
                    "warning: the run began from {} and goes on; {} would be used in another run (--out)",
                    name(*then),
                    name(*now)
                ));
            }
            Event::OtherImages { collection, then, now } => {
                let images = collection.name();
                self.warn(&match then == now {
                    true => format!("warning: the {images} of `{now}` are others than those that the run began with"),
                    false => format!("warning: the run began with the {images} of `{then}` and goes on with others, those of `{now}`"),
                });
            }
            Event::KeptTokenizer { original } => self.warn(&format!(
                "warning: `{original}` is another tokenizer now; the run goes on with its own, the one that it began with"
            )),
            Event::Damaged { error } => self.warn(&format!("warning: {error}; using the checkpoint before it")),
        }
    }

    /// Removes the progress bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A number of parameters, in millions if there are many.
fn short(parameters: usize) -> String {
    match parameters {
        0..100_000 => parameters.to_string(),
        _ => format!("{:.2} M", parameters as f64 / 1e6),
    }
}

fn name_of(slot: Slot) -> &'static str {
    match slot {
        Slot::Values => "parameters",
        Slot::Gradients => "gradients",
        Slot::FirstMoment => "first moments",
        Slot::SecondMoment => "second moments",
        Slot::Average => "average",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_parameters_are_counted_and_many_are_rounded() {
        assert_eq!([2064, 99_999, 100_000, 85_761_024].map(short), ["2064", "99999", "0.10 M", "85.76 M"]);
    }
}
