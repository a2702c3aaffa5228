//! When the sums of a step were made, beside its backward pass or not, in words.

use crate::beside::Span;
use std::time::Instant;

/// What is called with each line.
pub type OnLine = Box<dyn Fn(&str) + Send>;

/// The sums of the step that is computed.
pub(crate) struct Timeline {
    on_line: OnLine,
    /// The step, and when it began.
    step: Option<(u64, Instant)>,
    spans: Vec<Span>,
}

impl Timeline {
    pub(crate) fn new(on_line: OnLine) -> Self {
        Self { on_line, step: None, spans: Vec::new() }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, step: u64) {
        self.step = Some((step, Instant::now()));
        self.spans.clear();
    }

    /// Sums were made.
    pub(crate) fn add(&mut self, spans: &[Span]) {
        self.spans.extend_from_slice(spans);
    }

    /// Says when the sums of the step were made; the backward pass was over at `computed`.
    pub(crate) fn say(&mut self, computed: Instant) {
        let Some((step, began)) = self.step.filter(|_| !self.spans.is_empty()) else { return };
        let ms = |at: Instant| 1e3 * at.saturating_duration_since(began).as_secs_f64();
        for (number, span) in self.spans.iter().enumerate() {
            (self.on_line)(&format!(
                "step {step}, sum {} of {} values: asked for at {:.1} ms, begun at {:.1} ms, done at {:.1} ms",
                number + 1,
                span.values,
                ms(span.asked),
                ms(span.begun),
                ms(span.done)
            ));
        }
        let summing: f64 = self.spans.iter().map(|span| ms(span.done) - ms(span.begun)).sum();
        let beside: f64 =
            self.spans.iter().map(|span| ms(span.done.min(computed)) - ms(span.begun.min(computed))).sum();
        let end = self.spans.iter().map(|span| ms(span.done)).fold(ms(computed), f64::max);
        (self.on_line)(&format!(
            "step {step}: backward pass over at {:.1} ms, sums at {end:.1} ms; {beside:.1} of {summing:.1} ms of summing lie before that",
            ms(computed)
        ));
        self.spans.clear();
    }
}
